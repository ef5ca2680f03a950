"""Both stages on the tiny study: what they write is complete, and every number can be computed again from it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score

from whqa.assessment import assess, load_run
from whqa.callbacks.calibrating import OPINION_SHARES
from whqa.config.instantiate import config_dir
from whqa.judges.boosted_rate import BoostedRate
from whqa.judges.calibration import read_calibration
from whqa.masks.opinion import OPINION, VIEWS
from whqa.masks.plan import MASK_KINDS, has_entropy, is_trained_on
from whqa.structures import MMWHS

Rows = list[dict[str, str]]
Read = Callable[[Path], Rows]

KINDS = MASK_KINDS
OWN = tuple(kind for kind in KINDS if has_entropy(kind))
"""What a segmenter says itself."""
DICE = tuple(f"dice_{s}" for s in MMWHS.keys)
COLUMNS = (
    *("case", "fold", "mask_kind", "method", "error_dice", "error_auprc"),
    *("acc_volume", "qi_volume", "acc_heart", "qi_heart", *DICE),
    *(f"{name}_{what}" for what in ("predicted", "corrected") for name in DICE),
    *("patient", "modality", "segmenter", "voxels", "error_voxels", "predicted_voxels", "hit_voxels"),
    *("qi_soft_volume", "qi_soft_heart", "opinion_dice", "pairwise_dice"),
    *("true_places", "found_places", "false_places"),
    *(
        n
        for s in ("thin", "blob", "missing")
        for n in (f"{s}_voxels", f"{s}_hit_voxels", f"{s}_places", f"found_{s}_places")
    ),
    *(f"error_{name}" for name in DICE),
    *("place_certainty", "seconds"),
    *("constant_volume", "constant_heart", "constant_volume_kind", "constant_heart_kind"),
)
METHODS = {"errormap", "constant", "boundary", "entropy", "opinion", "tta"}
SPACING = 8.0


def _study(root: Path) -> Path:
    return root / "runs" / "tiny"


def _folds(root: Path) -> list[list[str]]:
    return json.loads((_study(root) / "folds.json").read_text())["folds"]


def _label(root: Path, case: str) -> np.ndarray:
    (path,) = (root / "runs" / ".cache").glob(f"{case}-*/label.npy")
    return np.load(path)


def _mask(root: Path, fold: int, case: str, kind: str) -> dict[str, np.ndarray]:
    with np.load(_study(root) / "segmenter" / str(fold) / "masks" / case / f"{kind}.npz") as arrays:
        return dict(arrays)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else 2 * (a & b).sum() / total


@pytest.mark.parametrize("fold", range(3))
def test_a_segmenter_writes_masks_of_all_kinds_of_its_held_out_cases(segmented: Path, fold: int) -> None:
    directory = _study(segmented) / "segmenter" / str(fold)
    assert (directory / "COMPLETED").exists()
    made = {(p.parent.name, p.stem) for p in directory.glob("masks/*/*.npz")}
    assert made == {(case, kind) for case in _folds(segmented)[fold] for kind in (*KINDS, OPINION, VIEWS)}
    for case, kind in made:
        arrays, label = _mask(segmented, fold, case, kind), _label(segmented, case)
        assert str(arrays["segmenter"]) == str(fold)
        assert bool(arrays["unseen"])
        if kind in (OPINION, VIEWS):
            assert arrays["log_p"].shape == (8, *label.shape)
            # where two labels are all but alike, what is stored of p may turn them, and views do
            said = arrays["log_p"].argmin(axis=0)
            assert (said == _mask(segmented, fold, case, "final")["mask"]).mean() > 0.95
            continue
        assert arrays["mask"].shape == label.shape
        assert ("entropy" in arrays) == (kind in OWN)
        assert np.array_equal(arrays["mask"], label) == (kind == "reference")


def test_the_segmenters_table_holds_numpy_s_numbers(segmented: Path, rows_of: Read) -> None:
    rows = rows_of(_study(segmented) / "segmenter" / "1" / "cases.csv")
    assert [(r["mask_kind"], r["case"]) for r in rows] == [(k, c) for k in KINDS for c in _folds(segmented)[1]]
    for row in rows:
        mask, label = _mask(segmented, 1, row["case"], row["mask_kind"])["mask"], _label(segmented, row["case"])
        assert (row["fold"], row["segmenter"], row["unseen"]) == ("1", "1", "1")
        assert float(row["error_rate"]) == pytest.approx((mask != label).mean(), rel=1e-5)
        for index, key in enumerate(MMWHS.keys, start=1):
            assert float(row[f"dice_{key}"]) == pytest.approx(_dice(mask == index, label == index), abs=1e-6)
            assert (row[f"hd95_{key}"] != "") == (row["mask_kind"] == "final")


def test_kinds_are_masks_of_their_own(segmented: Path) -> None:
    case = _folds(segmented)[0][0]
    entropies = [_mask(segmented, 0, case, kind)["entropy"].tobytes() for kind in OWN]
    assert len(set(entropies)) == len(OWN)


def test_the_case_table_has_the_columns_of_the_contract(judged: Path, rows_of: Read) -> None:
    rows = rows_of(_study(judged) / "errormap" / "0" / "cases.csv")
    assert tuple(rows[0]) == COLUMNS


def test_the_case_table_has_one_row_a_mask_and_method(judged: Path, rows_of: Read) -> None:
    rows = rows_of(_study(judged) / "errormap" / "0" / "cases.csv")
    methods = {r["method"] for r in rows}
    assert methods == METHODS
    found = sorted((r["case"], r["mask_kind"], r["method"]) for r in rows)
    expected = [(c, k, m) for c in _folds(judged)[0] for k in KINDS for m in methods]
    lacking = {("entropy", kind) for kind in {*KINDS} - {*OWN}}
    assert found == sorted(x for x in expected if (x[2], x[1]) not in lacking)
    assert {(r["fold"], r["modality"], r["segmenter"]) for r in rows} == {("0", "ct", "0")}
    assert all(r["patient"] == r["case"] for r in rows)
    assert all(float(r["seconds"]) > 0 for r in rows)


def _heart(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.ones(mask.shape, bool)
    return ndimage.distance_transform_edt(mask == 0, sampling=SPACING) <= 10.0


def _recomputed(predicted: np.ndarray, mask: np.ndarray, label: np.ndarray) -> dict[str, float]:
    error, heart = mask != label, _heart(mask)
    return {
        "error_dice": _dice(predicted, error),
        "error_voxels": error.sum(),
        "predicted_voxels": predicted.sum(),
        "hit_voxels": (predicted & error).sum(),
        "acc_volume": 1 - error.mean(),
        "qi_volume": 1 - predicted.mean(),
        "acc_heart": 1 - error[heart].mean(),
        "qi_heart": 1 - predicted[heart].mean(),
    } | {
        f"{name}_{k}": value
        for i, k in enumerate(MMWHS.keys, start=1)
        for name, value in (
            ("dice", _dice(mask == i, label == i)),
            ("error_dice", _dice(predicted & ((mask == i) | (label == i)), (mask == i) != (label == i))),
        )
    }


def _rows(rows: Rows, method: str) -> Rows:
    return [r for r in rows if r["method"] == method]


def test_the_networks_rows_follow_from_the_stored_error_maps(judged: Path, rows_of: Read) -> None:
    directory = _study(judged) / "errormap" / "0"
    rows = _rows(rows_of(directory / "cases.csv"), "errormap")
    for row in rows:
        mask, label = _mask(judged, 0, row["case"], row["mask_kind"])["mask"], _label(judged, row["case"])
        with np.load(directory / "masks" / row["case"] / f"{row['mask_kind']}.npz") as arrays:
            predicted, probability = arrays["error_map"].astype(bool), arrays["error_probability"] / 255.0
        for key, value in _recomputed(predicted, mask, label).items():
            if not key.startswith("qi_"):
                assert float(row[key]) == pytest.approx(value, abs=1e-6), key
        for region, where in (("volume", np.ones(mask.shape, bool)), ("heart", _heart(mask))):
            # what is calibrated is taken at its word
            assert row[f"qi_{region}"] == row[f"qi_soft_{region}"]
            assert float(row[f"qi_{region}"]) == pytest.approx(1 - probability[where].mean(), abs=0.5 / 255)
        if predicted.any() and not predicted.all():
            assert probability[predicted].min() >= probability[~predicted].max() - 0.5 / 255


def test_the_entropy_rows_follow_from_the_stored_entropy_and_threshold(judged: Path, rows_of: Read) -> None:
    directory = _study(judged) / "errormap" / "0"
    fitted = json.loads((directory / "baselines.json").read_text())["entropy"]
    for row in _rows(rows_of(directory / "cases.csv"), "entropy"):
        arrays, label = _mask(judged, 0, row["case"], row["mask_kind"]), _label(judged, row["case"])
        threshold = fitted[f"threshold/{row['mask_kind']}"]
        score = arrays["entropy"].astype(np.float32) / np.float32(255)
        for key, value in _recomputed(score >= threshold, arrays["mask"], label).items():
            assert float(row[key]) == pytest.approx(value, abs=1e-6), key
        error = (arrays["mask"] != label).ravel()
        assert float(row["error_auprc"]) == pytest.approx(average_precision_score(error, score.ravel()), abs=1e-6)
        assert float(row["qi_soft_volume"]) == pytest.approx(1 - score.mean(), abs=1e-5)


def test_the_constant_rows_are_training_means(judged: Path, rows_of: Read) -> None:
    accuracy: dict[str, list[float]] = {}
    for fold in (1, 2):
        for case in _folds(judged)[fold]:
            label = _label(judged, case)
            for kind in KINDS:
                mask = _mask(judged, fold, case, kind)["mask"]
                if is_trained_on(kind):
                    accuracy.setdefault(kind, []).append(float((mask == label).mean()))
    rows = rows_of(_study(judged) / "errormap" / "0" / "cases.csv")
    overall = np.mean(list(accuracy.values()))
    of_kind = {kind: np.mean(accuracy.get(kind, [overall])) for kind in KINDS}
    for row in rows:
        assert float(row["constant_volume"]) == pytest.approx(overall, rel=1e-5)
        assert float(row["constant_volume_kind"]) == pytest.approx(of_kind[row["mask_kind"]], rel=1e-5)
    for row in _rows(rows, "constant"):
        assert row["qi_volume"] == row["qi_soft_volume"] == row["constant_volume"]
        assert row["qi_heart"] == row["constant_heart"]


def test_every_method_judges_the_same_masks(judged: Path, rows_of: Read) -> None:
    rows = rows_of(_study(judged) / "errormap" / "0" / "cases.csv")
    truth = ("acc_volume", "acc_heart", "error_voxels", *DICE)
    for case in _folds(judged)[0]:
        for kind in KINDS:
            found = {tuple(r[k] for k in truth) for r in rows if (r["case"], r["mask_kind"]) == (case, kind)}
            assert len(found) == 1


def test_a_run_leaves_what_the_contract_names_and_nothing_half_written(judged: Path) -> None:
    for stage, extra in (("segmenter", {"early.pt"}), ("errormap", set())):
        directory = _study(judged) / stage / "0"
        for name in ("config.yaml", "metrics.csv", "cases.csv", "COMPLETED"):
            assert (directory / name).is_file(), name
        assert {p.name for p in (directory / "checkpoints").iterdir()} == {"last.ckpt", *extra}
    pictures = (_study(judged) / "errormap" / "0" / "figures").glob("*.png")
    assert {p.stem for p in pictures} == {f"{case}-final" for case in _folds(judged)[0]}
    assert not list(judged.rglob(".*.npz"))
    assert str(config_dir()) not in (_study(judged) / "errormap" / "0" / "config.yaml").read_text()


def test_a_calibration_is_kept_that_asks_the_opinion_for_error_rates(judged: Path) -> None:
    found = read_calibration(_study(judged) / "errormap" / "0" / "calibration.json", "")
    assert found.rate is not None
    assert isinstance(found.rate, BoostedRate)
    assert found.opinion_share in OPINION_SHARES
    assert found.threshold is None


@pytest.mark.parametrize("inputs", ["mask_withheld", "no_opinion"])
def test_an_ablation_trains_and_is_assessed(
    inputs: str, segmented: Path, tmp_path: Path, train: Callable[..., int], tiny: Callable[[Path], list[str]]
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), f"errormap={inputs}", "stage=errormap", "fold=0") == 0
    run = load_run(_study(tmp_path))
    (network,) = run.networks
    assert network.module.seen == {"mask_withheld": ("image",), "no_opinion": ("image", "mask")}[inputs]
    assert network.segmenter is None
    image = next((tmp_path / "data").rglob("ct_train_1001_image.nii.gz"))
    found = assess(image, image.with_name(image.name.replace("image", "label")), run)
    assert all(entry["dice_opinion"] is None for entry in found.quality["structures"].values())
    assert 0 <= found.quality["qi"]["heart"]["value"] <= 1


def test_a_forged_mask_of_a_seen_case_stops_the_error_map_stage(
    segmented: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    case = _folds(tmp_path)[1][0]
    path = _study(tmp_path) / "segmenter" / "1" / "masks" / case / "side2.npz"
    with np.load(path) as arrays:
        forged = {**arrays, "unseen": np.array(False)}
    np.savez_compressed(path, **forged)
    assert train(*tiny(tmp_path), "stage=errormap", "fold=0") == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert f"trained on case {case}" in err
    assert not (_study(tmp_path) / "errormap" / "0" / "COMPLETED").exists()


def test_missing_segmenters_are_named(
    segmented: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    (_study(tmp_path) / "segmenter" / "2" / "COMPLETED").unlink()
    assert train(*tiny(tmp_path), "stage=errormap", "fold=1") == 2
    assert "fold 1 needs the segmenters 2," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("segmenter.weight_decay=0.5", 2, "segmenter/0: holds a run with other settings (segmenter.weight_decay)"),
        ("errormap.baselines=[entropie]", 2, "errormap.baselines: no baseline 'entropie'"),
        ("+trainer.limit_train_batches=2", 0, "no result, trainer.limit_train_batches cut the run short"),
        ("+trainer.limit_val_batches=0", 0, "no result, trainer.limit_val_batches cut the run short"),
        ("+trainer.limit_test_batches=0", 0, "no result, trainer.limit_test_batches cut the run short"),
    ],
)
def test_an_error_map_network_that_means_nothing_is_not_stamped(
    word: str,
    code: int,
    says: str,
    segmented: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), word, "stage=errormap", "fold=0") == code
    assert says in "".join(capsys.readouterr())
    run_dir = _study(tmp_path) / "errormap" / "0"
    assert not (run_dir / "COMPLETED").exists()
    assert (code == 2) != (run_dir / "checkpoints").exists()


def test_what_is_kept_is_the_whole_training(
    phantoms: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    stop = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "train/loss", "mode": "max"}
    stop |= {"stopping_threshold": "0", "check_on_train_epoch_end": "true"}
    words = [f"+callbacks.stop.{key}={value}" for key, value in stop.items()]
    named = [*tiny(tmp_path), "name=tiny", "stage=segmenter", "fold=0"]
    assert train(*named, *words) == 2
    said = capsys.readouterr().err
    assert re.search(r"no result, checkpoints/last.ckpt is of step \d+ of \d+;", said)
    assert not (_study(tmp_path) / "segmenter" / "0" / "COMPLETED").exists()
    # a callback decides what a training becomes, so this run is not gone on with
    assert train(*named) == 2
    assert "segmenter/0: holds a run with other settings (callbacks.stop" in capsys.readouterr().err


def test_one_wrong_run_of_a_sweep_costs_no_other(
    phantoms: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    assert train("-m", *tiny(tmp_path), "stage=segmenter", "fold=7,0") == 2
    said = capsys.readouterr().err.splitlines()
    assert any("fold=7" in line for line in said)
    assert said[-1] == "whqa train: not every run of the sweep is done; why stands above"
    assert (_study(tmp_path) / "segmenter" / "0" / "COMPLETED").exists()


def test_the_in_sample_ablation_trains_on_seen_cases_and_tests_on_unseen_ones(
    phantoms: Path, tmp_path: Path, train: Callable[..., int], tiny: Callable[[Path], list[str]], rows_of: Read
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    words = [*tiny(tmp_path), "masks=in_sample"]
    assert train(*words, "stage=segmenter", "fold=1") == 0
    made = rows_of(_study(tmp_path) / "segmenter" / "1" / "cases.csv")
    held_out = set(_folds(tmp_path)[1])
    assert {r["case"] for r in made} == {c for fold in _folds(tmp_path) for c in fold}
    assert all((r["unseen"] == "1") == (r["case"] in held_out) for r in made)
    assert train(*words, "stage=errormap", "fold=1") == 0
    rows = rows_of(_study(tmp_path) / "errormap" / "1" / "cases.csv")
    assert {r["case"] for r in rows} == held_out
    assert {r["segmenter"] for r in rows} == {"1"}

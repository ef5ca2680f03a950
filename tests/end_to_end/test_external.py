"""Masks of another program beside the segmenters' own, and alone."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from whqa.cv import cross_validate
from whqa.masks.plan import MASK_KINDS, has_entropy, is_made, is_trained_on
from whqa.structures import MMWHS

Rows = list[dict[str, str]]
Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]

OWN = set(MASK_KINDS)
WITH_ENTROPY = {kind for kind in OWN if has_entropy(kind)}


def _write_predictions(root: Path) -> Path:
    """References of the phantoms, shifted by a voxel, one case without its atria; the label values are 1 to 7."""
    folder = root / "preds"
    for i, path in enumerate(sorted((root / "data").rglob("*_label.nii.gz"))):
        image = nib.load(path)
        labels = np.roll(MMWHS.to_indices(np.asarray(image.dataobj).astype(np.int64), ""), 1 + i % 2, axis=i % 3)
        labels[np.isin(labels, (3, 4) if i == 0 else ())] = 0
        folder.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), image.affine), folder / path.name.replace("_label", "_seg"))
    return folder


def _settings(root: Path) -> list[str]:
    place = "+masks.external.nnunet"
    values = ",".join(f"{key}:{i}" for i, key in enumerate(MMWHS.keys, start=1))
    return [
        f"{place}.root={root / 'preds'}",
        f"{place}.pattern='*_seg.nii.gz'",
        f"{place}.scheme={{{values}}}",
        f"{place}.unseen=true",
    ]


def _label(root: Path, case: str) -> np.ndarray:
    (path,) = (root / "runs" / ".cache").glob(f"{case}-*/label.npy")
    return np.load(path)


@pytest.fixture(scope="module")
def external(
    tmp_path_factory: pytest.TempPathFactory, segmented: Path, train: Train, tiny: Tiny
) -> tuple[Path, list[str]]:
    """The tiny study with segmenters, predictions, and the error-map network of fold 0 that learned from both."""
    root = tmp_path_factory.mktemp("external")
    shutil.copytree(segmented, root, dirs_exist_ok=True)
    _write_predictions(root)
    words = [*tiny(root), *_settings(root), "stage=errormap", "fold=0"]
    assert train(*words) == 0
    return root / "runs" / "tiny", words


def test_another_programs_masks_are_judged_by_all_but_the_entropy(
    external: tuple[Path, list[str]], rows_of: Callable[[Path], Rows]
) -> None:
    study, _ = external
    held_out = json.loads((study / "folds.json").read_text())["folds"][0]
    rows = rows_of(study / "errormap" / "0" / "cases.csv")
    methods = {r["method"] for r in rows}
    assert methods == {"errormap", "constant", "boundary", "entropy", "opinion", "tta"}
    found = sorted((r["case"], r["mask_kind"], r["method"]) for r in rows)
    expected = [(c, k, m) for c in held_out for k in {*OWN, "nnunet"} for m in methods - {"entropy"}]
    assert found == sorted(expected + [(c, k, "entropy") for c in held_out for k in WITH_ENTROPY])
    for row in (r for r in rows if r["mask_kind"] == "nnunet"):
        with np.load(study / "external" / "nnunet" / "masks" / row["case"] / "nnunet.npz") as arrays:
            assert sorted(arrays) == ["made_from", "mask", "segmenter", "unseen"]
            wrong = arrays["mask"] != _label(study.parent.parent, row["case"])
        assert float(row["acc_volume"]) == pytest.approx(1 - wrong.mean(), rel=1e-6)
        assert int(float(row["error_voxels"])) == wrong.sum() > 0
        assert row["segmenter"] == "nnunet"
    assert len(list((study / "errormap" / "0" / "masks").glob("*/nnunet.npz"))) == len(held_out)


def test_the_networks_baselines_know_the_kind(external: tuple[Path, list[str]]) -> None:
    study, _ = external
    fitted = json.loads((study / "errormap" / "0" / "baselines.json").read_text())
    assert set(fitted["constant"]) >= {"acc_volume/nnunet", "acc_heart/nnunet", "acc_volume/final"}
    known = {kind for kind in OWN if is_trained_on(kind)}
    assert {k for k in fitted["boundary"] if "/" in k} == {f"width_mm/{k}" for k in {*known, "nnunet"}}
    assert {k for k in fitted["entropy"] if "/" in k} == {f"threshold/{k}" for k in WITH_ENTROPY}
    assert fitted["opinion"]["rate"] is not None
    folds = json.loads((study / "folds.json").read_text())["folds"]
    accuracy = []
    for case in (*folds[1], *folds[2]):
        with np.load(study / "external" / "nnunet" / "masks" / case / "nnunet.npz") as arrays:
            accuracy.append((arrays["mask"] == _label(study.parent.parent, case)).mean())
    assert fitted["constant"]["acc_volume/nnunet"] == pytest.approx(np.mean(accuracy), rel=1e-6)


def test_a_changed_prediction_is_noticed(
    external: tuple[Path, list[str]], tmp_path: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(external[0].parent.parent, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    words = [*tiny(tmp_path), *_settings(tmp_path), "stage=errormap", "fold=0", "fit=false"]
    before = (run_dir / "cases.csv").read_bytes()
    path = sorted((tmp_path / "preds").iterdir())[0]
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 3, 0), image.affine), path)
    assert train(*words) == 2
    told = f"{run_dir}: holds a run with other masks than there are now (masks of nnunet: case "
    assert told in capsys.readouterr().err
    assert train(*words[:-1]) == 2  # complete, but of other masks
    assert told in capsys.readouterr().err
    assert (run_dir / "cases.csv").read_bytes() == before
    assert train(*words[:-1], "+masks.external.nnunet.partial=true") == 2
    assert "other settings (masks.external.nnunet.partial)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left_out", "word", "says"),
    [
        (1, "folds=3", "'out_of_fold' judges masks of unseen cases only; state ++masks.external.nnunet.unseen=true"),
        (0, "masks.kinds=[nnunett]", f"no kind 'nnunett'; there are {', '.join(MASK_KINDS)}, nnunet"),
        (0, "+masks.external.nnunet.patern=x", "did you mean 'masks.external.nnunet.pattern'?"),
        (0, "+masks.external.final.root=x", "masks.external.final: choose another name"),
        (0, "+masks.external.other={root:/nowhere,unseen:true}", "/nowhere: data folder does not exist"),
        (
            0,
            "masks.kinds=[nnunet] errormap.inputs=[opinion]",
            "it trains none; use errormap.inputs=[image,mask], or state +masks.external.nnunet.probabilities=FOLDER",
        ),
        (
            0,
            "masks.kinds=[nnunet] +masks.external.nnunet.probabilities=/nowhere",
            "/nowhere: data folder does not exist",
        ),
    ],
)
def test_what_is_wrong_with_another_programs_masks_is_said_in_one_line(
    left_out: int,
    word: str,
    says: str,
    segmented: Path,
    tmp_path: Path,
    train: Train,
    tiny: Tiny,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    _write_predictions(tmp_path)
    settings = _settings(tmp_path)
    words = settings[: len(settings) - left_out]
    assert train(*tiny(tmp_path), *words, *word.split(), "stage=errormap", "fold=0") == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs" / "tiny" / "errormap" / "0" / "checkpoints").exists()


def test_other_programs_masks_alone_need_no_segmenter(
    phantoms: Path,
    tmp_path: Path,
    train: Train,
    tiny: Tiny,
    rows_of: Callable[[Path], Rows],
    unlike_contract: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    _write_predictions(tmp_path)
    words = [*tiny(tmp_path), *_settings(tmp_path), "masks.kinds=[nnunet]", "folds=2", "errormap.steps=12"]
    for fold in range(2):
        assert train(*words, "stage=errormap", f"fold={fold}") == 0
        assert "note: no second opinion: there are no segmenters, and no" in capsys.readouterr().err
    # all runs that the cross-validation wants are there: it only sums up
    assert cross_validate(words, 1, Console(file=io.StringIO())) == 0
    study = tmp_path / "runs" / "tiny"
    assert not (study / "segmenter").exists()
    # masks of any quality are made of the program's
    kinds = {"nnunet", *(kind for kind in OWN if is_made(kind))}
    rows = rows_of(study / "cases.csv")
    assert {(r["mask_kind"], r["method"]) for r in rows} == {
        (kind, m) for kind in kinds for m in ("errormap", "constant", "boundary")
    }
    assert {r["segmenter"] for r in rows} == {"nnunet"}
    assert {float(r["acc_volume"]) for r in rows if r["mask_kind"] == "reference"} == {1.0}
    learned = {kind for kind in kinds if is_trained_on(kind)}
    fitted = json.loads((study / "errormap" / "0" / "baselines.json").read_text())
    assert {k for k in fitted["boundary"] if "/" in k} == {f"width_mm/{kind}" for kind in learned}
    made_from = json.loads((study / "errormap" / "0" / "made_from.json").read_text())["masks"]
    assert {name.split("/")[1] for name in made_from["nnunet"]} == kinds
    assert len(list((study / "errormap").glob("*/figures/*-nnunet.png"))) >= 2
    summary = json.loads((study / "summary.json").read_text())
    assert unlike_contract(summary, "summary.schema.json") == []
    assert summary["segmentation"]["dice"] | {"per_structure": 0} == {
        "mean": None,
        "ci95": None,
        "reason": "no segmenter was trained",
        "per_structure": 0,
    }
    assert list(summary["methods"]) == ["errormap", "constant", "boundary"]
    for parts in summary["methods"].values():
        counts = [parts[name]["n"] for name in ("final", "nnunet", "corrupted", "novel", "mixed", "all")]
        assert counts == [0, 6, 36, 12, 24, 6 * len(kinds)]
        assert parts["final"]["error_dice"]["mean"] is None
        assert parts["final"]["error_dice"]["reason"]
    page = (study / "summary.html").read_text()
    assert "No segmenter was trained" in page
    assert "masks of nnunet" in page

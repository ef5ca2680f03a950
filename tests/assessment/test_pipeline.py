"""One mask from files to verdict, on the tiny study's run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from constant_rate import EVERYTHING_WRONG

import whqa
from whqa.assessment import TrainedRun, assess, load_run, write_assessment
from whqa.assessment.ensemble import judge_mask
from whqa.assessment.input_findings import InputFindings
from whqa.assessment.inputs import InputOptions, read_inputs
from whqa.assessment.run_grid import to_run_grid
from whqa.assessment.verdict import verdict_of
from whqa.contract.quality_json import QualityIndicator
from whqa.data.formats.volume_files import read_grid
from whqa.errors import InputError
from whqa.judges.calibration import CorrectionRule
from whqa.report.assessment_page import render_report, write_preview
from whqa.structures import MMWHS

Correcting = Callable[..., TrainedRun]


@pytest.fixture(scope="module")
def case(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Image and a mask with another organ in it and the aorta left out."""
    folder = tmp_path_factory.mktemp("case")
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    image = shutil.copy(next(root.rglob("ct_train_1001_image.nii.gz")), folder / "scan.nii.gz")
    label = nib.load(next(root.rglob("ct_train_1001_label.nii.gz")))
    values = np.asanyarray(label.dataobj).astype(np.int16)
    values[values == 820] = 0
    nib.save(nib.Nifti1Image(values, label.affine, label.header), folder / "mask.nii.gz")
    return Path(image), folder / "mask.nii.gz"


def _digests(*paths: Path) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]


def test_everything_lies_on_the_grid_of_the_input(run: TrainedRun, case: tuple[Path, Path], tmp_path: Path) -> None:
    before = _digests(*case)
    found = assess(*case, run)
    write_assessment(found, tmp_path / "out", report=False)
    assert _digests(*case) == before, "the input is never changed"
    scan = nib.load(case[0])
    for name in ("error_probability", "error_map", "corrected_mask"):
        written = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert written.shape == scan.shape
        np.testing.assert_array_equal(written.affine, scan.affine)
        assert nib.aff2axcodes(written.affine) == nib.aff2axcodes(scan.affine)
    stored = np.asanyarray(nib.load(tmp_path / "out" / "error_probability.nii.gz").dataobj)
    np.testing.assert_array_equal(stored, found.error_probability)
    assert 0 <= stored.min() <= stored.max() <= 1
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert quality["image"]["sha256"] == before[0]
    assert quality["mask"]["sha256"] == before[1]
    assert quality["case"] == "scan"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("corrected_mask.nii.gz", "error_map.nii.gz", "error_probability.nii.gz", "quality.json")
    ]


def test_numbers_follow_from_the_maps(run: TrainedRun, case: tuple[Path, Path]) -> None:
    found = assess(*case, run)
    quality = found.quality
    # the phantom's grid is finer than the run's, so that only the file's own numbers can be compared voxel by voxel
    ml = abs(np.linalg.det(found.affine[:3, :3])) / 1000
    for index, key in enumerate(MMWHS.keys, start=1):
        of_structure = found.mask == index
        entry = quality["structures"][key]
        assert entry["volume_ml"] == pytest.approx(of_structure.sum() * ml)
        assert entry["volume_ml_corrected"] == pytest.approx((found.corrected == index).sum() * ml)
        if of_structure.any():
            assert entry["wrong_share"] == pytest.approx(found.error_map[of_structure].mean())
    assert quality["structures"]["ao"]["volume_ml"] == 0
    assert quality["structures"]["ao"]["wrong_share"] is None
    assert quality["verdict"]["decision"] in ("accept", "review", "reject")
    assert 0 <= quality["qi"]["volume"]["value"] <= 1
    # two patients have no 90 % interval
    assert quality["qi"]["volume"]["interval"] is None
    assert "too few" in quality["qi"]["volume"]["reason"]
    assert len(found.population) == len(run.cases)


@pytest.mark.parametrize("fixed", [None, 0.3])
def test_the_threshold_of_the_error_map_is_told(
    run: TrainedRun, case: tuple[Path, Path], fixed: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for network in run.networks:
        calibration = replace(network.module.calibration, threshold=fixed)
        monkeypatch.setattr(network.module, "calibration", calibration)
    found = assess(*case, run)
    told = found.quality["error_map"]
    assert told["rule"] == ("expected" if fixed is None else "dice")
    assert fixed is None or told["threshold"] == fixed
    np.testing.assert_array_equal(found.error_map, found.error_probability >= told["threshold"])


def test_a_mask_that_is_lost_on_the_grid_of_the_run_is_rejected(
    run: TrainedRun, case: tuple[Path, Path], tmp_path: Path
) -> None:
    scan = nib.load(case[0])
    values = np.zeros(scan.shape, np.int16)
    values[5, 5, 5] = 500
    found = assess(case[0], (values, scan.affine), run)
    reason = "the mask has no voxel on the grid of the run"
    assert found.quality["qi"]["heart"] == {"value": None, "soft": None, "interval": None, "reason": reason}
    assert 0 <= found.quality["qi"]["volume"]["value"] <= 1
    assert found.quality["verdict"]["decision"] == "reject"
    assert found.quality["verdict"]["reasons"][0] == "The mask has no voxel on the grid of the run."
    assert json.loads(json.dumps(found.quality, allow_nan=False)) == found.quality
    text = render_report(found)
    assert "nothing can be said of the voxels in and around the heart" in text
    for wrong in ("In truth", "got a lower QI", "of the voxels in and around the heart look", "rule rejected"):
        assert wrong not in text
    write_preview(found, tmp_path / "preview.png")


def test_a_lost_mask_is_rejected_without_label_head_too(run: TrainedRun, case: tuple[Path, Path]) -> None:
    nothing: QualityIndicator = {"value": None, "soft": None, "interval": None, "reason": "lost"}
    binary = replace(run, networks=(replace(run.networks[0], module=SimpleNamespace(head="binary")),))
    verdict = verdict_of(
        binary,
        {"volume": nothing, "heart": nothing},
        {},
        [],
        certainty=0.0,
        doubt_above=0.5,
        lost=True,
        unfamiliar=False,
        outside=0.0,
        findings=InputFindings(),
    )
    assert verdict["decision"] == "reject"
    assert verdict["score"] is None


def test_the_ensemble_is_the_mean_of_its_networks(run: TrainedRun) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((17, 16, 15))).float()
    mask = torch.from_numpy(rng.integers(0, 8, (17, 16, 15)))
    (one,) = run.networks
    other = load_run(run.path).networks[0]
    with torch.no_grad():
        for weight in other.module.parameters():
            weight.mul_(1.3)
    other = replace(other, fold=1)
    both = judge_mask([one, other], image, mask, (8.0, 8.0, 8.0))
    alone = [judge_mask([n], image, mask, (8.0, 8.0, 8.0)) for n in (one, other)]
    np.testing.assert_allclose(
        both.probability.numpy(), np.mean([a.probability.numpy() for a in alone], axis=0), atol=1e-6
    )
    assert both.by_fold[0] == alone[0].by_fold[0]
    assert both.by_fold[1] == alone[1].by_fold[1]
    assert both.others is not None
    assert not both.others.gather(0, mask[None]).any(), "other labels than the mask's own"
    torch.testing.assert_close(both.others.sum(dim=0), torch.ones(mask.shape))


def test_each_network_hears_its_own_segmenter(run: TrainedRun) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((17, 16, 15))).float()
    mask = torch.from_numpy(rng.integers(0, 8, (17, 16, 15)))
    one, other = (replace(load_run(run.path).networks[0], fold=fold) for fold in range(2))
    assert other.segmenter is not None
    with torch.no_grad():
        for weight in other.segmenter.parameters():
            weight.mul_(-1.5)
        said = [network.segmenter.log_p_of_views(image).exp() for network in (one, other)]  # type: ignore[union-attr]
    found = judge_mask([one, other], image, mask, (8.0, 8.0, 8.0))
    alone = [judge_mask([network], image, mask, (8.0, 8.0, 8.0)) for network in (one, other)]
    assert not torch.allclose(alone[0].probability, alone[1].probability, atol=1e-3)
    torch.testing.assert_close(found.probability, (alone[0].probability + alone[1].probability) / 2)
    for judgement, p in zip((*alone, found), (*said, said[0] + said[1]), strict=True):
        assert judgement.opinion is not None
        # where two labels are all but alike, what is stored of p may turn them
        sure = p.topk(2, dim=0).values.diff(dim=0)[0].abs() > 0.05
        assert sure.any()
        assert torch.equal(judgement.opinion[sure], p.argmax(dim=0).to(torch.uint8)[sure])


def test_a_network_hears_of_a_new_scan_the_kind_of_opinion_that_it_learned_with(run: TrainedRun) -> None:
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.standard_normal((17, 16, 15))).float()
    mask = torch.from_numpy(rng.integers(0, 8, (17, 16, 15)))
    (network,) = run.networks
    assert network.segmenter is not None
    assert network.module.hears_views
    (single,) = load_run(run.path).networks
    single.module.hears_views, single.module.opinion = False, "log_p"
    with torch.no_grad():
        told = {
            True: network.segmenter.log_p_of_views(image),
            False: network.segmenter.log_p(image),
        }
    found = {n.module.hears_views: judge_mask([n], image, mask, (8.0, 8.0, 8.0)) for n in (network, single)}
    for views, judged in found.items():
        given = replace(network if views else single, segmenter=None)
        expected = judge_mask([given], image, mask, (8.0, 8.0, 8.0), told[views])
        torch.testing.assert_close(judged.probability, expected.probability)
    assert not torch.allclose(found[True].probability, found[False].probability, atol=1e-4)


def test_the_dice_with_the_second_opinion_is_told(run: TrainedRun, case: tuple[Path, Path]) -> None:
    read = read_inputs(*case, run, InputOptions())
    on_grid = to_run_grid(read, run)
    image, mask = torch.from_numpy(on_grid.image.astype(np.float32)), torch.from_numpy(on_grid.mask.astype(np.int64))
    opinion = judge_mask(run.networks, image, mask, tuple(on_grid.geometry.spacing)).opinion
    assert opinion is not None
    structures = assess(*case, run).quality["structures"]
    for index, key in enumerate(MMWHS.keys, start=1):
        both = [on_grid.mask == index, opinion.numpy() == index]
        size = sum(int(region.sum()) for region in both)
        expected = 2 * int((both[0] & both[1]).sum()) / size if size else None
        assert structures[key]["dice_opinion"] == pytest.approx(expected)


def test_only_voxels_above_the_threshold_are_corrected_and_other_organs_stay(
    run: TrainedRun, case: tuple[Path, Path], correcting: Correcting
) -> None:
    label_map = {**MMWHS.values, "ignore": [7]}
    mask = nib.load(case[1])
    values = np.asanyarray(mask.dataobj).copy()
    values[0, 0, 0] = 7
    # all voxels are expected to be wrong
    doubting = correcting(run, CorrectionRule(0.3, -2.0), rate=EVERYTHING_WRONG)
    found = assess(case[0], (values, mask.affine), doubting, label_map=label_map)
    changed = found.corrected != found.mask
    assert changed.any()
    # on the run's grid; between its voxels P and the change are blended alike
    assert found.error_probability[changed].min() >= 0.3 / 2
    assert found.quality["correction"]["changed_voxels"] == changed.sum()
    assert found.corrected.max() <= 7
    assert found.corrected_values is not None
    assert changed[0, 0, 0] or found.corrected_values[0, 0, 0] == 7
    np.testing.assert_array_equal(found.corrected_values[~changed], values[~changed])
    np.testing.assert_array_equal(found.corrected_values[changed], MMWHS.to_values(found.corrected)[changed])


def test_a_mask_is_left_alone_where_no_rule_helped(
    run: TrainedRun, case: tuple[Path, Path], correcting: Correcting
) -> None:
    dice = [f"dice_{key}" for key in run.scheme.keys]
    worse = run.cases.assign(**{f"{name}_corrected": run.cases[name] - 0.01 for name in dice})
    found = assess(*case, replace(correcting(run, None), cases=worse))
    np.testing.assert_array_equal(found.corrected, found.mask)
    correction = found.quality["correction"]
    assert not correction["applied"]
    assert correction["changed_voxels"] == 0
    assert correction["reason"] == "left alone: on held-back training cases no correction helped"
    final = run.cases[run.cases["mask_kind"] == "final"]
    assert correction["out_of_fold"]["final"]
    assert correction["out_of_fold"]["n"] == len(final)
    assert correction["threshold"] is None
    applied = assess(*case, correcting(run, CorrectionRule(0.9, 0.1))).quality["correction"]
    assert applied["reason"].startswith("applied where another label has a probability of 0.9 and the structure's Dice")
    assert f"on {len(final)} of the run's own final masks" in applied["reason"]


def test_paths_and_arrays_and_orientations_say_the_same(run: TrainedRun, case: tuple[Path, Path]) -> None:
    from_files = assess(*case, run)
    image, mask = (nib.load(p) for p in case)
    arrays = whqa.assess((image.get_fdata(), image.affine), (np.asanyarray(mask.dataobj), mask.affine), run)
    np.testing.assert_array_equal(arrays.error_probability, from_files.error_probability)
    assert arrays.quality["image"]["path"] is None
    turned = [img.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])) for img in (image, mask)]
    reoriented = assess(*turned, run)
    back = nib.Nifti1Image(reoriented.error_probability, reoriented.affine).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(reoriented.affine), nib.io_orientation(from_files.affine))
    )
    np.testing.assert_allclose(back.get_fdata(), from_files.error_probability, atol=1e-4)


def test_label_maps_in_other_orders_mean_the_same(run: TrainedRun, case: tuple[Path, Path]) -> None:
    mask = nib.load(case[1])
    values = np.asanyarray(mask.dataobj)
    order = list(reversed(MMWHS.keys))
    other = np.zeros_like(values)
    for number, key in enumerate(order, start=1):
        other[values == MMWHS.values[key]] = number
    found = assess(case[0], (other, mask.affine), run, label_map={key: i for i, key in enumerate(order, start=1)})
    np.testing.assert_array_equal(found.mask, assess(*case, run).mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "mr"}, "modality 'mr': the run .* was trained on ct"),
        ({"confidence": 1.0}, "confidence 1: must be between"),
        ({"label_map": {"lv": 500}}, "does not say which value stands for rv.* --label-map lv=500,rv=600,la=420"),
        (
            {"label_map": {"lv_and_myo": 5, "lv": 1, "rv": 2, "la": 3, "ra": 4, "ao": 6, "pa": 7}},
            "value 5, which has another name, is that: --label-map lv=1,rv=2,la=3,ra=4,ao=6,pa=7,myo=5",
        ),
        ({"label_map": "nothing"}, "no label scheme 'nothing'"),
    ],
)
def test_wrong_options_get_one_line(
    run: TrainedRun, case: tuple[Path, Path], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        assess(*case, run, **options)  # type: ignore[arg-type]


def test_wrong_volumes_get_one_line(run: TrainedRun, case: tuple[Path, Path], tmp_path: Path) -> None:
    mask = nib.load(case[1])
    values = np.asanyarray(mask.dataobj)
    with pytest.raises(InputError, match=r"empty mask, no structure"):
        assess(case[0], (np.zeros_like(values), mask.affine), run)
    with pytest.raises(InputError, match=r"its grid differs from that of"):
        assess(case[0], (values, mask.affine + np.eye(4)[[3, 0, 1, 2]] * 9), run)
    with pytest.raises(InputError, match=r"mask: unknown label value"):
        assess(case[0], (values + 1, mask.affine), run)
    with pytest.raises(InputError, match=r"whole numbers"):
        assess(case[0], (values * 0.5 + 0.25, mask.affine), run)
    with pytest.raises(InputError, match=r"must be 3-D"):
        assess((values[0], mask.affine), case[1], run)
    with pytest.raises(InputError, match=r"must be a path, a nibabel image, or"):
        assess(7, case[1], run)
    with pytest.raises(InputError, match=r"nothing\.nii: no such file"):
        assess(tmp_path / "nothing.nii", case[1], run)


def test_other_organs_stay_in_every_format(run: TrainedRun, case: tuple[Path, Path], tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(case[1]))
    values = sitk.GetArrayFromImage(image)
    values[0, 0, :3] = 7
    other = sitk.GetImageFromArray(values)
    other.CopyInformation(image)
    label_map = {**MMWHS.values, "ignore": [7]}
    for ending in (".nii.gz", ".nrrd"):
        sitk.WriteImage(other, str(tmp_path / f"mask{ending}"))
        found = assess(case[0], tmp_path / f"mask{ending}", run, label_map=label_map)
        assert found.corrected_values is not None
        assert (found.corrected_values == 7).sum() == 3, ending


def test_a_header_that_reads_can_be_written(run: TrainedRun, case: tuple[Path, Path], tmp_path: Path) -> None:
    image = nib.load(case[0])
    image.header.set_sform(None, 0)
    image.header.set_qform(image.affine, 1)
    image.header["pixdim"][0] = 0
    raw = bytearray(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header).to_bytes())
    raw[76:80] = np.float32(0).tobytes()
    (tmp_path / "scan.nii").write_bytes(raw)
    mask = np.asanyarray(nib.load(case[1]).dataobj)
    found = assess(tmp_path / "scan.nii", (mask, assess_affine(tmp_path / "scan.nii")), run)
    write_assessment(found, tmp_path / "out", report=False)
    np.testing.assert_allclose(nib.load(tmp_path / "out" / "error_map.nii.gz").affine, found.affine, atol=1e-5)


def assess_affine(path: Path) -> np.ndarray:
    return read_grid(path).affine


def test_a_network_without_numbers_is_refused(run: TrainedRun, case: tuple[Path, Path]) -> None:
    for part, named in (("module", "error-map network"), ("segmenter", "segmenter")):
        broken = load_run(run.path)
        with torch.no_grad():
            next(iter(getattr(broken.networks[0], part).parameters())).fill_(float("nan"))
        with pytest.raises(InputError, match=f"the {named} of fold 0 gives no numbers"):
            assess(*case, broken)

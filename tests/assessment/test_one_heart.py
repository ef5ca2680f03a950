"""A mask with the heart as one structure, as TotalSegmentator's task total of version 2: judged as far as it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from named_labels import saved

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.assessment.ensemble import judge_mask
from whqa.assessment.one_heart import CHAMBERS, OneHeart
from whqa.cli.commands import main
from whqa.errors import InputError
from whqa.judges.calibration import Calibration
from whqa.judges.correction import other_probabilities
from whqa.modules.errormap import RawVerdict
from whqa.structures import MMWHS, LabelScheme

TOTAL = {7: "pancreas", 51: "heart", 52: "aorta", 61: "atrial_appendage_left"}
ONE = OneHeart((0, 1, 1, 1, 1, 1, 2, 0), ("heart", "ao"))


@pytest.fixture
def whole(values: np.ndarray) -> np.ndarray:
    """The phantom's label map as `total` has it: an appendage cut from the atrium, no pulmonary artery."""
    labels = np.zeros(values.shape, np.uint8)
    labels[np.isin(values, [MMWHS.values[key] for key in CHAMBERS])] = 51
    atrium = np.argwhere(values == MMWHS.values["la"])
    labels[tuple(atrium[: len(atrium) // 8].T)] = 61
    labels[values == MMWHS.values["ao"]] = 52
    labels[0, 0, 0] = 7
    return labels


def test_labels_of_the_run_add_up_to_those_of_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, 5, 6, generator=generator)
    error = torch.rand(4, 5, 6, generator=generator)
    mask = torch.randint(0, 3, (4, 5, 6), generator=generator)
    filled = ONE.filled(mask, logits.log_softmax(0))
    assert torch.equal(torch.tensor(ONE.groups)[filled], mask)
    q = other_probabilities(logits, filled)
    p, others = ONE.judged(error, q, filled)
    for index in np.ndindex(4, 5, 6):
        at = (slice(None), *index)
        truth = error[index] * q[at]
        truth[filled[index]] = 1 - error[index]
        wanted = torch.tensor([truth[0] + truth[7], truth[1:6].sum(), truth[6]])
        assert p[index] == pytest.approx(1 - float(wanted[mask[index]]), abs=1e-5)
        found = others[at] * p[index]
        found[mask[index]] = 1 - p[index]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_chambers_alone_are_no_error_of_the_outline() -> None:
    filled = torch.full((1, 1, 1), 1)
    q = torch.zeros(8, 1, 1, 1)
    q[3] = 1
    assert float(ONE.judged(torch.ones(1, 1, 1), q, filled)[0]) == 0


def test_chambers_alone_are_no_suspicion_of_the_outline(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opinion is sure of the heart and undecided between its chambers."""
    network = replace(run.networks[0], segmenter=None)
    mask = torch.zeros(16, 16, 16, dtype=torch.int64)
    mask[4:12, 4:12, 4:12] = 1
    said = torch.full((8, *mask.shape), -12.0)
    said[1:4] = torch.where(mask > 0, np.log(1 / 3), -12.0)
    said[0] = torch.where(mask > 0, -12.0, 0.0)
    said = said.log_softmax(dim=0)

    def raw(batch: dict[str, torch.Tensor]) -> RawVerdict:
        own = said.exp().gather(0, batch["mask"])[0]
        return RawVerdict(torch.logit(1 - own, eps=1e-6), said)

    monkeypatch.setattr(network.module, "raw", raw)
    monkeypatch.setattr(network.module, "calibration", Calibration())
    image = torch.zeros(mask.shape)
    chambers = judge_mask([network], image, said.argmax(dim=0), (8.0, 8.0, 8.0), said)
    assert chambers.certainty > 0.6
    outline = judge_mask([network], image, mask, (8.0, 8.0, 8.0), said, ONE)
    assert outline.certainty == 0
    torch.testing.assert_close(outline.suspicion, outline.probability)


@pytest.mark.parametrize("form", ["map", "folder", "stated"])
def test_the_outline_is_judged_and_never_accepted(
    run: TrainedRun, scan: nib.Nifti1Image, whole: np.ndarray, tmp_path: Path, form: str
) -> None:
    given, stated = tmp_path / "total", None
    if form == "folder":
        given.mkdir()
        for value, name in TOTAL.items():
            saved(given / f"{name}.nii.gz", (whole == value).astype(np.uint8), scan.affine)
    else:
        given = saved(tmp_path / "total.nii.gz", whole, scan.affine, TOTAL if form == "map" else None)
        stated = {"heart": [51, 61], "ao": 52, "ignore": 7} if form == "stated" else None
    found = assess((scan.get_fdata(), scan.affine), given, run, label_map=stated)
    quality = found.quality
    assert list(quality["structures"]) == ["heart", "ao"]
    assert quality["structures"]["heart"]["dice_expected"] is not None
    assert [s["dice_interval"] for s in quality["structures"].values()] == [None, None]
    assert "unseen masks have the chambers" in quality["structures"]["heart"]["reason"]
    assert quality["qi"]["heart"]["value"] is not None
    assert quality["qi"]["heart"]["interval"] is None
    assert quality["verdict"]["decision"] != "accept"
    assert any("its outline is judged and not its chambers" in reason for reason in quality["verdict"]["reasons"])
    np.testing.assert_array_equal(found.mask == 1, np.isin(whole, (51, 61)))
    np.testing.assert_array_equal(found.corrected, found.mask)
    assert not quality["correction"]["applied"]
    assert found.opinion is not None
    assert found.opinion.max() <= 2
    write_assessment(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "quality.json").read_text()) == quality
    page = (tmp_path / "out" / "report.html").read_text()
    assert "its outline is judged and not its chambers" in page


def test_a_run_that_cannot_judge_an_outline_says_why_and_what_helps(
    run: TrainedRun, scan: nib.Nifti1Image, whole: np.ndarray
) -> None:
    few = LabelScheme("few", {key: value for key, value in MMWHS.values.items() if key not in ("la", "ra")})
    with pytest.raises(InputError, match=r"does not know la, ra, which belong to it; .*heartchambers_highres"):
        assess(
            (scan.get_fdata(), scan.affine),
            (whole, scan.affine),
            replace(run, scheme=few),
            label_map={"heart": [51, 61], "ao": 52, "ignore": 7},
        )


def test_a_batch_holds_masks_of_both_kinds(
    run: TrainedRun,
    scan: nib.Nifti1Image,
    values: np.ndarray,
    whole: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        saved(tmp_path / "scans" / f"{name}.nii.gz", scan.get_fdata(dtype=np.float32), scan.affine)
    saved(tmp_path / "masks" / "a.nii.gz", whole, scan.affine, TOTAL)
    saved(tmp_path / "masks" / "b.nii.gz", values, scan.affine)
    words = ["assess", tmp_path / "scans", tmp_path / "masks", "--model", run.path, "-o", tmp_path / "out", "--jobs", 1]
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--no-report"])
    assert not end.value.code
    assert "(no interval: the run's unseen masks have the chambers" in capsys.readouterr().out
    rows = (tmp_path / "out" / "worklist.csv").read_text().splitlines()
    assert len(rows) == 3
    header = (tmp_path / "out" / "assessments.csv").read_text().splitlines()[0]
    assert "dice_lv_expected" in header
    assert "dice_heart_expected" in header

"""`--probabilities`: which file is of which case, and runs that take none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess
from whqa.assessment.model import OpinionProgram
from whqa.assessment.pairs import Pair, Pairs, pairs_of_folders, pairs_of_table, with_probabilities
from whqa.assessment.told_opinion import check_told
from whqa.errors import InputError
from whqa.structures import ACDC


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Scans and masks of two cases, by nnU-Net's names."""
    for name in ("scans/a_0000.nii.gz", "scans/b_0000.nii.gz", "masks/a.nii.gz", "masks/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "softmax").mkdir()
    return tmp_path


def _pairs(root: Path) -> Pairs:
    return pairs_of_folders(root / "scans", root / "masks")


@pytest.mark.parametrize("names", [("a.npz", "b.npz"), ("a.npz", "b.nii.gz"), ("a_0000.npz", "b_0000.nii")])
def test_probabilities_are_matched_by_name(names: tuple[str, str], folders: Path) -> None:
    for name in (*names, "a.pkl", "c.npz"):
        (folders / "softmax" / name).write_bytes(b"")
    found = with_probabilities(_pairs(folders), folders / "softmax")
    assert [pair.probabilities for pair in found.found] == [folders / "softmax" / name for name in names]
    assert not found.problems


def test_they_may_lie_beside_the_masks(folders: Path) -> None:
    for name in ("a.npz", "b.npz"):
        (folders / "masks" / name).write_bytes(b"")
    found = with_probabilities(_pairs(folders), folders / "masks")
    assert [pair.probabilities for pair in found.found] == [folders / "masks" / name for name in ("a.npz", "b.npz")]


def test_what_has_none_or_two_is_told(folders: Path) -> None:
    for name in ("a.npz", "a.nii.gz"):
        (folders / "softmax" / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"softmax: no probabilities of any case; .*b\.nii\.gz: no prob.* \(and 1 more\)"
    ):
        with_probabilities(_pairs(folders), folders / "softmax")
    (folders / "softmax" / "b.npz").write_bytes(b"")
    found = with_probabilities(_pairs(folders), folders / "softmax")
    assert [pair.name for pair in found.found] == ["b"]
    place = folders / "softmax"
    assert found.problems == (("a", f"{place / 'a.npz'} and a.nii.gz are both its probabilities; remove one"),)
    with pytest.raises(InputError, match="nowhere: no such folder; give the one that holds"):
        with_probabilities(_pairs(folders), folders / "nowhere")


def test_a_table_may_name_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,mask,probabilities\ni.nii,m.nii,p/x.npz\nj.nii,n.nii,\n")
    assert pairs_of_table(tmp_path / "t.csv").found == (
        Pair("i", tmp_path / "i.nii", tmp_path / "m.nii", None, tmp_path / "p" / "x.npz"),
        Pair("j", tmp_path / "j.nii", tmp_path / "n.nii"),
    )


def _run(hears: bool, program: OpinionProgram | None) -> TrainedRun:
    module = SimpleNamespace(hears_opinion=hears)
    return SimpleNamespace(  # type: ignore[return-value]
        path=Path("runs/x"), networks=[SimpleNamespace(module=module)], opinion_program=program
    )


@pytest.mark.parametrize(
    ("hears", "program", "given", "says"),
    [
        (True, None, "p.npz", "runs/x: its own segmenters give the second opinion; leave --probabilities out"),
        (False, None, "p.npz", "runs/x: its networks hear no second opinion; leave --probabilities out"),
        (True, OpinionProgram("nnunet", ACDC), None, "with the probabilities of nnunet .* add --probabilities FILE"),
    ],
)
def test_runs_that_take_none_and_runs_that_need_some(
    hears: bool, program: OpinionProgram | None, given: str | None, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_told(_run(hears, program), given)
    assert "\n" not in str(caught.value)
    check_told(_run(hears, program), None if given else "p.npz")


def test_the_runs_own_segmenters_are_named_as_the_source(
    run: TrainedRun, scan: nib.Nifti1Image, values: np.ndarray
) -> None:
    found = assess(scan, (values, scan.affine), run)
    assert found.quality["opinion"] == {"source": "segmenters", "program": None, "path": None, "sha256": None}
    assert json.loads(json.dumps(found.quality)) == found.quality
    with pytest.raises(InputError, match="its own segmenters give the second opinion"):
        assess(scan, (values, scan.affine), run, probabilities="p.npz")
    deaf = replace(run, networks=(replace(run.networks[0], module=SimpleNamespace(hears_opinion=False)),))
    with pytest.raises(InputError, match="its networks hear no second opinion"):
        assess(scan, (values, scan.affine), deaf, probabilities="p.npz")

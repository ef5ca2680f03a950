"""What got better: folders as `whqa assess` leaves them, with maps made by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from whqa.assessment.comparison import compare_assessments
from whqa.assessment.work import work_to_do
from whqa.cli.commands import main
from whqa.contract.comparison_json import ComparedAssessments
from whqa.contract.json_schema import json_schema
from whqa.errors import InputError
from whqa.report.comparison_page import comparison_table, render_comparison
from whqa.results.correction_time import CorrectionTime

SHAPE = (10, 10, 10)
HOSTILE = "<img src=x onerror=alert(1)>"
TIME = CorrectionTime(case=1, piece=2, ml=3)


def _folder(root: Path, name: str, wrong: tuple[slice, ...] | None, dice: float | None, **other: Any) -> Path:
    """One case; voxels of 10 mm, so that each is 1 ml."""
    p = np.zeros(SHAPE, np.float32)
    if wrong:
        p[wrong] = 0.9
    mask = np.ones(SHAPE, np.uint8)
    structure = {"name": "left ventricle", "dice_expected": dice, "volume_ml": 1000.0}
    region = {"value": dice, "interval": None, "reason": None}
    quality = {
        "case": name,
        "image": {"sha256": "a" * 64, "shape": list(SHAPE), "spacing_mm": [10.0, 10.0, 10.0], "orientation": "RAS"},
        "model": {"run": "demo", "checkpoints": {"0": "b"}},
        "qi": {"heart": region, "volume": region},
        "structures": {"lv": structure},
        "verdict": {"decision": "review" if wrong else "accept"},
        "work": work_to_do(p, mask, mask, keys=("lv",), voxel_ml=1.0),
    }
    folder = root / name.strip("<>").replace("/", "_").replace(" ", "_")[:8]
    folder.mkdir(parents=True)
    (folder / "quality.json").write_text(json.dumps(quality | other))
    nib.save(nib.Nifti1Image(p, np.diag([10.0, 10.0, 10.0, 1.0])), folder / "error_probability.nii.gz")
    return folder


LOW, HIGH, MOVED = np.s_[0:2, 0:2, 0:2], np.s_[5:8, 5:8, 5:8], np.s_[5:8, 5:8, 7:10]


def test_what_vanished_and_what_appeared_is_told_by_case_and_structure(tmp_path: Path) -> None:
    for side, name, wrong, dice in (
        ("before", "same", HIGH, 0.8),
        ("after", "same", HIGH, 0.8),
        ("before", "mended", LOW, 0.5),
        ("after", "mended", None, 0.9),
        ("before", "moved", HIGH, 0.7),
        ("after", "moved", MOVED, 0.6),
        ("before", "skipped", LOW, 0.5),
        ("after", "new", None, None),
    ):
        _folder(tmp_path / side, name, wrong, dice)
    found = compare_assessments(tmp_path / "before", tmp_path / "after", TIME)
    jsonschema.validate(found, json_schema(ComparedAssessments, "comparison"))
    assert [case["case"] for case in found["cases"]] == ["mended", "same", "moved"], "the largest gain first"
    assert (found["only_before"], found["only_after"]) == (["skipped"], ["new"])
    mended, same, moved = found["cases"]
    assert mended["structures"]["lv"]["dice_expected"]["difference"] == pytest.approx(0.4)
    assert (mended["decision"]["before"], mended["decision"]["after"]) == ("review", "accept")
    assert (mended["minutes"]["before"], mended["minutes"]["after"]) == (1 + 2 + 3 * 8, 1)
    assert [[len(case[what]) for what in ("vanished", "appeared")] for case in (mended, same, moved)] == [
        [1, 0],
        [0, 0],
        [1, 1],
    ]
    assert [(case["left"], case["left_ml"]) for case in (mended, same, moved)] == [(0, 0), (1, 27), (0, 9)]
    assert found["mean_dice"]["difference"] == pytest.approx((0.4 + 0 - 0.1) / 3)
    assert found["minutes"]["difference"] == pytest.approx(-(2 + 3 * 8))


def test_two_folders_of_one_case_are_compared_and_what_files_say_is_escaped(tmp_path: Path) -> None:
    before = _folder(tmp_path / "b", HOSTILE, LOW, 0.5)
    after = _folder(tmp_path / "a", HOSTILE, None, None)
    found = compare_assessments(before, after, TIME)
    assert found["mean_dice"] == {"before": None, "after": None, "difference": None}
    page = render_comparison(found)
    assert "<img" not in page
    assert "0.50 → n/a" in page
    assert comparison_table(found).row_count == 1


def _other_image(folder: Path) -> None:
    _edit(folder, "image", "sha256", "c")


def _other_run(folder: Path) -> None:
    _edit(folder, "model", "checkpoints", {"0": "other"})


def _edit(folder: Path, part: str, key: str, value: Any) -> None:
    path = next(folder.glob("*/quality.json"))
    quality = copy.deepcopy(json.loads(path.read_text()))
    quality[part][key] = value
    path.write_text(json.dumps(quality))


def _older(folder: Path) -> None:
    path = next(folder.glob("*/quality.json"))
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "work"}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_other_image, "is of another image than in"),
        (_other_run, "was judged by other networks"),
        (_older, "was written by an older version of whqa; assess it again"),
        (lambda folder: next(folder.glob("*/quality.json")).write_text("{"), "quality.json: not readable as JSON"),
        (lambda folder: next(folder.glob("*/quality.json")).write_text("[]"), "is not what `whqa assess` writes"),
        (lambda folder: next(folder.glob("*/quality.json")).unlink(), "holds no quality.json; give the folder"),
        (lambda folder: next(folder.glob("*/error_p*")).unlink(), "error_probability.nii.gz: no such file"),
        (lambda folder: next(folder.glob("*/error_p*")).write_bytes(b"x"), "not readable as an error probability"),
        (lambda folder: _edit(folder, "image", "shape", [1]), "is of another image than in"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    for side in ("before", "after"):
        _folder(tmp_path / side, "a", LOW, 0.5)
    spoil(tmp_path / "after")
    with pytest.raises(InputError, match=says) as caught:
        compare_assessments(tmp_path / "before", tmp_path / "after", TIME)
    assert "\n" not in str(caught.value)


def test_no_case_in_both_and_one_folder_twice_are_refused(tmp_path: Path) -> None:
    _folder(tmp_path / "before", "a", LOW, 0.5)
    _folder(tmp_path / "after", "b", LOW, 0.5)
    with pytest.raises(InputError, match=r"no case is in both \(a; b\)"):
        compare_assessments(tmp_path / "before", tmp_path / "after", TIME)
    with pytest.raises(InputError, match="is compared with itself"):
        compare_assessments(tmp_path / "before", tmp_path / "before", TIME)
    with pytest.raises(InputError, match="no such folder"):
        compare_assessments(tmp_path / "before", tmp_path / "nothing", TIME)


def test_cases_of_one_name_are_compared_by_their_folders(tmp_path: Path) -> None:
    for side, dice in (("before", 0.5), ("after", 0.9)):
        _folder(tmp_path / side, "a", LOW, dice)
        _folder(tmp_path / side, "other", LOW, dice + 0.05, case="a").rename(tmp_path / side / "a-2")
    found = compare_assessments(tmp_path / "before", tmp_path / "after", TIME)
    changes = {case["case"]: (case["mean_dice"]["before"], case["mean_dice"]["after"]) for case in found["cases"]}
    assert changes == {"a": (0.5, 0.9), "a-2": pytest.approx((0.55, 0.95))}


def test_which_of_several_masks_of_one_name_is_meant_is_not_guessed(tmp_path: Path) -> None:
    _folder(tmp_path / "before", "a", LOW, 0.5)
    _folder(tmp_path / "before", "other", LOW, 0.6, case="a").rename(tmp_path / "before" / "a-2")
    _folder(tmp_path / "after", "a", LOW, 0.9)
    for pair, counts in ((("before", "after"), "2 case(s) of this name before and 1"), (("after", "before"), "1 case")):
        with pytest.raises(InputError, match="so that nobody knows which is which") as caught:
            compare_assessments(tmp_path / pair[0], tmp_path / pair[1], TIME)
        assert counts in str(caught.value)


def test_what_the_last_batch_could_not_judge_is_not_compared(tmp_path: Path) -> None:
    for side in ("before", "after"):
        for name in ("a", "b"):
            _folder(tmp_path / side, name, LOW, 0.5)
    (tmp_path / "after" / "assessments.csv").write_text("name,folder,status\na,a,done\nb,,failed\n")
    found = compare_assessments(tmp_path / "before", tmp_path / "after", TIME)
    assert [case["case"] for case in found["cases"]] == ["a"]
    assert (found["only_before"], found["only_after"]) == (["b"], [])


def test_a_gain_is_over_the_same_structures(tmp_path: Path) -> None:
    """One that is drawn anew had no Dice: mask and expectation agreed that it is not there."""
    for side, pa in (("before", None), ("after", 0.94)):
        structures = {
            key: {"name": key, "dice_expected": dice, "volume_ml": 1.0} for key, dice in (("lv", 0.9), ("pa", pa))
        }
        _folder(tmp_path / side, "a", LOW, 0.5, structures=structures)
    (case,) = compare_assessments(tmp_path / "before", tmp_path / "after", TIME)["cases"]
    gain = case["mean_dice"]
    assert (gain["before"], gain["after"], gain["difference"]) == pytest.approx((0.95, 0.92, -0.03))


def test_a_sheared_voxel_is_as_large_as_its_determinant_says(tmp_path: Path) -> None:
    sheared = np.diag([10.0, 10.0, 10.0, 1.0])
    sheared[1, 2] = 4.0
    for side in ("before", "after"):
        path = _folder(tmp_path / side, "a", LOW, 0.5) / "error_probability.nii.gz"
        nib.save(nib.Nifti1Image(nib.load(path).get_fdata(dtype=np.float32), sheared), path)
    (case,) = compare_assessments(tmp_path / "before", tmp_path / "after", TIME)["cases"]
    assert case["left_ml"] == pytest.approx(8.0)


def test_cases_with_unlike_structures_share_a_page(tmp_path: Path) -> None:
    heart = {"heart": {"name": "heart as one", "dice_expected": 0.7, "volume_ml": 9.0}}
    for side in ("before", "after"):
        _folder(tmp_path / side, "chambers", LOW, 0.5)
        _folder(tmp_path / side, "outline", LOW, 0.5, structures=heart)
    page = render_comparison(compare_assessments(tmp_path / "before", tmp_path / "after", TIME))
    assert all(f">{name}</th>" in page for name in ("left ventricle", "heart as one"))
    assert page.count("<td>n/a</td>") == 2


@pytest.mark.parametrize(
    "words", [("--fail-on", "reject"), ("--model", "runs/demo"), ("--no-report",), ("--resample",), ("--jobs", "2")]
)
def test_no_option_of_an_assessment_is_ignored(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("before", "after"):
        _folder(tmp_path / side, "a", LOW, 0.5)
    command = ["assess", "--compare", str(tmp_path / "before"), str(tmp_path / "after")]
    with pytest.raises(SystemExit) as left:
        main([*command, *words])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(f"whqa assess: {words[0]}: --compare judges nothing anew")
    with pytest.raises(SystemExit) as left:
        main([*command, "--minutes", "case=1,piece=0.5,ml=0.5", "-o", str(tmp_path / "out")])
    assert left.value.code == 0

"""Cases left out by name, in every source."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.config.cohorts import cohort_of, sources
from whqa.config.instantiate import config_dir
from whqa.data.case import Case, Cohort, Problem
from whqa.data.findings.duplicates import Fingerprint, duplicate_findings
from whqa.data.sources.acdc import read_acdc
from whqa.data.sources.checks import checked
from whqa.data.sources.choice import leave_out, stated_names, stating
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.data.sources.nnunet import read_nnunet
from whqa.data.sources.totalsegmentator import read_totalsegmentator
from whqa.errors import InputError
from whqa.structures import MMWHS

Build = Callable[..., Path]
Read = Callable[..., Cohort]


def cohort_with(*names: str, problems: tuple[str, ...] = ()) -> Cohort:
    return Cohort("c", tuple(Case(n, n, "ct", Path(f"/d/{n}.nii.gz")) for n in names), MMWHS, problems=problems)


def ids(cohort: Cohort) -> list[str]:
    return [case.id for case in cohort.cases]


def test_every_source_has_the_setting() -> None:
    for source in sources():
        assert "\nwithout: null #" in (config_dir() / "data" / f"{source}.yaml").read_text(), source


def test_by_list_by_name_and_by_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("# blurred\nb\n\n elsewhere \n")
    cohort = cohort_with("a", "b", "c")
    assert leave_out(cohort, None) == cohort
    assert ids(leave_out(cohort, ["b", "a"])) == ["c"]
    assert ids(leave_out(cohort, "b")) == ["a", "c"]
    assert ids(leave_out(cohort, file)) == ["a", "c"]


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (["a", "x"], "data.without: cohort 'c' has no case 'x'; correct the name"),
        (["a", "b"], "data.without: names all 2 cases of cohort 'c'; nothing is left"),
        ("x", "x: not readable (No such file or directory); data.without must be names, [a, b], or a text file"),
    ],
)
def test_bad_names(without: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        leave_out(cohort_with("a", "b"), without)  # type: ignore[arg-type]


def test_the_problems_of_a_case_go_with_it() -> None:
    cohort = cohort_with("a", "ab", problems=(Problem("no label", "a"), Problem("no label", "ab"), "odd"))
    left = leave_out(cohort, ["a"]).problems
    assert [(str(problem), getattr(problem, "cases", ())) for problem in left] == [("no label", ("ab",)), ("odd", ())]


def test_a_training_image_without_label_can_be_left_out(tmp_path: Path) -> None:
    for name in ("ct_train_1001_image", "ct_train_1001_label", "ct_train_1002_image"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert "ct_train_1002_label.nii.gz is missing" in read_mmwhs(tmp_path).problems[0]
    found = cohort_of("mmwhs", tmp_path, ["without=[ct_train_1002]"])
    assert (ids(found), found.problems) == (["ct_train_1001"], ())


def test_a_case_that_cannot_name_a_file_is_a_problem_and_stops_no_other() -> None:
    cohort = cohort_with("a", ".b")
    assert ids(cohort) == ["a"]
    with pytest.raises(InputError, match=r"cohort 'c': case id '\.b' cannot name a file; rename it"):
        checked(cohort)
    with pytest.raises(InputError, match=r"case id '\.b' cannot name a file"):
        cohort_with(".b")


@pytest.mark.parametrize("stated", [7, [7], ["7"], "7"])
def test_a_number_that_can_be_one_name_alone_is_that(stated: object) -> None:
    assert stated_names(stated, ["7", "8", "a"], "x") == {"7"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stated", "there", "shown"),
    [
        (12, ["1_2"], "1_2"),
        ([12], ["12", "1_2"], "1_2"),
        (100000.0, ["1e5"], "1e5"),
        ([100000.0], ["1e5", "100000.0"], "1e5"),
        (True, ["true"], "true"),
        ([True], ["a"], "True"),
        ([12], ["a"], "12"),
        ([None], ["null"], "null"),
    ],
)
def test_what_hydra_read_as_no_name_is_refused(stated: object, there: list[str], shown: str) -> None:
    with pytest.raises(InputError, match="it in quotes inside the quotes: ") as error:
        stated_names(stated, there, "data.without")  # type: ignore[arg-type]
    assert f"'data.without=[\"{shown}\"]'" in str(error.value)


def test_names_are_no_mapping() -> None:
    with pytest.raises(InputError, match=r"x: must be names, \[a, b\], or a text file, not \{'a': 1\}"):
        stated_names({"a": 1}, ["a"], "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("stated", ["", " "])
def test_no_name_at_all(stated: str) -> None:
    with pytest.raises(InputError, match=r"data\.without: states no name"):
        stated_names(stated, ["a"], "data.without")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ct_train_1001", "without=[ct_train_1001]"),
        ("a-b.c", "without=[a-b.c]"),
        ("Fall ä (2)", "'without=[\"Fall ä (2)\"]'"),
        ("1_2", "'without=[\"1_2\"]'"),
        ("null", "'without=[\"null\"]'"),
        ("NaN", "'without=[\"NaN\"]'"),
    ],
)
def test_the_word_that_leaves_a_case_out(name: str, word: str) -> None:
    assert stating("without", name) == word


def test_advice_on_duplicates_can_be_typed() -> None:
    (finding,) = duplicate_findings([(name, name, Fingerprint("o", "u")) for name in ("1_1", "1_2")])
    assert "remove one, or state 'without=[\"1_2\"]': one person" in finding.message


def test_a_problem_stays_a_line_and_knows_its_cases() -> None:
    problem = pickle.loads(pickle.dumps(Problem("a.nii: bad", "a", "b")))
    assert (problem, problem.cases, f"{problem}") == ("a.nii: bad", ("a", "b"), "a.nii: bad")


def test_problems_go_with_all_of_their_cases_wherever_they_begin() -> None:
    problems = (Problem("/x: odd", "a"), Problem("/y: odd", "a", "b"), Problem("/z: odd"), Problem("/w: odd", "d"))
    cohort = cohort_with("a", "b", "c", problems=problems)
    assert leave_out(cohort, ["a"]).problems == problems[1:]
    assert leave_out(cohort, ["a", "b"]).problems == problems[2:]
    assert leave_out(cohort, ["d"]).problems == problems[:3], "a case that is nothing but a problem"


def test_a_copy_elsewhere_goes_with_its_case(tmp_path: Path) -> None:
    for path in ("ct_train_1001", "ct_train_1002", "sub/ct_train_1001"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        for what in ("image", "label"):
            (tmp_path / f"{path}_{what}.nii.gz").touch()
    for source in ("mmwhs", "care_whs"):
        assert len(cohort_of(source, tmp_path).problems) == 2
        assert cohort_of(source, tmp_path, ["without=ct_train_1001"]).problems == ()


def test_an_entry_whose_files_are_missing_goes_with_its_case(build: Build, read: Read, tmp_path: Path) -> None:
    root = build(tmp_path)
    for path in root.glob("labelsTr/a*"):
        path.unlink()
    assert len(read(root).problems) == 1
    assert (ids(read(root, without=["a"])), read(root, without=["a"]).problems) == (["b", "c"], ())


def test_described_files_that_are_missing_go_with_their_case(nnunet: Build, tmp_path: Path) -> None:
    listed = {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in ("a", "b")
    }
    root = nnunet(tmp_path, dataset=listed)
    (root / "labelsTr" / "a.nii.gz").unlink()
    assert len(read_nnunet(root).problems) == 1
    assert read_nnunet(root, without=["a"]).problems == ()


def test_a_doubled_subject_goes_with_its_case(tmp_path: Path) -> None:
    for place in ("s0", "s1", "more/s1"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "ct.nii.gz").touch()
    assert len(read_totalsegmentator(tmp_path).problems) == 1
    assert read_totalsegmentator(tmp_path, without=["s1"]).problems == ()
    assert read_totalsegmentator(tmp_path, subjects=["s0"]).problems == ()


def test_a_patient_without_info_goes_with_all_its_frames(tmp_path: Path) -> None:
    for patient in ("patient001", "patient002"):
        for name in ("frame01", "frame01_gt", "frame02", "frame02_gt"):
            (tmp_path / patient).mkdir(exist_ok=True)
            (tmp_path / patient / f"{patient}_{name}.nii.gz").touch()
    (tmp_path / "patient001" / "Info.cfg").write_text("ED: 1\nES: 2\n")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "patient001_frame02.nii.gz").touch()
    assert len(read_acdc(tmp_path).problems) == 2
    first = read_acdc(tmp_path, without=["patient002_frame01", "patient002_frame02"]).problems
    assert len(first) == 1
    assert "the same frame" in first[0]
    assert len(read_acdc(tmp_path, without=["patient001_ES", "patient002_frame01"]).problems) == 1

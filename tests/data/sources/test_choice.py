"""Cases left out by name, in every source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whqa.cohorts import cohort_of, sources
from whqa.config import config_dir
from whqa.data.case import Case, Cohort
from whqa.data.sources.checks import checked
from whqa.data.sources.choice import leave_out, stated_names
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError
from whqa.structures import MMWHS


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
    assert stated_names([7], [], "x") == {"7"}, "YAML reads such names as numbers"


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
    cohort = cohort_with("a", "ab", problems=("/d/a.nii.gz: no label", "/d/ab.nii.gz: no label"))
    assert leave_out(cohort, ["a"]).problems == ("/d/ab.nii.gz: no label",)


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

"""Folds: disjoint, covering, patient-wise, even in each modality; the file that keeps them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from whqa.data.case import Case, Cohort, Modality
from whqa.data.folds import Folds, check_folds, load_or_make_folds, make_folds
from whqa.errors import InputError
from whqa.structures import MMWHS


def cohort(*patients: tuple[str, Modality, int], unlabelled: int = 0) -> Cohort:
    """(patient, modality, number of scans) each."""
    cases = [
        Case(f"{patient}-{scan}", patient, modality, Path("image"), Path("label"))
        for patient, modality, scans in patients
        for scan in range(scans)
    ]
    cases += [Case(f"u{i}", f"u{i}", "ct", Path("image")) for i in range(unlabelled)]
    return Cohort("mine", tuple(cases), MMWHS)


def like_mmwhs() -> Cohort:
    ct = [(f"ct{i}", "ct", 1) for i in range(20)]
    return cohort(*ct, *[(f"mr{i}", "mr", 1) for i in range(20)], unlabelled=3)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["ct", "mr"]), st.integers(1, 4)), min_size=2, max_size=30),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_whatever_the_cohort(people: list[tuple[Modality, int]], n: int, seed: int) -> None:
    mine = cohort(*[(f"p{i}", modality, scans) for i, (modality, scans) in enumerate(people)])
    if len(people) < n:
        with pytest.raises(InputError, match="fewer than"):
            make_folds(mine, n, seed)
        return
    folds = make_folds(mine, n, seed)
    placed = [case for fold in folds.folds for case in fold]
    assert sorted(placed) == sorted(c.id for c in mine.cases)
    assert all(folds.folds)
    assert all(
        len({folds.fold_of(c.id) for c in mine.cases if c.patient == p}) == 1 for p in {c.patient for c in mine.cases}
    )
    largest = max(scans for _, scans in people)
    for modality in ("ct", "mr"):
        counts = [sum(mine[case].modality == modality for case in fold) for fold in folds.folds]
        assert max(counts) - min(counts) <= largest


def test_mmwhs_gives_four_and_four_a_fold_no_worse_than_scikit_learn() -> None:
    mine = like_mmwhs()
    folds = make_folds(mine, 5, 0)
    ours = [Counter(mine[case].modality for case in fold) for fold in folds.folds]
    assert ours == [Counter(ct=4, mr=4)] * 5
    modality = np.array([c.modality for c in mine.labelled.cases])
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    theirs = splitter.split(modality, modality, [c.patient for c in mine.labelled.cases])
    assert ours == [Counter(modality[test].tolist()) for _, test in theirs]


def test_scans_of_one_patient_in_both_modalities_stay_together() -> None:
    mine = cohort(*[(f"p{i}", m, 1) for i in range(6) for m in ("ct",)])
    both = tuple(Case(f"{c.id}-mr", c.patient, "mr", c.image, c.label) for c in mine.cases[:4])
    folds = make_folds(Cohort("both", mine.cases + both, MMWHS), 3, 1)
    assert all(folds.fold_of(c.id) == folds.fold_of(c.id.removesuffix("-mr")) for c in both)
    assert [len(f) for f in folds.folds].count(0) == 0


def test_seeds_and_the_order_of_cases() -> None:
    mine = like_mmwhs()
    backwards = Cohort("mine", mine.cases[::-1], MMWHS)
    assert make_folds(mine, 5, 0) == make_folds(backwards, 5, 0)
    assert len({make_folds(mine, 5, seed).folds for seed in range(6)}) == 6


def test_look_up() -> None:
    folds = Folds((("a", "d"), ("b",), ("c",)), seed=0)
    assert (folds.n, folds.fold_of("c"), folds.cases(0)) == (3, 2, ("a", "d"))
    assert folds.without((1,)) == ("a", "c", "d")
    assert folds.without((0, 2)) == ("b",)
    with pytest.raises(InputError, match="'e' is in no fold"):
        folds.fold_of("e")


def test_fewer_patients_than_folds() -> None:
    with pytest.raises(InputError, match=r"'mine': 3 labelled patient\(s\) are fewer than 5 folds"):
        make_folds(cohort(("a", "ct", 3), ("b", "ct", 3), ("c", "mr", 3), unlabelled=9), 5, 0)
    with pytest.raises(InputError, match="at least 2"):
        make_folds(like_mmwhs(), 1, 0)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ((("a-0", "a-1"), ("b-0", "a-0")), "more than one fold"),
        ((("a-0", "a-1"), ("x",)), r"missing \['b-0'\], unknown \['x'\]"),
        ((("a-0",), ("a-1", "b-0")), "patient 'a' is in more than one fold"),
        ((("a-0", "a-1", "b-0"), ()), "a fold is empty"),
    ],
)
def test_check_finds(folds: tuple[tuple[str, ...], ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}"):
        check_folds(Folds(folds, 0), cohort(("a", "ct", 2), ("b", "ct", 1)), "here")


def test_file_keeps_what_was_made(tmp_path: Path) -> None:
    path = tmp_path / "run" / "folds.json"
    made = load_or_make_folds(path, like_mmwhs(), 5, 3, "nested")
    assert made == make_folds(like_mmwhs(), 5, 3) == load_or_make_folds(path, like_mmwhs(), 5, 3, "nested")
    record = json.loads(path.read_text())
    assert list(record) == ["cohort", "scheme", "plan", "seed", "patients", "modalities", "folds"]
    assert record["cohort"] == {"name": "mine", "structures": list(MMWHS.keys), "cases": 40}
    assert record["patients"]["ct3-0"] == "ct3"
    assert record["modalities"]["mr3-0"] == "mr"
    assert [p.name for p in path.parent.iterdir()] == ["folds.json"]


def test_file_made_for_something_else(tmp_path: Path) -> None:
    path = tmp_path / "run" / "folds.json"
    load_or_make_folds(path, like_mmwhs(), 5, 0, "nested")
    fewer = Cohort("mine", like_mmwhs().cases[1:], MMWHS)
    renamed = Cohort("mine", (Case("new", "new", "ct", Path("i"), Path("l")), *like_mmwhs().cases[1:]), MMWHS)
    moved = Cohort(
        "mine", tuple(replace(c, patient="ct9") if c.id == "ct3-0" else c for c in like_mmwhs().cases), MMWHS
    )
    relabelled = replace(like_mmwhs(), scheme=replace(MMWHS, values={**MMWHS.values, "lv": 77}))
    for mine, n, seed, plan, message in (
        (like_mmwhs(), 4, 0, "nested", "made for folds 5, not 4"),
        (like_mmwhs(), 5, 1, "nested", "made for seed 0, not 1"),
        (like_mmwhs(), 5, 0, "in_sample", "made for plan 'nested', not 'in_sample'"),
        (fewer, 5, 0, "nested", rf"made of another cohort \(case {like_mmwhs().cases[0].id} is gone\)"),
        (renamed, 5, 0, "nested", rf"made of .*\(case {like_mmwhs().cases[0].id} is gone, case new is new\)"),
        (moved, 5, 0, "nested", r"made of another cohort \(patient of case ct3-0 changed\)"),
        (relabelled, 5, 0, "nested", r"made of another cohort \(values of the labels changed\)"),
    ):
        with pytest.raises(InputError, match=rf"folds\.json: {message}.*; put .* start anew: rm -r {path.parent}"):
            load_or_make_folds(path, mine, n, seed, plan)


def test_file_that_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "run" / "folds.json"
    load_or_make_folds(path, like_mmwhs(), 5, 0, "nested")
    record = json.loads(path.read_text())
    record["folds"][0].append(record["folds"][1][0])
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="in more than one fold"):
        load_or_make_folds(path, like_mmwhs(), 5, 0, "nested")
    for text in ("[]", '{"folds": 3}', "{"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"folds\.json: not"):
            load_or_make_folds(path, like_mmwhs(), 5, 0, "nested")


def test_workers_that_ask_at_once_agree(tmp_path: Path) -> None:
    """Two seeds race: whoever writes first wins, the others see its file and refuse."""
    path, start = tmp_path / "run" / "folds.json", threading.Barrier(8)

    def ask(seed: int) -> int | None:
        start.wait()
        try:
            return load_or_make_folds(path, like_mmwhs(), 5, seed, "nested").seed
        except InputError:
            return None

    with ThreadPoolExecutor(8) as crowd:
        said = list(crowd.map(ask, [0, 1] * 4))
    winner = json.loads(path.read_text())["seed"]
    assert said == [seed if seed == winner else None for seed in [0, 1] * 4]
    assert [p.name for p in path.parent.iterdir()] == ["folds.json"]

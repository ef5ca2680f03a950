"""Which patients, cases and masks a fold trains, validates and tests on, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stub_cohort import FOLDS, data_module

from whqa.errors import InputError
from whqa.masks.store import MaskItem


@pytest.mark.parametrize("held_out", [(0,), (1,), (0, 2)])
def test_cases_are_split_by_patient(cases: dict[str, Any], held_out: tuple[int, ...]) -> None:
    data = data_module(cases, held_out)
    assert sorted(data.train_cases + data.val_cases) == sorted(FOLDS.without(held_out))
    assert data.test_cases == tuple(c for k in held_out for c in FOLDS.folds[k])
    assert len({cases[c].patient for c in data.val_cases}) == 1
    assert not {cases[c].patient for c in data.val_cases} & {cases[c].patient for c in data.train_cases}


def test_validation_patients_follow_the_seed(cases: dict[str, Any]) -> None:
    splits = [data_module(cases, seed=s, validation_fraction=0.4).val_cases for s in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len(set(splits)) > 1
    assert all(len({cases[c].patient for c in s}) == 2 for s in splits)


def test_test_folds_can_differ_from_the_held_out_ones(cases: dict[str, Any]) -> None:
    assert data_module(cases, (0, 1), test_folds=[1]).test_cases == ("c1", "d1")


def test_items_are_masks_filtered_by_case(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    data = data_module(cases, (1,), masks=masks[::-1])
    assert data.test_items == [(c, k) for c in ("c1", "d1") for k in ("early", "final")]
    assert sorted(data.train_items + data.val_items) == sorted((m.case, m.kind) for m in masks if m.case[0] not in "cd")
    assert {c for c, _ in data.val_items} == set(data.val_cases)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.95}, "validation_fraction=0.95"),
        ({"validation_fraction": 1.0}, "below 1"),
        ({"held_out": (0, 1, 2)}, "no case is left"),
        ({"test_folds": ()}, "no case is left"),
        ({"balance": "equal"}, "balance=equal"),
        ({"delivered": 1.5}, r"errormap\.delivered=1\.5: must be in 0\.\.1"),
        ({"delivered": -0.1}, r"errormap\.delivered=-0\.1"),
        ({"patch": (8, 8)}, "three edges"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"masks": []}, "no masks under judgement of case"),
    ],
)
def test_wrong_settings_are_refused(cases: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data_module(cases, **options)


@pytest.mark.parametrize("name", ["unfinished", "early"])
def test_only_the_chosen_kinds_train_and_calibrate_all_are_tested(
    cases: dict[str, Any], masks: list[MaskItem], name: str
) -> None:
    data = data_module(cases, (1,), masks=masks, train_kinds=[name])
    assert {kind for _, kind in (*data.train_items, *data.val_items)} == {"early"}
    assert {case for case, _ in data.train_items} == set(data.train_cases)
    assert {kind for _, kind in data.test_items} == {"final", "early"}
    # settings are chosen by the same masks, whichever are learned from
    assert data.choice_items == [(case, "final") for case in data.val_cases] != []


def test_side_outputs_and_early_masks_can_be_left_out_apart(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    sides = [replace(mask, kind="side2", has_entropy=False) for mask in masks if mask.kind == "early"]
    data = data_module(cases, (1,), masks=[*masks, *sides], train_kinds=["final", "early"])
    assert {kind for _, kind in data.train_items} == {"final", "early"}
    data = data_module(cases, (1,), masks=[*masks, *sides], train_kinds=["side"])
    assert {kind for _, kind in data.train_items} == {"side2"}


@pytest.mark.parametrize(
    ("setting", "known", "kinds"),
    [
        *(("train_kinds", "final, unfinished", k) for k in (["side"], ["early1"], ["final", "corrupted"], [])),
        *(
            ("test_kinds", "final, (unfinished, early that|augmented, augmented1)", k)
            for k in (["novel"], ["early1"], ["final", "faulty"], [])
        ),
    ],
)
def test_kinds_that_there_are_not_are_refused(
    cases: dict[str, Any], masks: list[MaskItem], setting: str, known: str, kinds: list[str]
) -> None:
    with pytest.raises(InputError, match=rf"errormap\.{setting}=.*: must be some of {known}"):
        data_module(cases, masks=masks, **{setting: kinds})


@pytest.mark.parametrize(("name", "tested"), [("side", {"side2"}), ("side2", {"side2"}), ("final", {"final"})])
def test_only_the_chosen_kinds_are_tested_all_train(
    cases: dict[str, Any], masks: list[MaskItem], name: str, tested: set[str]
) -> None:
    sides = [replace(mask, kind="side2", has_entropy=False) for mask in masks if mask.kind == "early"]
    data = data_module(cases, (1,), masks=[*masks, *sides], test_kinds=[name])
    assert {kind for _, kind in data.test_items} == tested
    assert {case for case, _ in data.test_items} == set(data.test_cases)
    assert {kind for _, kind in data.train_items} == {"final", "early", "side2"}


def test_masks_of_other_programs_are_tested_whatever_kinds_are_chosen(
    cases: dict[str, Any], masks: list[MaskItem]
) -> None:
    foreign = [replace(mask, kind="nnunet", has_entropy=False) for mask in masks if mask.kind == "final"]
    data = data_module(cases, (1,), masks=[*masks, *foreign], test_kinds=["early", "novel"])
    assert {kind for _, kind in data.test_items} == {"early", "nnunet"}
    data = data_module(cases, (1,), masks=foreign, test_kinds=["early", "novel"])
    assert {kind for _, kind in data.test_items} == {"nnunet"}


def test_a_kind_that_occurs_twice_is_refused(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    with pytest.raises(InputError, match="twice"):
        data_module(cases, masks=[*masks, masks[0]])

"""Mask plans: enough segmenters, none too many, and no leak."""

from itertools import combinations

import pytest

from whqa.errors import InputError
from whqa.masks.plan import MaskPlan, fold_name, parse_fold

COUNTS = range(2, 7)


@pytest.mark.parametrize(("n", "trainings"), [(3, 6), (4, 10), (5, 15), (6, 21)])
def test_nested_trains_pairs_and_singles(n: int, trainings: int) -> None:
    plan = MaskPlan("nested", n)
    held_out = [job.held_out for job in plan.segmenters]
    assert len(held_out) == len(set(held_out)) == trainings
    assert set(held_out) == {(k,) for k in range(n)} | set(combinations(range(n), 2))
    assert len({job.name for job in plan.segmenters}) == trainings


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("name", ["out_of_fold", "in_sample"])
def test_the_other_plans_train_one_a_fold(name: str, n: int) -> None:
    assert [job.name for job in MaskPlan(name, n).segmenters] == [str(k) for k in range(n)]


@pytest.mark.parametrize("n", range(3, 7))
def test_nested_never_leaks(n: int) -> None:
    plan = MaskPlan("nested", n)
    held_out = {job.name: set(job.held_out) for job in plan.segmenters}
    for test in range(n):
        for fold in range(n):
            unseen = held_out[plan.segmenter_of(test, fold)]
            assert fold in unseen, "a segmenter judges cases that it was trained on"
            assert test in unseen, "a training mask comes from a segmenter that has seen the test fold"


@pytest.mark.parametrize("n", COUNTS)
def test_out_of_fold_never_judges_seen_cases(n: int) -> None:
    plan = MaskPlan("out_of_fold", n)
    held_out = {job.name: set(job.held_out) for job in plan.segmenters}
    assert plan.asserts_unseen
    for test in range(n):
        assert all(held_out[plan.segmenter_of(test, fold)] == {fold} for fold in range(n))


@pytest.mark.parametrize("n", COUNTS)
def test_in_sample_judges_with_the_segmenter_of_the_test_fold(n: int) -> None:
    plan = MaskPlan("in_sample", n)
    assert not plan.asserts_unseen
    for test in range(n):
        assert {plan.segmenter_of(test, fold) for fold in range(n)} == {str(test)}
        assert plan.needed_by(test) == (str(test),)


@pytest.mark.parametrize(
    ("name", "n"),
    [(name, n) for name in ("out_of_fold", "nested", "in_sample") for n in COUNTS if n > 2 or name != "nested"],
)
def test_every_segmenter_makes_the_masks_that_are_asked_of_it(name: str, n: int) -> None:
    plan = MaskPlan(name, n)
    made = {job.name: set(job.masks_of) for job in plan.segmenters}
    used = set()
    for test in range(n):
        names = {plan.segmenter_of(test, fold) for fold in range(n)}
        assert set(plan.needed_by(test)) == names
        assert all(fold in made[plan.segmenter_of(test, fold)] for fold in range(n))
        used |= names
    assert used == set(made), "a segmenter is trained that nobody needs"


def test_a_pair_serves_both_its_folds() -> None:
    plan = MaskPlan("nested", 5)
    assert plan.segmenter_of(1, 3) == plan.segmenter_of(3, 1) == "1-3"
    assert plan.segmenter_of(3, 3) == "3"
    assert plan.needed_by(0) == ("0", "0-1", "0-2", "0-3", "0-4")


def test_fold_names() -> None:
    assert fold_name((3, 1)) == "1-3"
    for text, folds in (("0", (0,)), (4, (4,)), ("3-1", (1, 3)), ("1-3", (1, 3))):
        assert parse_fold(text, 5) == folds
    for job in MaskPlan("nested", 6).segmenters:
        assert parse_fold(job.name, 6) == job.held_out


@pytest.mark.parametrize("text", ["", "x", "5", "-1", "0-5", "0-1-2", "1.5", "0-"])
def test_bad_folds_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must be one of 0\.\.4"):
        parse_fold(text, 5)


@pytest.mark.parametrize(("name", "n"), [("nested", 2), ("nested", 0), ("out_of_fold", 1), ("in_sample", 1)])
def test_too_few_folds_are_refused(name: str, n: int) -> None:
    with pytest.raises(InputError, match="needs at least"):
        MaskPlan(name, n)


def test_unknown_plans_are_refused() -> None:
    with pytest.raises(InputError, match="must be one of out_of_fold, nested, in_sample"):
        MaskPlan("leaky", 5)  # type: ignore[arg-type]

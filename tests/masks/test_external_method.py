"""What a user says of another program's masks: names, patterns and whether they are unseen."""

from __future__ import annotations

import pytest

from whqa.errors import InputError
from whqa.masks.external import ExternalMethod, refuse_seen
from whqa.masks.plan import MaskPlan


@pytest.mark.parametrize(
    "name", ["final", "side1", "Early", "mixed", "ALL", "", "a/b", "a.b", "-a", "ä", "a b", "../a", "0", "0-1"]
)
def test_names_of_other_kinds_and_of_no_file_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose another name, of letters, digits"):
        ExternalMethod(name, "preds")


@pytest.mark.parametrize("name", ["nnunet", "TotalSegmentator-v2", "person_1", "3d_fullres"])
def test_plain_names_are_taken(name: str) -> None:
    assert str(ExternalMethod(name, "preds")) == f"masks.external.{name}"


@pytest.mark.parametrize("pattern", ["x.nii.gz", "*_*.nii.gz", "", "/x/*.nii.gz", "../*.nii.gz", "a/../../*.nii.gz"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"masks\.external\.nnunet"):
        ExternalMethod("nnunet", "preds", pattern)
    if ".." in pattern:
        with pytest.raises(InputError, match="must be relative to the folder and stay in it"):
            ExternalMethod("nnunet", "preds", "*", parts={"lv": pattern})


@pytest.mark.parametrize("plan", ["out_of_fold", "nested", "in_sample"])
def test_only_the_users_word_makes_masks_unseen(plan: str) -> None:
    said, unsaid = ExternalMethod("a", "preds", unseen=True), ExternalMethod("b", "preds")
    refuse_seen([said], MaskPlan(plan, 3))  # type: ignore[arg-type]
    if plan == "in_sample":
        refuse_seen([said, unsaid], MaskPlan(plan, 3))
        return
    with pytest.raises(InputError, match=r"masks\.external\.b: mask plan .* state \+\+masks\.external\.b\.unseen=true"):
        refuse_seen([said, unsaid], MaskPlan(plan, 3))  # type: ignore[arg-type]

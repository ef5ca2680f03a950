"""The report's sentences: the place that decides is named, and a corrected mask only where one differs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from whqa.contract.quality_json import Assessment
from whqa.report.wording import what_is_wrong, what_to_do

Assessed = Callable[..., Assessment]
PLACES = [
    {"ml": 4.0, "structure": "lv", "voxel": [1, 1, 1], "certainty": 0.7},
    {"ml": 2.5, "structure": "ra", "voxel": [2, 2, 2], "certainty": 0.9},
    {"ml": 1.5, "structure": None, "voxel": [3, 3, 3], "certainty": 0.6},
]


def _quality(assessed: Assessed, certainty: float, places: list[dict[str, Any]], **correction: Any) -> Any:
    quality = deepcopy(assessed().quality)
    quality["verdict"]["certainty"] = certainty
    quality["correction"].update(correction)
    quality["places"] = places
    return quality


def test_the_place_that_forbids_to_accept_is_named(assessed: Assessed) -> None:
    said = what_is_wrong(_quality(assessed, 0.9, PLACES))
    assert said[-1] == "Surest to be wrong: a piece of 2.5 ml in the right atrium."
    outside = what_is_wrong(_quality(assessed, 0.9, PLACES[2:]))
    assert outside[-1] == "Surest to be wrong: a piece of 1.5 ml outside of the mask's structures."


@pytest.mark.parametrize(("certainty", "places"), [(0.7, PLACES), (0.9, [])])
def test_a_place_as_right_masks_have_them_is_not(
    assessed: Assessed, certainty: float, places: list[dict[str, Any]]
) -> None:
    assert not any("Surest to be wrong" in words for words in what_is_wrong(_quality(assessed, certainty, places)))


@pytest.mark.parametrize(("changed", "told"), [(0, False), (7, True)])
def test_a_corrected_mask_is_told_where_it_differs(assessed: Assessed, changed: int, told: bool) -> None:
    said = what_to_do(_quality(assessed, 0.5, [], applied=True, changed_voxels=changed))
    assert any("A corrected mask lies beside this page" in words for words in said) == told

"""The report's sentences: the place that decides is named, and a corrected mask only where one differs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from whqa.contract.quality_json import Assessment
from whqa.report.wording import confidence_words, how_sure, percents, what_is_wrong, what_to_do

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


def test_the_risk_is_that_of_the_score_whatever_a_doubt_made_of_it(assessed: Assessed) -> None:
    quality = _quality(assessed, 0.9, PLACES)
    quality["out_of_distribution"] = []
    verdict = quality["verdict"]
    verdict |= {"decision": "review", "score": 0.81}
    assert "Of the run's own masks that the score had sent to review, 7 of 20 were bad" in " ".join(how_sure(quality))
    verdict["score"] = 0.9
    said = " ".join(how_sure(quality))
    assert "By its score alone the mask would be accepted; of the run's own masks that the score had accepted" in said
    assert ", 2 of 41 were bad" in said
    assert said.endswith("Both figures hold for scans and masks like those of the run.")


def test_figures_that_there_are_not_do_not_hold(assessed: Assessed) -> None:
    quality = _quality(assessed, 0.9, PLACES)
    quality["out_of_distribution"] = []
    quality["qi"]["heart"] |= {"interval": None, "reason": "too few"}
    assert how_sure(quality)[-1] == "This figure holds for scans and masks like those of the run."
    quality["verdict"]["score"] = 0.5
    assert how_sure(quality)[-1].endswith("so the risk of this verdict is not known.")


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.86, 0.951), "86.0 to 95.1 %"),
        ((0.8604, 0.9506), "86.0 to 95.1 %"),
        ((0.99996, 0.99999), "99.9 to 100.0 %"),
        ((0.00001, 0.0002), "0.0 to 0.1 %"),
        ((1.0, 1.0), "100.0 to 100.0 %"),
        ((0.3, 0.7), "30.0 to 70.0 %"),
    ],
)
def test_an_interval_is_never_said_to_be_narrower(interval: tuple[float, float], words: str) -> None:
    assert percents(interval) == words


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.9, "90 %"), (0.875, "87.5 %"), (0.925, "92.5 %"), (0.999, "99.9 %")]
)
def test_a_confidence_is_said_as_it_was_stated(confidence: float, words: str) -> None:
    assert confidence_words(confidence) == words

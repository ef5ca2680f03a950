"""Where one case stands among the masks that the run judged with the truth at hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from whqa.masks.plan import family
from whqa.report.shown import Standing
from whqa.report.wording import confidence_words
from whqa.results.mean_dice import expected_mean_dice

# What a picture is called; its columns of the true and of the predicted value; what these are, and over what.
_PARTS = {
    "heart": ("QI over the heart", ("acc_heart", "qi_heart"), ("Acc", "QI"), "heart"),
    "volume": ("QI over the whole volume", ("acc_volume", "qi_volume"), ("Acc", "QI"), "whole volume"),
    "dice": (
        *("mean Dice", ("mean_dice", "mean_dice_predicted"), ("mean Dice", "expected mean Dice")),
        "all structures",
    ),
}


def standings_of(population: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]) -> list[Standing]:
    """QI over heart and volume against Acc, then the expected mean Dice against the true one where it is known.

    Args:
        population: `Assessment.population`.
        quality: content of quality.json.
    """
    return [
        _standing(population, quality, part)
        for part in _PARTS
        if population and (part != "dice" or any(row.get("mean_dice_predicted") is not None for row in population))
    ]


def _standing(population: Sequence[Mapping[str, Any]], quality: Mapping[str, Any], part: str) -> Standing:
    caption, columns, names, words = _PARTS[part]
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in population:
        true, predicted = (row.get(column) for column in columns)
        if true is not None and predicted is not None and isfinite(true) and isfinite(predicted):
            points[family(str(row.get("mask_kind", "final")))].append((float(true), float(predicted)))
    value, interval = _this_case(quality, part)
    return Standing(
        {kind: points[kind] for kind in sorted(points, key=lambda k: (k != "final", k))},
        value,
        interval,
        f"{confidence_words(quality['confidence'])} interval",
        f"{names[0]} ({words}), known truth",
        f"{names[1]} ({words}), as predicted",
        f"{caption} of the run's own masks against the truth, and this case",
        caption,
    )


def _this_case(quality: Mapping[str, Any], part: str) -> tuple[float | None, Sequence[float] | None]:
    if part != "dice":
        found = quality["qi"][part]
        return found["value"], found.get("interval")
    return expected_mean_dice(quality["structures"]), None

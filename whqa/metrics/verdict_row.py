"""All numbers of one verdict on one mask: the row that a method gets in cases.csv."""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

from whqa.metrics.error_detection import average_precision, error_counts
from whqa.metrics.error_places import PLACE_COLUMNS, Pieces, counts_and_places, places_of
from whqa.metrics.error_sizes import SIZE_COLUMNS, SizedErrors, size_counts, sized_errors
from whqa.quality import ErrorPrediction, JudgedCase, QualityPrediction, count, one_minus_mean

AGREEMENT_COLUMNS = ("opinion_dice", "pairwise_dice")
"""Of methods that go by an opinion: mean Dice of the mask with what it would draw, and between each two segmenters."""
NETWORK = "errormap"
"""The error-map network among the methods of cases.csv."""
JOINT = "joint"
"""What a joint network says of a mask as a whole, among these methods."""
JUDGE_COLUMNS = (
    "error_dice",
    "error_auprc",
    "voxels",
    "error_voxels",
    "predicted_voxels",
    "hit_voxels",
    "acc_volume",
    "qi_volume",
    "qi_soft_volume",
    "acc_heart",
    "qi_heart",
    "qi_soft_heart",
    *AGREEMENT_COLUMNS,
    *PLACE_COLUMNS,
    *SIZE_COLUMNS,
)
_SIZED: WeakKeyDictionary[JudgedCase, SizedErrors] = WeakKeyDictionary()


def judge(case: JudgedCase, prediction: ErrorPrediction | QualityPrediction) -> dict[str, float]:
    """Compare a verdict with the truth; keys are `JUDGE_COLUMNS`, definitions are in `whqa.quality`.

    `error_auprc` is nan for a mask without any error, `AGREEMENT_COLUMNS` are for methods that have no such number, and
    whatever compares error maps is for methods that have none.

    Raises:
        ValueError: the case has no reference, or the maps differ in shape.
    """
    true = _TRUE.get(case) or _TRUE.setdefault(case, _true_of(case))
    row = dict.fromkeys(JUDGE_COLUMNS, math.nan) | true.numbers
    if isinstance(prediction, QualityPrediction):
        return row | {f"qi_{region}": qi for region, qi in prediction.quality.items()}
    counts = error_counts(prediction.error_map, case.error)
    row |= {
        "error_dice": counts.dice,
        "error_auprc": average_precision(prediction.probability, case.error),
        "predicted_voxels": float(counts.predicted),
        "hit_voxels": float(counts.hit),
    }
    for name, region in (("volume", None), ("heart", case.heart)):
        row[f"qi_soft_{name}"] = soft = one_minus_mean(prediction.probability, region)
        row[f"qi_{name}"] = soft if prediction.calibrated else prediction.quality(region)
    row |= {name: value for name, value in prediction.agreement.items() if name in AGREEMENT_COLUMNS}
    places, shown = counts_and_places(prediction.error_map, case.error, case.spacing, true.places)
    if case not in _SIZED:
        # all methods are held against the same errors
        _SIZED[case] = sized_errors(case)
    return row | places | size_counts(prediction.error_map.cpu().numpy(), shown, _SIZED[case])


class _True(NamedTuple):
    """What is true of a mask, whichever method judges it: columns, and the places where it is wrong."""

    numbers: dict[str, float]
    places: Pieces


_TRUE: WeakKeyDictionary[JudgedCase, _True] = WeakKeyDictionary()


def _true_of(case: JudgedCase) -> _True:
    numbers = {
        "voxels": float(case.error.numel()),
        "error_voxels": float(count(case.error)),
        "acc_volume": one_minus_mean(case.error),
        "acc_heart": one_minus_mean(case.error, case.heart),
    }
    return _True(numbers, places_of(case.error, case.spacing))

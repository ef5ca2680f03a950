"""sweep.json, key by key: what `whqa sweep` leaves in runs/<sweep>; sweep.csv holds the same numbers, a line a point.

A point is one combination of the settings that vary, and a whole cross-validation. Validation numbers are of training
cases that the networks were not trained on, with the weights, the calibration and the threshold that the test judges
with; points are chosen and sorted by them alone. A number that is not known is null, with a `reason` beside it.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from whqa.contract.entries import Entry
from whqa.contract.provenance import Environment

ChosenBy = Literal["validation.error_dice", "validation.segmenter_dice"]


class SweepFigure(Entry):
    """A mean over masks, how much it varies between folds, and how far it is from that of the first point.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        fold_std: sample standard deviation of the folds' means; null for fewer than two folds.
        difference: this point's value minus the first point's, mask by mask; null where the two judge other masks.
    """

    fold_std: float | None
    difference: Entry


class SweepValidationFigures(TypedDict):
    """Of held-back training cases, which settings may be chosen by.

    Attributes:
        error_dice: of the error-map networks, on final masks and those of other programs.
        segmenter_dice: mean Dice over structures of the final masks of the segmenters that leave out one fold; null
            where these hold no case back.
    """

    error_dice: SweepFigure
    segmenter_dice: SweepFigure


class SweepTestFigures(TypedDict):
    """Of the test folds; nothing is chosen or sorted by them.

    Attributes:
        error_dice: of the error-map networks, on final masks and those of other programs.
        error_dice_all: on masks of all kinds.
        segmentation_dice: mean Dice over structures of the segmenters' final masks.
    """

    error_dice: SweepFigure
    error_dice_all: SweepFigure
    segmentation_dice: SweepFigure


class SweepPoint(TypedDict):
    """One point.

    Attributes:
        name: of its directory, in which it is an experiment like any other.
        settings: key -> value, of those that vary.
        state: whether all its runs are complete.
        why: of a failed point.
        validation: null of a failed point.
        test: null of a failed point.
    """

    name: str
    settings: dict[str, str]
    state: Literal["done", "failed"]
    why: str | None
    validation: SweepValidationFigures | None
    test: SweepTestFigures | None


class Sweep(TypedDict):
    """A sweep.

    Attributes:
        sweep: name of its directory.
        settings: the settings that vary, and all others of the command, as they were given.
        first: name of the point that differences are to.
        chosen_by: the number that points are sorted by; null where none can be compared.
        why: what decides that.
        points: the best first, failed ones last; in the order of the command where nothing sorts them.
        environment: of the process that wrote the file.
    """

    sweep: str
    settings: list[str]
    first: str
    chosen_by: ChosenBy | None
    why: str
    points: list[SweepPoint]
    environment: Environment

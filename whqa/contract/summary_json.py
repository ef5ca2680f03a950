"""summary.json, key by key.

A number that is not known is null, with a `reason` beside it. Intervals are 95 % percentile intervals of a bootstrap by
patient. "Masks" are masks under judgement; Acc, QI and their regions are defined in `whqa.quality`.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from whqa.contract.json_schema import Ends, OtherKeys
from whqa.contract.provenance import Environment


class Entry(TypedDict):
    """A mean with its interval.

    Attributes:
        mean: over masks, in the unit of its key (1 where none is named); null where it is not defined.
        ci95: 95 % interval of the mean by patient; null where too few patients have a value.
        reason: why `mean` or `ci95` is null.
        n: how many masks have a value, where some have none.
    """

    mean: float | None
    ci95: Ends | None
    reason: NotRequired[str]
    n: NotRequired[int]


class PooledEntry(Entry):
    """The error Dice.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        pooled: from voxel counts summed over all masks; null without a mask.
    """

    pooled: float | None


class Spread(TypedDict):
    """Mean and spread of Acc over masks.

    Attributes:
        mean: null without a mask.
        std: sample standard deviation; null for fewer than two masks.
        reason: why one of them is null.
    """

    mean: float | None
    std: float | None
    reason: NotRequired[str]


class QualityAgainstAccuracy(TypedDict):
    """How well QI follows Acc over one region.

    Attributes:
        acc: the true accuracy of the masks.
        pcc: Pearson correlation of QI and Acc.
        spearman: rank correlation of QI and Acc.
        mae: mean of |QI - Acc|.
        mae_constant: the same for a constant, the mean Acc of the training masks.
    """

    acc: Spread
    pcc: Entry
    spearman: Entry
    mae: Entry
    mae_constant: Entry


class FailureDetection(TypedDict):
    """Does QI over the volume rank good masks before bad ones? Risk is 1 - mean Dice of the mask.

    Attributes:
        aurc: area under the risk-coverage curve, lower is better.
        e_aurc: `aurc` minus that of the perfect order.
        auroc: of "the Dice of a structure is below 0.7" by -QI.
        positives: how many masks have such a structure; absent where no mask has a Dice.
    """

    aurc: Entry
    e_aurc: Entry
    auroc: Entry
    positives: NotRequired[int]


class CorrectionNumbers(TypedDict):
    """Dice of masks before and after correction, defined in `whqa.metrics.segmentation.paired_mean_dice`.

    Attributes:
        dice_before: mean Dice of a mask over its structures.
        dice_after: mean Dice of the corrected mask over the same structures.
        gain: after minus before, mask by mask, so that `dice_after` - `dice_before` is the gain.
        improved_share: of the corrected masks, those with a gain above 0; absent without any.
        worsened_share: those with a gain below 0; absent without any.
    """

    dice_before: Entry
    dice_after: Entry
    gain: Entry
    improved_share: NotRequired[float]
    worsened_share: NotRequired[float]


class StructureNumbers(TypedDict):
    """One structure, over the masks in which it has a value.

    Attributes:
        error_dice: error Dice among the voxels that mask or reference give to the structure.
        dice_before: its Dice, over masks in which it has one before and after correction.
        dice_after: its Dice after correction, over the same masks.
        gain: after minus before, mask by mask.
    """

    error_dice: Entry
    dice_before: Entry
    dice_after: Entry
    gain: Entry


class KindNumbers(TypedDict):
    """Masks of one kind.

    Attributes:
        n: masks.
        dice: mean Dice of a mask over its structures.
        error_dice: as in the method's numbers.
        mae_volume: mean of |QI - Acc| over the whole crop.
        correction: Dice before and after correction.
    """

    n: int
    dice: Entry
    error_dice: Entry
    mae_volume: Entry
    correction: CorrectionNumbers


class Breakdown(TypedDict):
    """One method's numbers taken apart.

    Attributes:
        correction: what the method's correction does to the masks.
        by_structure: structure key -> numbers.
        by_kind: mask kind -> numbers.
    """

    correction: CorrectionNumbers
    by_structure: dict[str, StructureNumbers]
    by_kind: dict[str, KindNumbers]


class MethodNumbers(Breakdown):
    """One method on one part of the masks.

    Attributes:
        n: masks that it judged.
        error_dice: Dice of predicted and true error map, a mask, then averaged.
        error_auprc: average precision of the error probability, over masks that have an error.
        volume: QI and Acc over the whole preprocessed crop.
        heart: QI and Acc over the mask's foreground and 10 mm around it.
        volume_soft, heart_soft: the same for the soft QI (from probabilities); absent where the method gives none.
        failure: failure detection.
        seconds_per_case: wall clock of one prediction, in seconds.
        correction: what the method's correction does to the masks.
        by_structure: structure key -> numbers.
        by_kind: mask kind -> numbers.
    """

    n: int
    error_dice: PooledEntry
    error_auprc: Entry
    volume: QualityAgainstAccuracy
    heart: QualityAgainstAccuracy
    volume_soft: NotRequired[QualityAgainstAccuracy]
    heart_soft: NotRequired[QualityAgainstAccuracy]
    failure: FailureDetection
    seconds_per_case: Entry


class PerStructure(Entry):
    """A mean over final masks and structures.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        per_structure: structure key -> mean over final masks.
    """

    per_structure: dict[str, Entry]


class Segmentation(TypedDict):
    """How good the segmenters' final masks of unseen cases are.

    Attributes:
        dice: Dice of the final masks.
        hd95_mm: 95th percentile of surface distances, in mm; the image's diagonal where a structure is missing.
    """

    dice: PerStructure
    hd95_mm: PerStructure


class MeasuredIntervals(TypedDict):
    """Do the intervals for one quantity hold what they promise?

    Attributes:
        n: masks that the quantity is known of.
        coverage: share of intervals that hold the truth.
        width: of the intervals, in the quantity's unit.
    """

    n: int
    coverage: Entry
    width: Entry


class Intervals(TypedDict):
    """Measured intervals of the first method: final, all or another program's name -> quantity -> numbers.

    Quantities are acc_volume, acc_heart and, from a label head, dice_<structure>.

    Attributes:
        confidence: of the intervals.
        method: whose predictions they belong to.
    """

    confidence: float
    method: str


class CohortNumbers(TypedDict):
    """What the experiment was made of.

    Attributes:
        name: of the cohort.
        cases: how many.
        folds: how many.
        structures: keys in the order of their label indices.
    """

    name: str
    cases: int
    folds: int
    structures: list[str]


class Summary(TypedDict):
    """A cross-validated experiment in numbers: content of runs/<experiment>/summary.json.

    Attributes:
        experiment: name of the run's directory.
        cohort: what it was made of.
        plan: name of the mask plan, which says which segmenter made the masks of which fold.
        environment: what computed the summary.
        segmentation: the masks themselves.
        methods: method -> part -> numbers; parts are "final" (final masks), "all" (all mask kinds) and the name of each
            other program whose masks were judged. The first method is the error-map network.
        intervals: how often intervals held the truth.
    """

    experiment: str
    cohort: CohortNumbers
    plan: str
    environment: Environment
    segmentation: Segmentation
    methods: dict[str, dict[str, MethodNumbers]]
    intervals: Annotated[Intervals, OtherKeys(dict[str, MeasuredIntervals])]

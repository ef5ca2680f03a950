"""summary.json, key by key.

A number that is not known is null, with a `reason` beside it. Intervals are 95 % percentile intervals of a bootstrap by
patient. "Masks" are masks under judgement; Acc, QI and their regions are defined in `whqa.quality`.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from whqa.contract.by_quality import Reliability, Stratum
from whqa.contract.entries import Entry, MeasuredIntervals, PooledEntry, Spread
from whqa.contract.json_schema import OtherKeys
from whqa.contract.provenance import Environment


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


class StructureFailure(Entry):
    """The area under the ROC curve of one structure's failure.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        positives: masks in which the structure's Dice is below 0.7.
    """

    positives: int


class ChosenConfidence(TypedDict):
    """Which of its numbers a method ranks masks by, and how that was chosen.

    Attributes:
        score: the confidence: qi_volume, qi_heart, qi_soft_volume, qi_soft_heart, opinion_dice, pairwise_dice,
            mean_dice_predicted or worst_dice_predicted; null where the method judged no mask.
        agreement: share of folds for which this score has the lowest AURC on the final masks of the other folds; null
            with fewer than two folds.
        optimism: what the choice may have taken off the AURC: within each fold, AURC by the score that the other folds
            choose minus AURC by `score`, averaged over folds; null with fewer than two folds.
        reason: why one of them is null.
    """

    score: str | None
    agreement: float | None
    optimism: float | None
    reason: NotRequired[str]


class FailureDetection(ChosenConfidence):
    """Does a method's confidence rank good masks before bad ones? Risk is 1 - mean Dice of the mask.

    Attributes:
        score, agreement, optimism, reason: of the confidence.
        aurc: area under the risk-coverage curve, lower is better.
        e_aurc: `aurc` minus that of the perfect order.
        auroc: of "the Dice of a structure is below 0.7" by the score.
        positives: how many masks have such a structure; absent where no mask has a Dice.
        auroc_per_structure: structure key -> that of "its Dice is below 0.7" by its expected Dice, or by the score
            where the method expects none.
    """

    aurc: Entry
    e_aurc: Entry
    auroc: Entry
    positives: NotRequired[int]
    auroc_per_structure: dict[str, StructureFailure]


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
        expected_dice_mae: mean of |expected Dice - Dice|, over masks in which both are known.
    """

    error_dice: Entry
    dice_before: Entry
    dice_after: Entry
    gain: Entry
    expected_dice_mae: Entry


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
        expected_dice_mae: mean of |expected Dice - Dice| of a mask's structures, then over masks.
        by_structure: structure key -> numbers.
        by_kind: mask kind -> numbers.
    """

    correction: CorrectionNumbers
    expected_dice_mae: Entry
    by_structure: dict[str, StructureNumbers]
    by_kind: dict[str, KindNumbers]


class SizeNumbers(TypedDict):
    """Errors of one size, see `whqa.metrics.error_sizes`.

    Attributes:
        share: of a mask's wrong voxels, those of this size, over masks that have a wrong one.
        voxel_recall: of a mask's wrong voxels of this size, those that the error map shows, over masks that have one.
        recall: of a mask's wrong places of this size, those that are found, over masks that have one.
    """

    share: Entry
    voxel_recall: Entry
    recall: Entry


class PlaceNumbers(TypedDict):
    """Places, connected pieces of at least 1 ml, see `whqa.metrics.error_places`.

    Attributes:
        recall: share of a mask's wrong places that the method shows, over masks that have one.
        false_per_mask: places that it shows and of which less than a tenth is wrong, a mask.
        by_size: "thin" (less than three voxels thick), "blob" and "missing" (structures that the mask lacks) ->
            numbers.
    """

    recall: Entry
    false_per_mask: Entry
    by_size: dict[str, SizeNumbers]


class MethodNumbers(Breakdown):
    """One method on one part of the masks.

    Attributes:
        n: masks that it judged.
        error_dice: Dice of predicted and true error map, a mask, then averaged.
        error_auprc: average precision of the error probability, over masks that have an error.
        lead: of the first method: how much higher its error Dice is, mask by mask, over masks that both judged.
        volume: QI and Acc over the whole preprocessed crop.
        heart: QI and Acc over the mask's foreground and 10 mm around it.
        volume_soft, heart_soft: the same for the soft QI (from probabilities); absent where the method gives none.
        failure: failure detection.
        places: whether it finds what is worth looking at.
        strata: reference (no wrong voxel), mild (true mean Dice from 0.95 on), good (from 0.85), fair (from 0.7) and
            bad -> numbers of these masks.
        reliability: QI against Acc by predicted quality.
        seconds_per_case: wall clock of one prediction, in seconds.
        correction: what the method's correction does to the masks.
        expected_dice_mae: mean of |expected Dice - Dice| of a mask's structures, then over masks.
        by_structure: structure key -> numbers.
        by_kind: mask kind -> numbers.
    """

    n: int
    error_dice: PooledEntry
    error_auprc: Entry
    lead: Entry
    volume: QualityAgainstAccuracy
    heart: QualityAgainstAccuracy
    volume_soft: NotRequired[QualityAgainstAccuracy]
    heart_soft: NotRequired[QualityAgainstAccuracy]
    failure: FailureDetection
    places: PlaceNumbers
    strata: dict[str, Stratum]
    reliability: Reliability
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


class Intervals(TypedDict):
    """Measured intervals of the first method: part, as in `methods` -> quantity -> numbers.

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
        methods: method -> part -> numbers; parts are "final" (final masks), "all" (all mask kinds), the name of each
            other program whose masks were judged, and, where there are such masks, "augmented" (masks of augmented
            images, or drawn from another program's softmax), "mixed" (references with some of the segmenter's errors),
            "corrupted" and "novel" (good masks with faults of kinds that training had, or never had). The first method
            is the error-map network.
        intervals: how often intervals held the truth.
        mixed: how folds that were put together on demand (`whqa summarize --mixed`) differ in settings or data; absent
            where they do not.
    """

    experiment: str
    cohort: CohortNumbers
    plan: str
    environment: Environment
    segmentation: Segmentation
    methods: dict[str, dict[str, MethodNumbers]]
    intervals: Annotated[Intervals, OtherKeys(dict[str, MeasuredIntervals])]
    mixed: NotRequired[str]

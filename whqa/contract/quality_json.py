"""quality.json, key by key, and the assessment that it belongs to.

A number that is not known is null, with a `reason` beside it, or a sentence elsewhere that the key's words name.
"Unseen masks" are masks of the run's own cases, judged by the network of the fold that never saw the case, where the
truth is known. Acc, QI and their regions are defined in `whqa.quality`. Volumes are of the scan's own voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.contract.json_schema import Ends, Keyword, Share, Size
from whqa.contract.provenance import Environment, OpinionSource
from whqa.contract.work_json import Work
from whqa.structures import LabelScheme


class GivenMask(TypedDict):
    """The mask that was judged.

    Attributes:
        path: as it was given; null for an array.
        sha256: digest of the file; null for an array.
    """

    path: str | None
    sha256: str | None


class GivenImage(TypedDict):
    """The scan that the mask is of.

    Attributes:
        path: as it was given; null for an array.
        sha256: digest of the file; null for an array.
        shape: voxels along the file's axes (X, Y, Z).
        spacing_mm: mm along the file's axes, after the spacing rule of the run.
        orientation: where the file's axes point to, such as "LPS".
    """

    path: str | None
    sha256: str | None
    shape: Annotated[list[int], Keyword("minItems", 3), Keyword("maxItems", 3)]
    spacing_mm: Annotated[list[float], Keyword("minItems", 3), Keyword("maxItems", 3)]
    orientation: str


class JudgingRun(TypedDict):
    """The trained run that judged.

    Attributes:
        run: name of its folder; of a model file, that of the run which it was made of.
        cohort: that it was trained on.
        plan: which segmenter's masks it learned from.
        folds: whose networks judged; their probabilities are averaged.
        head: "label" predicts the right label too, from which expected Dice and correction follow; "binary" does not.
        modality: that the scan was taken for.
        checkpoints: fold -> digest of its network.
    """

    run: str
    cohort: str
    plan: str
    folds: list[int]
    head: Literal["binary", "label"]
    modality: Literal["ct", "mr"]
    checkpoints: dict[str, str]


class ErrorMapThreshold(TypedDict):
    """From which error probability on a voxel is in the error map.

    Attributes:
        threshold: above 1 where not even half a voxel is expected to be wrong, so that the map is empty.
        rule: "expected" is chosen for this mask, where the map is expected to agree best with the true errors; "dice"
            on held-back training cases, for all masks alike.
    """

    threshold: Size
    rule: Literal["expected", "dice"]


class QualityIndicator(TypedDict):
    """What the network says about the accuracy Acc in one region, the share of voxels whose label is right.

    Attributes:
        value: QI, 1 - mean of the calibrated error probabilities; null where the mask has no voxel on the run's grid.
        soft: the same number as `value`, under the name that it has in summary.json; null together with it. Of a run of
            an older version, whose `value` is of the error map, 1 - mean P.
        interval: for the true Acc, of the confidence above; null where the run has too few unseen masks like it.
        reason: why one of them is null; null where none is.
    """

    value: Share | None
    soft: Share | None
    interval: Ends | None
    reason: str | None


class Regions(TypedDict):
    """QI by region.

    Attributes:
        volume: the whole box that the run judges.
        heart: the mask and what lies within 10 mm of it.
    """

    volume: QualityIndicator
    heart: QualityIndicator


class StructureCorrection(TypedDict):
    """Whether one structure was corrected, and why.

    Attributes:
        applied: whether it was changed, which is where its Dice is expected to gain.
        gain_expected: in its Dice; null where it was left alone.
        reason: in plain words.
    """

    applied: bool
    gain_expected: float | None
    reason: str


class JudgedStructure(TypedDict):
    """One structure of the mask.

    Attributes:
        name: for people.
        dice_expected: against the truth; null without label head, and for a structure that is not in the mask and
            hardly expected at all.
        dice_interval: for the true Dice, of the confidence above; null where the run has too few unseen masks like it.
        reason: why one of them is null; null where none is.
        volume_ml: in the mask.
        volume_ml_corrected: in the corrected mask; the same where no correction is applied.
        wrong_share: of its voxels in the error map; null where it is not in the mask.
        dice_opinion: of the mask with the most probable labels of the second opinion; null without opinion, and where
            neither has the structure.
        correction: whether it was corrected.
    """

    name: str
    dice_expected: Share | None
    dice_interval: Ends | None
    reason: str | None
    volume_ml: Size
    volume_ml_corrected: Size
    wrong_share: Share | None
    dice_opinion: Share | None
    correction: StructureCorrection


class Place(TypedDict):
    """A connected piece of voxels that are more probably wrong than right, or look more wrong than right masks do.

    Attributes:
        ml: its volume.
        structure: that the mask gives most of it to; null for background, where something is missing.
        voxel: in its middle, indices of the scan's own grid.
        certainty: the highest suspicion that a connected part of at least 1 ml reaches everywhere. Suspicion is P
            before the mask as a whole is weighed.
    """

    ml: Size
    structure: str | None
    voxel: list[int]
    certainty: Share


class Outside(TypedDict):
    """What the run says nothing about.

    Attributes:
        mask_share: of the mask's voxels, outside the box that the run judges.
    """

    mask_share: Share


class Unfamiliar(TypedDict):
    """A number of scan or mask that is unlike all of the run's own cases.

    Attributes:
        feature: see `whqa.results.features`.
        value: of this scan and mask, in the feature's unit.
        low, high: between which it would be familiar.
        message: a sentence.
    """

    feature: str
    value: float
    low: float
    high: float
    message: str


class MeasuredGain(TypedDict):
    """What correction did to the run's unseen masks.

    Attributes:
        n: masks.
        final: whether they are the segmenters' final masks alone; false where the run has none and all kinds count.
        dice_before, dice_after: mean over masks of the mean Dice over structures.
        gain: mean change of a mask's mean Dice.
        ci95: 95 % interval of `gain` by patient; null where there are too few.
        improved_share: of the masks that became better.
    """

    n: int
    final: bool
    dice_before: float
    dice_after: float
    gain: float
    ci95: Ends | None
    improved_share: Share


class Correction(TypedDict):
    """Whether the mask was corrected, and what changed.

    Attributes:
        applied: whether corrected_mask.nii.gz may differ from the mask, see each structure's own `correction`.
        reason: why it is applied or not.
        threshold: probability of another label from which on a voxel may change; null where masks are left alone.
        out_of_fold: what it did to the unseen masks; null where that could not be measured.
        changed_voxels: of the scan's own grid.
        changed_ml: their volume.
    """

    applied: bool
    reason: str
    threshold: float | None
    out_of_fold: MeasuredGain | None
    changed_voxels: int
    changed_ml: Size


class DecisionRisk(TypedDict):
    """What became of the unseen masks that got one decision, under rules chosen without their fold.

    Attributes:
        n: masks.
        bad: how many of them were bad.
        rate: share of bad ones, each patient counting once; null where no mask got this decision.
        ci95: 95 % interval of `rate` (Clopper-Pearson); null where no mask got this decision.
    """

    n: int
    bad: int
    rate: Share | None
    ci95: Ends | None


class Risk(TypedDict):
    """How often decisions were wrong on the run's unseen masks.

    Attributes:
        bad_if: what a bad mask is.
        accept, review, reject: by decision.
    """

    bad_if: str
    accept: DecisionRisk
    review: DecisionRisk
    reject: DecisionRisk


class Verdict(TypedDict):
    """What to do with the mask.

    Attributes:
        decision: "review" is for a person.
        reasons: sentences, the decisive one first: the doubts, where the score alone would accept, else the score.
        score: that the rule looks at, the mean of the expected Dice over structures, or QI over the heart without label
            head; null where no structure is expected, or the mask has no voxel on the run's grid.
        rule: in words.
        accept_from: score from which on masks are accepted; null where the unseen masks allow no such score.
        reject_below: score below which masks are rejected; null where the unseen masks allow no such score.
        certainty: of the surest place, for the middle one of the networks: the highest suspicion that a connected piece
            of 1 ml reaches everywhere.
        doubt_above: a higher certainty forbids to accept; where there are enough patients, at most one in ten of
            those whose unseen masks have no error has one.
        risk: of this rule, measured.
    """

    decision: Literal["accept", "review", "reject"]
    reasons: list[str]
    score: Share | None
    rule: str
    accept_from: float | None
    reject_below: float | None
    certainty: Share
    doubt_above: Share
    risk: Risk


class Seconds(TypedDict):
    """What took how long.

    Attributes:
        read: to read and check image and mask.
        predict: to bring them to the run's grid and to judge them.
        total: everything but the writing of files.
    """

    read: Size
    predict: Size
    total: Size


class QualityJson(TypedDict):
    """What is known about one mask after it was judged: the content of quality.json.

    Attributes:
        case: its name.
        confidence: of the intervals.
        image: the scan.
        mask: under judgement.
        model: the run that judged.
        opinion: whose second opinion its networks heard; null where they hear none.
        error_map: its threshold.
        qi: how right the mask looks, by region.
        structures: key such as "lv" -> what is known of it, in the order of the run's scheme; of a mask that has the
            heart as one structure "heart" and the vessels that it has.
        places: where the mask is more probably wrong than right, the largest first; none is smaller than 1 ml.
        work: what there is to correct, smaller pieces as well.
        outside: what nothing is said about.
        warnings: sentences about the input, and about what could not be checked.
        out_of_distribution: what is unlike the run's own cases, the strangest first; where there is any, no figure need
            hold and the mask is not accepted.
        correction: what was corrected.
        verdict: what to do.
        versions: that computed all this.
        seconds: that it took.
    """

    case: str
    confidence: Share
    image: GivenImage
    mask: GivenMask
    model: JudgingRun
    opinion: OpinionSource | None
    error_map: ErrorMapThreshold
    qi: Regions
    structures: dict[str, JudgedStructure]
    places: list[Place]
    work: Work
    outside: Outside
    warnings: list[str]
    out_of_distribution: list[Unfamiliar]
    correction: Correction
    verdict: Verdict
    versions: Environment
    seconds: Seconds


@dataclass(frozen=True, eq=False)
class Assessment:
    """The verdict on one mask; arrays lie on the input's own grid (X, Y, Z).

    Attributes:
        name: of the case, for titles and files.
        scheme: of the run; label arrays hold its indices 0..C.
        image: float32 (X, Y, Z) as in the file.
        mask: under judgement, uint8.
        corrected: uint8; equal to the mask where correction is not applied.
        error_probability: P, float32 in [0, 1]; 0 outside the box that was judged.
        error_map: predicted errors, bool.
        affine: (4, 4), voxel -> RAS mm.
        header: of the image's file, or None.
        quality: the content of quality.json.
        population: the run's own out-of-fold masks, for comparison: one dict a mask with case, mask_kind, acc_volume,
            qi_volume, acc_heart, qi_heart, mean_dice, mean_dice_predicted (None where there is none).
        corrected_values: the corrected mask in the values and type of the mask's own file.
        opinion: most probable labels of the second opinion, uint8, 0 outside the box that was judged; None without.
        dicom: of an image that was a DICOM series: what results need to be written as DICOM, of `whqa.data.dicom`.
        box: voxels that were judged, a slice an axis; None for all.
    """

    name: str
    scheme: LabelScheme
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    corrected: npt.NDArray[np.uint8]
    error_probability: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header | None
    quality: QualityJson
    population: tuple[dict[str, Any], ...] = ()
    corrected_values: npt.NDArray[np.integer] | None = None
    opinion: npt.NDArray[np.uint8] | None = None
    dicom: Any = None
    box: tuple[slice, slice, slice] | None = None

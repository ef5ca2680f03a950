"""What the words and numbers of a summary mean, for its page."""

from __future__ import annotations

from whqa.metrics.error_places import OVERLAP, SMALLEST_ML
from whqa.quality import LOWEST_DICE
from whqa.results import bootstrap
from whqa.results.reliability import FEWEST_IN_BIN, MOST_BINS
from whqa.results.triage import BAD_DICE

DEFINITIONS: dict[str, str] = {
    "error map": "E = [M ≠ G], M the mask under judgement and G the reference labels. A method predicts a probability "
    "P of E and a map Ê = [P ≥ τ]. Nothing is fitted on test cases: τ was chosen on training cases, or follows from "
    "the mask's own P (rule expected: the map whose Dice P, calibrated on training cases, lets expect to be best).",
    "error Dice": "2|E∩Ê| / (|E|+|Ê|) a case, then averaged; 1 where a case has no error and none is predicted. "
    "Pooled: from voxel counts summed over all cases.",
    "the network leads by": "the network's error Dice minus the method's, mask by mask, over masks that both judged. "
    "mask_shuffled, image_shuffled: the network itself, shown the mask or the image of another patient of the fold; of "
    "each family of mask kinds the first alone.",
    "error AUPRC": "average precision of P for E, a case, then averaged over the cases that have an error.",
    "Acc and QI": "Acc = 1 - mean(E). QI = 1 - mean(P) of a method whose P is calibrated (errormap, opinion, "
    "tta, ensemble), 1 - mean(Ê) of any other with a map; dice_regressor, which has none, regresses Acc. "
    'Soft QI = 1 - mean(P). Each over a region. Region "volume": '
    'the whole preprocessed crop around the heart. Region "heart": the mask\'s foreground dilated by 10 mm.',
    "PCC, Spearman, MAE": "Pearson and rank correlation of QI with Acc over masks, and the mean of |QI - Acc|. Beside "
    'each MAE stands that of a constant: the mean Acc of the training masks of the kind that is judged, in "all" of '
    "all kinds. The constant itself varies only between folds, so it has no correlation.",
    "parts": "final: only the segmenter's final masks. augmented: the segmenter's masks of the same images "
    "seen a little differently, or masks drawn from another program's softmax. mixed: the reference with the "
    "segmenter's errors in some regions. corrupted, novel: reference labels and final masks with faults "
    "put into them, of kinds that training had or never had. all: every kind, side outputs and early "
    "checkpoints as well; their wide range of quality alone raises PCC.",
    "places": f"connected pieces of at least {SMALLEST_ML:g} ml, of the true error map and of Ê. Found: of a mask's "
    f"wrong places, the share of which at least {100 * OVERLAP:.0f} % lies in places of Ê. False: places of Ê of which "
    f"less than {100 * OVERLAP:.0f} % is wrong, a mask.",
    "errors by size": "missing: wrong voxels that the reference gives to a structure of which the mask has none. Blob: "
    "of the others, where they are at least three voxels thick. Thin: the rest. Of each size the share of voxels that "
    "lie in Ê, and the share of places that are found.",
    "strata": "masks apart by what they truly are: reference (no wrong voxel), then by mean Dice over structures mild "
    f"(from {LOWEST_DICE['mild']} on), good (from {LOWEST_DICE['good']}), fair (from {LOWEST_DICE['fair']}) "
    "and bad. Bias: mean of QI - Acc. False alarms: of a mask's right voxels, the share that is called wrong."
    " Nobody knows the stratum of a new mask, so that a bias there cannot be taken off.",
    "reliability": "masks in bins of equal count by rising QI, with the mean of QI - Acc in each: 0 where QI can be "
    f"taken at its word. At most {MOST_BINS} bins, of {FEWEST_IN_BIN} masks and more.",
    "failure": "risk = 1 - mean Dice of the mask's structures. AURC: mean risk of the i most confident masks, averaged "
    "over i (lower is better); e-AURC: AURC minus that of the perfect order; AUROC: of \"a structure's Dice is"
    f' below {BAD_DICE}" by minus the confidence. By structure: of "this structure\'s Dice is below {BAD_DICE}"'
    " by minus its expected Dice, or minus the confidence where a method expects none; a structure that is "
    "not expected to be there counts as trusted.",
    "confidence": "what a method ranks masks by: QI over the volume or the heart, hard or soft, the expected mean Dice "
    "or the lowest expected Dice of a structure. Of opinion, tta and ensemble also the mean Dice of the mask with the "
    "opinion's (of ensemble: with the vote, the most probable labels by the mean of all), and of ensemble the mean "
    "Dice of each two segmenters' masks, the same for all masks of a case. Each fold votes for the one with the lowest "
    "AURC on the final "
    "masks of the other folds; the majority's is used on all masks. Where all folds agree, no mask is ranked "
    "by a score that it helped to choose; else the optimism says what the choice may have taken off the AURC:"
    " within folds, AURC by the fold's own vote minus AURC by the majority's.",
    "95 % interval": f"percentile bootstrap by patient, {bootstrap.N_RESAMPLES} resamples; one patient's masks stay "
    "together.",
    "seconds per case": "wall clock of one prediction on the machine that ran the fold.",
}


SPLIT_DEFINITIONS: dict[str, str] = {
    "error Dice by structure": "error Dice among the voxels that the mask or the reference gives to the structure. A "
    "false alarm there counts for it, one in the background for none; a structure that neither has is left out.",
    "correction": "the label head's most probable other label wherever it is probable enough, in structures whose Dice "
    "is expected to gain enough; both thresholds are the best of those that, on held-back training cases, harm masks "
    "of no quality. Where none is, the mask is left alone. Gain: a mask's "
    "mean Dice after minus before, both over the structures that have a Dice before or after. One that mask and "
    "reference lack counts 1 there, as they agree: a structure that the correction invents costs 1 / (number of "
    "structures). By structure, only masks in which it has a Dice before and after count.",
    "intervals for Acc and Dice": "for the true Acc given QI and a structure's true Dice given the expected one, by "
    "conformal prediction conditional on the truth: every truth is kept of which the prediction is a usual one, as the "
    "masks of about that truth tell. So perfect, good and bad masks are covered alike, in whatever mixture they come. "
    "Measured: the masks of a fold got their intervals from those of the other folds, all kinds together.",
    "place by QI": "1 for the mask with the lowest QI over the volume among those that somebody would use: the place "
    "at which it is met by who looks at the masks in this order.",
}


EXTERNAL_DEFINITIONS: dict[str, str] = {
    "masks of other programs": "masks that another program or a person made of the same images: a kind of their own, "
    "and part of all. That their maker had not seen these cases' references is the word of whoever ran this. They come "
    "without a segmenter's entropy, so the baseline entropy does not judge them, nor count them in all. Where no "
    "segmenter was trained, they take the place of final masks in what corrupted, novel and mixed ones are made of.",
}

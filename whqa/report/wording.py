"""From quality.json to sentences that somebody who knows hearts, but not this program, can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite
from typing import Any

from whqa.contract.quality_json import JudgedStructure, QualityJson
from whqa.masks.plan import is_delivered
from whqa.results.triage import TriageRule, surest_place_words

HEADLINES = {
    "accept": ("✓", "Accept", "No large error is expected in this mask."),
    "review": ("!", "Review", "A person should look at this mask before it is used."),
    "reject": ("✕", "Reject", "This mask should not be used as it is."),
}
BADGES = {"reject": "bad", "review": "watch", "accept": "good"}
# From here on a structure is named among the doubtful ones.
DOUBTFUL_DICE, DOUBTFUL_SHARE = 0.8, 0.1
_NAMED = 3
# Of a digit: what sums of binary fractions leave.
_EXACT = 1e-6
_OUTCOME = {"accept": "accepted", "reject": "rejected", "review": "sent to review"}


def percent(share: float, digits: int = 1) -> str:
    """A share as people read it; what is not all is never rounded to all, what is something never to nothing."""
    text = f"{100 * share:.{digits}f}"
    least = 10.0**-digits
    if float(text) >= 100 and share < 1:
        return f"over {100 - least:.{digits}f} %"
    if float(text) <= 0 and share > 0:
        return f"under {least:.{digits}f} %"
    return f"{text} %"


def percents(interval: Sequence[float], digits: int = 1) -> str:
    """An interval of shares: "86.0 to 95.1 %", its ends rounded outwards, so that it is never said to be narrower."""
    unit = 10.0 ** (2 + digits)
    low, high = floor(interval[0] * unit + _EXACT) / unit, ceil(interval[1] * unit - _EXACT) / unit
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"


def confidence_words(confidence: float) -> str:
    """A confidence as it was stated: "90 %", "97.5 %"."""
    return f"{100 * confidence:g} %"


def time_words(minutes: float) -> str:
    """Minutes as people say them: "4 min", "2 h 10 min"."""
    whole = max(1, round(minutes)) if minutes > 0 else 0
    hours, rest = divmod(whole, 60)
    return f"{rest} min" if not hours else f"{hours} h {rest} min" if rest else f"{hours} h"


def what_is_wrong(quality: QualityJson) -> list[str]:
    """How much looks wrong, and in which structures."""
    heart = quality["qi"]["heart"]
    sentences = [_wrong_share(heart)]
    missing = [s["name"] for s in quality["structures"].values() if not s["volume_ml"]]
    if missing:
        sentences.append(f"The mask holds no {listed(missing, 'and no')}.")
    doubtful = doubtful_structures(quality)
    if doubtful:
        words = [f"{s['name']} ({_doubt(s)})" for s in doubtful[:_NAMED]]
        sentences.append(f"{'Worst' if len(doubtful) > 1 else 'In doubt'}: {listed(words)}.")
    elif not missing and heart["value"] is not None:
        sentences.append("No structure stands out.")
    return [*sentences, *_surest_place(quality)]


def _surest_place(quality: QualityJson) -> list[str]:
    """The place that forbids to accept, if one does; all of them are listed among the pieces to correct."""
    verdict = quality["verdict"]
    if not quality["places"] or verdict["certainty"] <= verdict["doubt_above"]:
        return []
    return [f"Surest to be wrong: a piece of {surest_place_words(quality['places'], quality['structures'])}."]


def how_sure(quality: QualityJson) -> list[str]:
    """Interval for the truth, measured risk of the verdict, and whether both can be relied on here."""
    heart, confidence = quality["qi"]["heart"], confidence_words(quality["confidence"])
    if heart["interval"]:
        sentences = [
            f"In truth {percents(heart['interval'])} of the voxels there are right, with {confidence} confidence."
        ]
    else:
        sentences = [sentence(f"no interval can be given: {heart.get('reason') or 'the run gives no reason'}")]
    if heart["value"] is None:
        # rejected for that, and by no rule whose risk is known
        return sentences
    risk, measured = _risk(quality["verdict"])
    sentences.append(risk)
    figures = bool(heart["interval"]) + measured
    if quality.get("out_of_distribution"):
        sentences.append(
            "This scan or mask is unlike those that the run was trained on (see the warnings), so these figures may be "
            "off in either direction."
        )
    elif figures:
        holds = "Both figures hold" if figures > 1 else "This figure holds"
        sentences.append(f"{holds} for scans and masks like those of the run.")
    return [s for s in sentences if s]


def opinion_words(quality: Mapping[str, Any]) -> str:
    """What the column of the second opinion compares the mask with."""
    given = quality.get("opinion")
    if not given:
        return "no second opinion was heard"
    if given["source"] == "segmenters":
        return "overlap of the mask with what the run's own segmenters would have drawn"
    return f"overlap of the mask with what is most probable to {given['program']}, whose probabilities were given"


def error_map_words(quality: QualityJson) -> str:
    """From which probability on a voxel counts as wrong, and why from there."""
    threshold, rule = quality["error_map"]["threshold"], quality["error_map"]["rule"]
    if threshold > 1:
        return "No voxel counts as wrong: not even half a voxel of this mask is expected to be wrong."
    why = {
        "expected": "for this mask alone, where the map is expected to agree best with the true errors",
        "dice": "for all masks alike, as chosen on training cases that the networks had not been trained on",
    }[rule]
    return f"The voxels that look wrong: those with an error probability of at least {percent(threshold)}, set {why}."


def what_to_do(quality: QualityJson) -> list[str]:
    """Advice that goes with the verdict."""
    decision = quality["verdict"]["decision"]
    first = [s["name"] for s in doubtful_structures(quality)[:_NAMED]]
    look = f", {listed(first)} first" if first else ""
    sentences = {
        "accept": ["Look over the slices below once, as with every mask."],
        "review": [f"Compare mask and image in the slices below{look}. Correct what is wrong, or segment again."],
        "reject": [
            f"Segment again, with other settings or another program, or draw by hand what is wrong{look}; the slices "
            "below show where."
        ],
    }[decision]
    if quality["correction"]["applied"] and quality["correction"]["changed_voxels"]:
        sentences.append("A corrected mask lies beside this page; look at it before you use it.")
    return sentences


def correction_words(quality: QualityJson) -> list[str]:
    """Whether the mask was corrected, how much changed, and what that did on the run's own masks."""
    correction = quality["correction"]
    if not correction["applied"]:
        return [sentence(correction["reason"])]
    if not correction["changed_voxels"]:
        done = "No voxel of this mask needed another label."
    else:
        done = f"{correction['changed_voxels']:,} voxels ({correction['changed_ml']:.1f} ml) have another label now."
    known = correction.get("out_of_fold")
    if not known:
        return [done, sentence(correction["reason"])]
    interval = known.get("ci95")
    reach = f", 95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}" if interval else ""
    return [
        done,
        f"On {known['n']:,} of the run's own {'final masks' if known['final'] else 'masks'} (of scans that the "
        f"networks had not seen), whose mean Dice was {known['dice_before']:.3f}, correction changed it to "
        f"{known['dice_after']:.3f} ({known['gain']:+.3f}{reach}) and made {percent(known['improved_share'], 0)} of "
        "these masks better.",
    ]


def doubtful_structures(quality: QualityJson) -> list[JudgedStructure]:
    """Structures of the mask with a low expected Dice or many voxels that look wrong, worst first."""
    there = [s for s in quality["structures"].values() if s["volume_ml"]]
    doubtful = [
        s
        for s in there
        if (s["dice_expected"] is not None and s["dice_expected"] < DOUBTFUL_DICE)
        or (s["wrong_share"] or 0) >= DOUBTFUL_SHARE
    ]
    return sorted(doubtful, key=_trust)


def listed(words: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b" or "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _wrong_share(heart: Mapping[str, Any]) -> str:
    if heart["value"] is None:
        return sentence(f"{heart['reason']}, so nothing can be said of the voxels in and around the heart")
    wrong = 1 - heart["value"]
    if wrong > 0:
        return f"{sentence(percent(wrong))[:-1]} of the voxels in and around the heart look wrong."
    return "No voxel in or around the heart looks wrong."


def _trust(structure: Mapping[str, Any]) -> float:
    dice = structure["dice_expected"]
    return float(1 - (structure["wrong_share"] or 0) if dice is None else dice)


def _doubt(structure: Mapping[str, Any]) -> str:
    words = []
    if structure["dice_expected"] is not None:
        words.append(f"expected Dice {structure['dice_expected']:.2f}")
    if structure["wrong_share"] is not None:
        words.append(f"{percent(structure['wrong_share'], 0)} of its voxels look wrong")
    return ", ".join(words)


def _risk(verdict: Mapping[str, Any]) -> tuple[str, bool]:
    """What became of the run's own masks of such a score, and whether that is known: doubts have no part in it."""
    score = verdict["score"]
    rule = TriageRule(verdict["accept_from"], verdict["reject_below"])
    by_score = verdict["decision"] if score is None else rule.decide(score)
    outcome, risk = _OUTCOME[by_score], verdict.get("risk") or {}
    doubted = by_score != verdict["decision"]
    known = risk.get(by_score)
    if not known or not known["n"]:
        return f"None of the run's own masks was {outcome}, so the risk of this verdict is not known.", False
    bad = f", where bad means: {risk['bad_if']}" if risk.get("bad_if") else ""
    interval = f", 95 % interval {percents(known['ci95'])}" if known.get("ci95") else ""
    lead = f"By its score alone the mask would be {outcome}; of" if doubted else "Of"
    return (
        f"{lead} the run's own masks that the score had {outcome}, {known['bad']} of {known['n']} were bad "
        f"({percent(known['rate'])} where each patient counts once{interval}){bad}."
    ), True


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def rank_words(population: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]) -> str:
    """How many of the run's own final masks got a lower QI over the heart; nothing where this one has none.

    In a run without segmenters, how many of the other programs' masks.
    """
    final = [r for r in population if r["mask_kind"] == "final"]
    usual = final or [r for r in population if is_delivered(str(r["mask_kind"]))]
    known = [float(v) for r in usual if (v := r.get("qi_heart")) is not None and isfinite(v)]
    what = "final masks" if final else "masks of other programs"
    value = quality["qi"]["heart"]["value"]
    if not known or value is None:
        return ""
    lower = sum(v < value for v in known)
    return f"{lower} of the run's {len(known)} {what} got a lower QI over the heart than this one."

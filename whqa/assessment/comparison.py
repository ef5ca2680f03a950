"""What got better: the assessments of the same scans before and after their masks were corrected."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.assessment.output_folder import PROBABILITY, QUALITY, TABLE
from whqa.contract.comparison_json import ChangedNumber, ComparedAssessments, ComparedCase
from whqa.errors import InputError
from whqa.files import read_json, reading
from whqa.metrics.error_places import MORE_PROBABLY_WRONG
from whqa.metrics.segmentation import paired_mean_dice
from whqa.results.correction_time import CorrectionTime
from whqa.results.mean_dice import expected_mean_dice

COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.html"
_OURS = frozenset({"case", "image", "model", "qi", "structures", "verdict"})
_NAMED = 3

Judged = Mapping[str, tuple[Path, Mapping[str, Any]]]


def compare_assessments(before: Path, after: Path, time: CorrectionTime) -> ComparedAssessments:
    """Compare case by case; cases that are in one folder only are named.

    Args:
        before: output folder of `whqa assess`, of one case or of a batch.
        after: the same of the corrected masks.
        time: that corrections take.

    Raises:
        InputError: a folder is none of `whqa assess`, or they are not of the same scans, judged by the same networks.
    """
    if before.resolve() == after.resolve():
        raise InputError(f"{after}: is compared with itself; give the folders of the masks before and after correction")
    first, second = _judged(before), _judged(after)
    _refuse_ambiguous(first, second)
    names = [name for name in first if name in second]
    if not names:
        raise InputError(
            f"{before} and {after}: no case is in both ({_some(first)}; {_some(second)}); compare masks of one and "
            "the same scans"
        )
    for name in names:
        _refuse_strangers(name, first[name], second[name])
    cases = [_case(name, first[name], second[name], time) for name in names]
    cases.sort(key=lambda case: -_gain(case))
    return {
        "before": str(before),
        "after": str(after),
        "run": str(first[names[0]][1]["model"]["run"]),
        "cases": cases,
        "only_before": [name for name in first if name not in second],
        "only_after": [name for name in second if name not in first],
        "qi_heart": _mean([case["qi_heart"] for case in cases]),
        "mean_dice": _mean([case["mean_dice"] for case in cases]),
        "minutes": _change(*(sum(float(c["minutes"][end] or 0) for c in cases) for end in ("before", "after"))),
    }


def _judged(folder: Path) -> Judged:
    """Case -> its folder and quality.json."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that `whqa assess ... -o` wrote")
    alone = (folder / QUALITY).is_file()
    cases: list[tuple[str, Path, Mapping[str, Any]]] = []
    places = [folder] if alone else sorted(path.parent for path in folder.glob(f"*/{QUALITY}"))
    for place in places:
        quality = read_json(place / QUALITY, "assess it again")
        if not isinstance(quality, dict) or not quality.keys() >= _OURS:
            raise InputError(f"{place / QUALITY}: is not what `whqa assess` writes; assess it again")
        if "work" not in quality:
            raise InputError(f"{place / QUALITY}: was written by an older version of whqa; assess it again")
        cases.append((str(quality["case"]), place, quality))
    if not cases:
        raise InputError(f"{folder}: holds no {QUALITY}; give the folder that `whqa assess ... -o` wrote")
    failed = _failed(folder)
    cases = [case for case in cases if case[0] not in failed]
    times = Counter(name for name, _, _ in cases)
    # of cases with one name, which a batch tells apart by their folders, these are the names
    return {name if times[name] == 1 else place.name: (place, quality) for name, place, quality in cases}


def _failed(folder: Path) -> set[str]:
    """Cases that the last batch into the folder could not judge: what stands there is of an earlier one."""
    try:
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            return {str(row["name"]) for row in csv.DictReader(file) if row.get("status") == "failed" and "name" in row}
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()


def _refuse_ambiguous(before: Judged, after: Judged) -> None:
    """Of cases with one name nobody knows which is which, unless both folders hold as many."""
    counts = [Counter(str(quality["case"]) for _, quality in judged.values()) for judged in (before, after)]
    for name in counts[0] & counts[1]:
        one, other = (count[name] for count in counts)
        if one != other:
            raise InputError(
                f"{name}: {one} case(s) of this name before and {other} after, so that nobody knows which is which; "
                "give them names of their own in a table with the columns name, image and mask, and assess them again"
            )


def _refuse_strangers(name: str, before: tuple[Path, Any], after: tuple[Path, Any]) -> None:
    (first, was), (second, now) = before, after
    if (was["image"]["sha256"], was["image"]["shape"]) != (now["image"]["sha256"], now["image"]["shape"]):
        raise InputError(
            f"{second}: {name} is of another image than in {first}; assess the corrected mask of that scan"
        )
    if (was["model"]["checkpoints"], list(was["structures"])) != (now["model"]["checkpoints"], list(now["structures"])):
        raise InputError(
            f"{second}: {name} was judged by other networks ({now['model']['run']}) than in {first} "
            f"({was['model']['run']}); assess both with the same --model"
        )


def _some(judged: Judged) -> str:
    names = list(judged)
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def _case(name: str, before: tuple[Path, Any], after: tuple[Path, Any], time: CorrectionTime) -> ComparedCase:
    (first, was), (second, now) = before, after
    (old, voxel_ml), (new, _) = (_wrong(place / PROBABILITY) for place in (first, second))
    wrong = (old, new)
    if wrong[0].shape != wrong[1].shape:
        raise InputError(f"{second / PROBABILITY}: lies on another grid than {first / PROBABILITY}; assess it again")
    gone = _changed_pieces(was["work"]["largest"], wrong[0], wrong[1])
    return {
        "case": name,
        "decision": {"before": was["verdict"]["decision"], "after": now["verdict"]["decision"]},
        "qi_heart": _change(was["qi"]["heart"]["value"], now["qi"]["heart"]["value"]),
        "qi_volume": _change(was["qi"]["volume"]["value"], now["qi"]["volume"]["value"]),
        "mean_dice": _paired(was["structures"], now["structures"]),
        "minutes": _change(time.minutes(was["work"]), time.minutes(now["work"])),
        "structures": {
            key: {
                "name": s["name"],
                "dice_expected": _change(s["dice_expected"], now["structures"][key]["dice_expected"]),
                "volume_ml": _change(s["volume_ml"], now["structures"][key]["volume_ml"]),
            }
            for key, s in was["structures"].items()
        },
        "vanished": gone,
        "appeared": _changed_pieces(now["work"]["largest"], wrong[1], wrong[0]),
        "left": len(was["work"]["largest"]) - len(gone),
        "left_ml": int((wrong[0] & wrong[1]).sum()) * voxel_ml,
    }


def _wrong(path: Path) -> tuple[npt.NDArray[np.bool_], float]:
    """Where P >= 0.5, and the volume of a voxel in ml."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file, and without it nobody knows which places are right now; assess it again"
        )
    with reading(path, "an error probability", "assess it again"):
        image = nib.load(path)
        # of a sheared grid less than the product of its spacings
        voxel_ml = round(abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000, 12)
        return np.asarray(image.dataobj) >= MORE_PROBABLY_WRONG, voxel_ml


def _changed_pieces(pieces: Sequence[Any], here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> list[Any]:
    """The pieces of one map of which less than half is in the other."""
    if not pieces:
        return []
    labelled, n = ndimage.label(here)
    size = np.bincount(labelled.ravel(), minlength=n + 1)
    both = np.bincount(labelled[there], minlength=n + 1)
    numbers = [int(labelled[tuple(piece["voxel"])]) for piece in pieces]
    return [piece for piece, i in zip(pieces, numbers, strict=True) if 2 * both[i] < size[i]]


def _change(before: float | None, after: float | None) -> ChangedNumber:
    difference = None if before is None or after is None else float(after) - float(before)
    return {"before": before, "after": after, "difference": difference}


def _paired(was: Mapping[str, Any], now: Mapping[str, Any]) -> ChangedNumber:
    """Expected mean Dice over the same structures, see `paired_mean_dice`."""
    keys = list(was)
    dice = [np.array([s[key]["dice_expected"] for key in keys], dtype=float) for s in (was, now)]
    if any(np.isnan(of_side).all() for of_side in dice):
        return _change(expected_mean_dice(was), expected_mean_dice(now))
    before, after = paired_mean_dice(*dice)
    return _change(float(before), float(after))


def _mean(changes: Sequence[ChangedNumber]) -> ChangedNumber:
    known = [(c["before"], c["after"]) for c in changes if c["difference"] is not None]
    if not known:
        return _change(None, None)
    before, after = np.mean(np.asarray(known, float), axis=0)
    return _change(float(before), float(after))


def _gain(case: ComparedCase) -> float:
    dice = case["mean_dice"]["difference"]
    return (case["qi_heart"]["difference"] or 0.0) if dice is None else dice

"""Whether a scan and its mask look like those of the run that is to judge them.

Every run keeps `errormap/<fold>/features.csv`: the numbers of `whqa.results.features` for each of its cases with a
mask of a segmenter that never saw the case, and with its reference. A number is unfamiliar where it lies outside of
Tukey's outer fences of the run's own cases, more than 3 interquartile ranges beyond the quartiles (Exploratory Data
Analysis, 1977, ch. 2): for a normal distribution that happens to one number in 400,000. The fences reach at least as
far as the cases but for 2.5 % of them on either side (of fewer than 40: but for one), so that a minority with another
protocol is known, and at least from the masks to the references, so that a mask better than those of the run's own
segmenters is known too. Sizes, counts and spacings are compared on a logarithmic scale. Cohorts in which all scans are
alike have an interquartile range of 0; each kind of number has a least one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whqa.contract.quality_json import Unfamiliar
from whqa.files import reading
from whqa.masks.run_state import made_again
from whqa.structures import STRUCTURES

FeatureTable = Mapping[str, npt.NDArray[np.float64]]
FeatureRow = Mapping[str, str]

FEATURES_FILE = "features.csv"
REFERENCE = "reference"
IDENTITY = ("case", "fold", "patient", "modality", "mask_kind")
# Quartiles of fewer cases say nothing.
MIN_CASES = 10
_FENCE = 3.0
_OF_THE_MASK = ("size of the heart", "size", "shape")
_TAIL = 0.025


@dataclass(frozen=True)
class Family:
    """What is common to one kind of number.

    Attributes:
        what: for people, a noun phrase; {s} is the structure's name.
        topic: of several numbers with one topic (and structure) only the strangest is reported.
        unit: behind the number.
        least_iqr: the smallest interquartile range that is believed: on a logarithmic scale a share, else in units.
        logarithmic: whether ratios count, not differences; `at_least` is then the smallest value that counts.
        at_least, at_most: what the number can be.
        low_only, high_only: whether only small or only large numbers are strange.
    """

    what: str
    topic: str
    unit: str = ""
    least_iqr: float = 0.05
    logarithmic: bool = False
    at_least: float = -math.inf
    at_most: float = math.inf
    low_only: bool = False
    high_only: bool = False


def _grey(what: str, topic: str) -> Family:
    return Family(f"{what} (grey values from -1, dark, to 1, bright)", topic, "", 0.03, False, -1.0, 1.0)


def _offset(towards: str) -> Family:
    return Family(f"the place of the {{s}} from the middle of the heart towards the {towards}", "place", " mm", 3.0)


FAMILIES: dict[str, Family] = {
    "pixel_mm": Family("the finest voxel spacing", "spacing", " mm", 0.05, True, 1e-3),
    "slice_mm": Family("the coarsest voxel spacing", "spacing", " mm", 0.05, True, 1e-3),
    "fov_lr_mm": Family("the field of view from left to right", "field of view", " mm", 0.05, True, 1e-3),
    "fov_ap_mm": Family("the field of view from front to back", "field of view", " mm", 0.05, True, 1e-3),
    "fov_si_mm": Family("the field of view from foot to head", "field of view", " mm", 0.05, True, 1e-3),
    "voxels": Family("the number of voxels", "voxels", "", 0.15, True, 1),
    "inside_p05": _grey("the brightness of the darkest twentieth of the heart", "brightness of the heart"),
    "inside_p25": _grey("the brightness of the darker quarter of the heart", "brightness of the heart"),
    "inside_p50": _grey("the median brightness of the heart", "brightness of the heart"),
    "inside_p75": _grey("the brightness of the brighter quarter of the heart", "brightness of the heart"),
    "inside_p95": _grey("the brightness of the brightest twentieth of the heart", "brightness of the heart"),
    "outside_p05": _grey("the brightness of the darkest twentieth around the heart", "brightness around the heart"),
    "outside_p50": _grey("the median brightness around the heart", "brightness around the heart"),
    "outside_p95": _grey("the brightness of the brightest twentieth around the heart", "brightness around the heart"),
    "noise": Family("the noise of the image (on a grey scale from -1 to 1)", "noise", "", 0.1, True, 1e-3),
    "explained": Family(
        "how well the mask's structures match the brightness of the image (1 is best)",
        *("match", "", 0.03, False, 0, 1, True),
    ),
    "edge": Family(
        "how sharp the image is at the mask's borders (1 is as elsewhere)", "match", "", 0.05, True, 1e-2, 100, True
    ),
    "heart_ml": Family("the volume of the whole mask", "size of the heart", " ml", 0.05, True, 0.1),
    "volume": Family("the volume of the {s}", "size", " ml", 0.05, True, 0.1),
    "share": Family("the share of the {s} in the heart", "size", "", 0.1, True, 1e-3, 1),
    # one piece is as it should be, even where the run's own segmenters never got there
    "components": Family("the number of separate pieces of the {s}", "shape", "", 0.3, True, 1, high_only=True),
    "roughness": Family("the roughness of the {s}'s surface (a ball's is 1.5)", "shape", "", 0.05, True, 1),
    "contrast": Family("how much brighter the {s} is than the rest of the heart", "contrast", "", 0.03, False, -2, 2),
    "offset_lr": _offset("patient's right"),
    "offset_ap": _offset("front"),
    "offset_si": _offset("head"),
}


def read_features(run: Path) -> tuple[FeatureRow, ...]:
    """The rows of the tables of all folds of a run; nothing where it has no such tables.

    Args:
        run: runs/<experiment>.

    Raises:
        InputError: a table is damaged.
    """
    return tuple(row for path in sorted((run / "errormap").glob(f"*/{FEATURES_FILE}")) for row in _rows(path))


def feature_table(of_run: Iterable[FeatureRow], modality: str | None = None) -> dict[str, npt.NDArray[np.float64]]:
    """The numbers of a run's own cases, all folds together: (n,) for each feature, nan where a case has none.

    Those of the references stand behind, as "reference <feature>", where the run kept them.

    Args:
        of_run: see `read_features`.
        modality: "ct" or "mr" takes cases of that modality alone.

    Returns:
        Nothing where there are no rows, or none of that modality.
    """
    rows = [row for row in of_run if modality in (None, row["modality"])]
    masks = [row for row in rows if row["mask_kind"] != REFERENCE]
    references = [row for row in rows if row["mask_kind"] == REFERENCE]
    names = [name for name in rows[0] if name not in IDENTITY] if rows else []
    table = {name: np.array([_number(row.get(name)) for row in masks]) for name in names}
    return table | {
        f"{REFERENCE} {name}": np.array([_number(row.get(name)) for row in references])
        for name in (names if references else [])
    }


def unchecked(table: FeatureTable) -> str | None:
    """Why a run's numbers are not enough to tell what is unfamiliar; None where they are."""
    cases = max((values.size for values in table.values()), default=0)
    if not cases:
        return (
            "Whether the scan is like those of the run could not be checked: the run has no errormap/*/features.csv "
            "for this modality. An older run gets it from `whqa train ... stage=errormap fold=K fit=false`"
        )
    if cases < MIN_CASES:
        return (
            f"Whether the scan is like those of the run could not be checked: the run has {cases} case(s), "
            f"at least {MIN_CASES} are needed"
        )
    return None


def unfamiliar(features: Mapping[str, float], table: FeatureTable) -> list[Unfamiliar]:
    """What is unlike all of a run's own cases, the strangest first; of one topic only the strangest.

    Args:
        features: of the scan and its mask, see `whqa.results.features.features`.
        table: see `feature_table`.

    Returns:
        Empty where `unchecked(table)` has a reason.
    """
    if unchecked(table):
        return []
    found: dict[tuple[str, str], tuple[float, Unfamiliar]] = {}
    empty = features.get("heart_ml") == 0
    for name in features:
        base, structure = _parsed(name)
        if name not in table or (empty and base == "volume"):
            continue
        known = [table[name], _references(table, name)]
        strangeness, entry = _compared(name, float(features[name]), known, FAMILIES[base])
        topic = (FAMILIES[base].topic, structure)
        if entry and (topic not in found or strangeness > found[topic][0]):
            found[topic] = strangeness, entry
    return [entry for _, entry in sorted(found.values(), key=lambda pair: -pair[0])]


def _references(table: FeatureTable, name: str) -> npt.NDArray[np.float64]:
    return table.get(f"{REFERENCE} {name}", np.empty(0))


def _compared(
    name: str, value: float, tables: Sequence[npt.NDArray[np.float64]], family: Family
) -> tuple[float, Unfamiliar | None]:
    """How many interquartile ranges the value lies beyond the fences of all tables, and what to say if it does."""
    _, structure = _parsed(name)
    finite = [known[np.isfinite(known)] for known in tables]
    enough = [known for known in finite if known.size >= MIN_CASES]
    if not math.isfinite(value) or not enough:
        return 0.0, None
    lows, highs, iqrs = zip(*(_fences(_scaled(known, family), family.least_iqr) for known in enough), strict=True)
    low, high, iqr = min(lows), max(highs), max(iqrs)
    known = np.concatenate(enough)
    scaled = _scaled(known, family)
    if family.low_only:
        high = float(_scaled(np.array([family.at_most]), family)[0])
    if family.high_only:
        low = float(_scaled(np.array([family.at_least]), family)[0])
    place = float(_scaled(np.array([value]), family)[0])
    strangeness = max(low - place, place - high) / iqr
    if strangeness <= 0:
        return 0.0, None
    message = _message(family, structure, value, known[(scaled >= low) & (scaled <= high)])
    edges = _unscaled(low, family), _unscaled(high, family)
    return strangeness, Unfamiliar(feature=name, value=value, low=edges[0], high=edges[1], message=message)


def _fences(known: npt.NDArray[np.float64], least_iqr: float) -> tuple[float, float, float]:
    """Lower fence, upper fence and interquartile range of the values (n,)."""
    first, third = (float(q) for q in np.percentile(known, [25, 75]))
    iqr = max(third - first, least_iqr)
    tail = math.ceil(_TAIL * known.size)
    ordered = np.sort(known)
    low, high = float(ordered[tail]), float(ordered[-1 - tail])
    return min(first - _FENCE * iqr, low), max(third + _FENCE * iqr, high), iqr


def _message(family: Family, structure: str, value: float, known: npt.NDArray[np.float64]) -> str:
    """A sentence with the range of the run's cases but for those beyond the fences."""
    title = STRUCTURES[structure].name if structure in STRUCTURES else structure
    least, most = _text(float(known.min())), _text(float(known.max()))
    usual = f"{least}{family.unit}" if least == most else f"{least} to {most}{family.unit}"
    if family.unit == " ml" and not value:
        missing = f"the {title}" if structure else "everything"
        return f"{_capital(missing)} is missing from the mask; the run's own cases have {usual}."
    what = _capital(family.what.format(s=title))
    return f"{what} is {_text(value)}{family.unit}; in the run's own cases it is {usual}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _parsed(name: str) -> tuple[str, str]:
    """ "volume_lv" -> ("volume", "lv"); "noise" -> ("noise", "")."""
    if name in FAMILIES:
        return name, ""
    base = max((f for f in FAMILIES if name.startswith(f"{f}_")), key=len, default="")
    if not base:
        raise ValueError(f"no feature is called {name!r}")
    return base, name[len(base) + 1 :]


def _scaled(values: npt.NDArray[np.float64], family: Family) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(values, family.at_least)) if family.logarithmic else values


def _unscaled(place: float, family: Family) -> float:
    value = math.exp(place) if family.logarithmic else place
    return min(max(value, 0.0 if family.logarithmic else family.at_least), family.at_most)


def _text(value: float) -> str:
    # three digits would write the half that is missing to a thousand as 1e+03
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    # what sums of binary fractions leave of nothing
    return f"{value:.3g}" if abs(value) > 1e-9 else "0"


def _rows(path: Path) -> list[dict[str, str]]:
    with reading(path, "a table of features", made_again(path.parent)):
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, strict=True)
            rows = list(table)
        whole = set(IDENTITY) <= set(table.fieldnames or ())
        if not whole or any(None in (*row, *row.values()) for row in rows):
            raise ValueError("a column is missing, or a row is not whole")
        return rows


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan

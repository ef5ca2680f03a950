"""Where one case stands among the masks that the run judged with the truth at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whqa.masks.plan import family, is_delivered
from whqa.report.figures import PALETTE, STYLE, kind_markers
from whqa.report.slices import new_figure
from whqa.report.wording import confidence_words
from whqa.results.mean_dice import expected_mean_dice

THIS_CASE = "#D55E00"


def standing_figure(population: Sequence[Mapping[str, Any]], quality: Mapping[str, Any], part: str) -> Figure:
    """What was predicted against the truth, with the identity line and this case.

    Args:
        population: `Assessment.population`.
        quality: content of quality.json.
        part: "volume" or "heart" for QI against Acc, or "dice" for the mean Dice of the structures.
    """
    true, predicted, label, words = _AXES[part]
    value, interval = _this_case(quality, part)
    rows = [r for r in population if _is_number(r.get(true)) and _is_number(r.get(predicted))]
    kinds = sorted({_family(r) for r in rows}, key=lambda k: (k != "final", k))
    markers = kind_markers(kinds)
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 4.4)
        axis = figure.subplots()
        for kind in kinds:
            mine = [r for r in rows if _family(r) == kind]
            axis.plot(
                [r[true] for r in mine],
                [r[predicted] for r in mine],
                linestyle="none",
                marker=markers[kind],
                markersize=4.5,
                color=PALETTE[0],
                markerfacecolor=PALETTE[0] if kind == "final" else "none",
                alpha=0.75,
                label=kind,
            )
        _draw_case(axis, value, interval, quality["confidence"])
        everything = [float(v) for r in rows for v in (r[true], r[predicted])]
        everything += [v for v in (value, *(interval or ())) if v is not None]
        _square(axis, everything)
        axis.set(xlabel=f"{label[0]} ({words}), known truth", ylabel=f"{label[1]} ({words}), as predicted")
        with mpl.rc_context({"text.parse_math": False}):
            figure.legend(loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def rank_words(population: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]) -> str:
    """How many of the run's own final masks got a lower QI over the heart; nothing where this one has none.

    In a run without segmenters, how many of the other programs' masks.
    """
    final = [r for r in population if r["mask_kind"] == "final"]
    usual = final or [r for r in population if is_delivered(str(r["mask_kind"]))]
    known = [float(r["qi_heart"]) for r in usual if _is_number(r.get("qi_heart"))]
    what = "final masks" if final else "masks of other programs"
    value = quality["qi"]["heart"]["value"]
    if not known or value is None:
        return ""
    lower = sum(v < value for v in known)
    return f"{lower} of the run's {len(known)} {what} got a lower QI over the heart than this one."


_AXES = {
    "volume": ("acc_volume", "qi_volume", ("Acc", "QI"), "whole volume"),
    "heart": ("acc_heart", "qi_heart", ("Acc", "QI"), "heart"),
    "dice": ("mean_dice", "mean_dice_predicted", ("mean Dice", "expected mean Dice"), "all structures"),
}


def _family(row: Mapping[str, Any]) -> str:
    return family(str(row.get("mask_kind", "final")))


def _this_case(quality: Mapping[str, Any], part: str) -> tuple[float | None, Sequence[float] | None]:
    if part != "dice":
        found = quality["qi"][part]
        return found["value"], found.get("interval")
    return expected_mean_dice(quality["structures"]), None


def _draw_case(axis: Axes, value: float | None, interval: Sequence[float] | None, confidence: float) -> None:
    if value is None:
        return
    axis.axhline(value, color=THIS_CASE, linewidth=0.9, linestyle=":")
    if interval:
        axis.plot(
            interval, [value, value], color=THIS_CASE, linewidth=2.4, marker="|", markersize=11, markeredgewidth=2
        )
    label = f"this case, with its {confidence_words(confidence)} interval" if interval else "this case"
    # plotted without line: the line above belongs to it
    axis.plot([], [], color=THIS_CASE, linewidth=2.4, label=label)
    axis.plot([value], [value], linestyle="none", marker="*", markersize=13, color=THIS_CASE, markeredgecolor="black")


def _square(axis: Axes, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.05 * max(high - low, 0.01)
    axis.axline((low, low), slope=1, color="#444444", linewidth=0.8, linestyle="--")
    axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    axis.locator_params(nbins=5)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)

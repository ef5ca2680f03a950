"""Boxes over dots: one cluster a kind or structure, one colour and marker a method or state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whqa.masks.plan import MASK_KINDS
from whqa.report.figures import kind_legend, kind_points, method_colours
from whqa.report.slices import new_figure
from whqa.report.style import PALETTE, STYLE
from whqa.results.mean_dice import before_and_after
from whqa.results.tables import METHOD_ORDER, in_order, with_map
from whqa.structures import STRUCTURES

Values = npt.NDArray[np.float64]
STATES: Mapping[str, str] = {"before": PALETTE[2], "after": PALETTE[0]}
DOTS = "osD^vPX*"


def kinds_figure(view: pd.DataFrame, title: str = "") -> Figure:
    """Error Dice of each method on each mask kind."""
    methods = _with_map(view)
    kinds = in_order(view["mask_kind"].unique(), MASK_KINDS)
    groups = {
        method: [
            _values(view[(view["method"] == method) & (view["mask_kind"] == kind)], "error_dice") for kind in kinds
        ]
        for method in methods
    }
    return _strips(groups, kinds, method_colours(methods), title, "error Dice")


def structures_figure(view: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Error Dice of each method within each structure."""
    methods = _with_map(view)
    groups = {
        method: [_values(view[view["method"] == method], f"error_dice_{key}") for key in structures]
        for method in methods
    }
    return _strips(groups, _names(structures), method_colours(methods), title, "error Dice")


def segmentation_figure(segmented: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Dice of the final masks by structure."""
    final = segmented[segmented["mask_kind"] == "final"]
    groups = {"segmenter": [_values(final, f"dice_{key}") for key in structures]}
    return _strips(groups, _names(structures), {"segmenter": PALETTE[0]}, title, "Dice")


def correction_by_structure(rows: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Dice of each structure before and after correction, over masks that have both."""
    pairs = [rows[[f"dice_{key}", f"dice_{key}_corrected"]].dropna() for key in structures]
    groups = {
        "before": [pair.iloc[:, 0].to_numpy(float) for pair in pairs],
        "after": [pair.iloc[:, 1].to_numpy(float) for pair in pairs],
    }
    return _strips(groups, _names(structures), STATES, title, "Dice")


def correction_by_kind(rows: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Mean Dice over structures before and after correction, by mask kind."""
    kinds = in_order(rows["mask_kind"].unique(), MASK_KINDS)
    both = dict(zip(STATES, before_and_after(rows, structures), strict=True))
    groups = {
        state: [values[rows["mask_kind"] == kind].dropna().to_numpy(float) for kind in kinds]
        for state, values in both.items()
    }
    return _strips(groups, kinds, STATES, title, "mean Dice")


def correction_scatter(rows: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Each mask's mean Dice after correction against that before; above the line the correction helped."""
    before, after = before_and_after(rows, structures)
    kinds = in_order(rows["mask_kind"].unique(), MASK_KINDS)
    both = np.concatenate([before, after])
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    pad = 0.04 * max(high - low, 0.01)
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.9)
        axis = figure.subplots()
        axis.axline((low, low), slope=1, color="#444444", linewidth=0.8, linestyle="--")
        kind_points(axis, rows, before, after, PALETTE[0], kinds)
        axis.set(title=title, xlabel="mean Dice before", ylabel="mean Dice after", aspect="equal")
        axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        kind_legend(figure, kinds)
    return figure


def _with_map(view: pd.DataFrame) -> tuple[str, ...]:
    """Methods that predict an error map."""
    return in_order(view.loc[with_map(view), "method"].unique(), METHOD_ORDER)


def _names(structures: Sequence[str]) -> list[str]:
    """For people, in lines that fit below a cluster."""
    return [textwrap.fill(STRUCTURES[key].name if key in STRUCTURES else key, 11) for key in structures]


def _values(rows: pd.DataFrame, column: str) -> Values:
    return rows[column].dropna().to_numpy(float)


def _strips(
    groups: Mapping[str, Sequence[Values]],
    ticks: Sequence[str],
    colours: Mapping[str, str],
    title: str,
    label: str,
) -> Figure:
    """Boxes (quartiles, median) over all values as dots: one cluster a tick, the groups side by side in it."""
    width = 0.8 / len(groups)
    jitter = np.random.default_rng(0)
    lowest = min((float(v.min()) for values in groups.values() for v in values if len(v)), default=0.0)
    with mpl.rc_context(STYLE):
        figure = new_figure(max(4.6, 0.9 * len(ticks) * max(1, len(groups) / 3)), 3.9)
        axis = figure.subplots()
        for g, (name, values) in enumerate(groups.items()):
            centres = np.arange(len(ticks)) + (g - (len(groups) - 1) / 2) * width
            drawn = [(c, v) for c, v in zip(centres, values, strict=True) if len(v)]
            _boxes(axis, drawn, width, colours[name])
            marker = DOTS[g % len(DOTS)]
            for centre, v in drawn:
                x = centre + jitter.uniform(-0.22, 0.22, len(v)) * width
                axis.plot(x, v, marker, markersize=2.4, markeredgewidth=0, alpha=0.45, color=colours[name])
            axis.plot([], [], color=colours[name], linewidth=2.2, marker=marker, markersize=5, label=name)
        axis.set(title=title, ylabel=label, ylim=(min(-0.02, lowest), 1.02), xlim=(-0.6, len(ticks) - 0.4))
        axis.set_xticks(np.arange(len(ticks)), ticks)
        axis.grid(axis="x", visible=False)
        if len(groups) > 1:
            figure.legend(loc="outside lower center", ncols=min(5, len(groups)))
    return figure


def _boxes(axis: Axes, drawn: Sequence[tuple[float, Values]], width: float, colour: str) -> None:
    if not drawn:
        return
    line = {"color": colour, "linewidth": 1.1}
    axis.boxplot(
        [v for _, v in drawn],
        positions=[c for c, _ in drawn],
        widths=0.75 * width,
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops=line | {"linewidth": 2.2},
    )

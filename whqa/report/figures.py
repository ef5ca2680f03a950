"""Figures of the case table: plain `Figure` objects without pyplot, so nothing leaks and workers may draw them.

Every `view` argument is a frame as `whqa.results.tables.view` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whqa.masks.plan import MASK_KINDS, is_delivered
from whqa.metrics.failure import risk_coverage
from whqa.report.slices import new_figure
from whqa.report.style import PALETTE, STYLE, kind_markers
from whqa.results.failure_score import confidence, risk_of
from whqa.results.statistics import limits_of_agreement
from whqa.results.tables import METHOD_ORDER, in_order

BAND = "#dcebf5"
Band = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Levels of QI with the lower and upper ends of the interval for Acc there."""
_ABOVE: dict[str, Any] = {
    "xycoords": "axes fraction",
    "textcoords": "offset points",
    "fontsize": 7.5,
    "color": "#556070",
}


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """One colour a method; the network and the baselines that every table carries always have the same."""
    colours = dict(zip(METHOD_ORDER, PALETTE, strict=False))
    others = [m for m in in_order(methods, METHOD_ORDER) if m not in colours]
    rest = PALETTE[len(METHOD_ORDER) :]
    return colours | {m: rest[i % len(rest)] for i, m in enumerate(others)}


def scatter_figure(
    view: pd.DataFrame,
    region: str,
    title: str = "",
    qi: str = "qi",
    notes: Mapping[str, str] | None = None,
    bands: Mapping[str, Band] | None = None,
) -> Figure:
    """QI against Acc with the identity line, one panel a method on shared axes, one marker a mask kind.

    Args:
        view: rows with case, method, mask_kind, acc_<region>, <qi>_<region>.
        region: "volume" or "heart".
        title: above all panels.
        qi: "qi" or "qi_soft".
        notes: method -> a line below its name.
        bands: method -> intervals for Acc, shaded; a panel without one has none.
    """
    methods = in_order(view["method"].unique(), METHOD_ORDER)
    kinds = in_order(view["mask_kind"].unique(), MASK_KINDS)
    colours = method_colours(methods)
    columns = min(2, len(methods))
    n_rows = -(-len(methods) // columns)
    low, high = span(view, region, qi)
    with mpl.rc_context(STYLE):
        figure = new_figure(2.7 * columns + 0.3, (2.95 if notes else 2.5) * n_rows + 0.7)
        # panels of equal aspect would drift apart
        figure.set_layout_engine("compressed", h_pad=0.09)
        axes = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, method in zip(axes, methods, strict=False):
            axis.axline((low, low), slope=1, color="#444444", linewidth=0.8, linestyle="--")
            if bands and method in bands:
                levels, left, right = bands[method]
                axis.fill_betweenx(levels, left, right, color=BAND, linewidth=0, zorder=0.5)
            rows = view[view["method"] == method]
            kind_points(axis, rows, rows[f"acc_{region}"], rows[f"{qi}_{region}"], colours[method], kinds)
            axis.set_title(method, loc="left", fontweight="bold")
            if notes and notes.get(method):
                axis.annotate(notes[method], (0, 1), (0, 3), **_ABOVE)
                axis.set_title(method, loc="left", fontweight="bold", pad=25)
            axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            axis.locator_params(nbins=4)
        _label_outer(
            axes, len(methods), columns, f"Acc ({region})", f"{'soft QI' if qi == 'qi_soft' else 'QI'} ({region})"
        )
        figure.suptitle(title, fontsize=10)
        kind_legend(figure, kinds)
    return figure


def span(view: pd.DataFrame, region: str, qi: str = "qi") -> tuple[float, float]:
    """What the axes of a scatter cover: all Acc and QI with a margin."""
    values = view[[f"acc_{region}", f"{qi}_{region}"]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    pad = 0.04 * max(high - low, 1e-4)
    return low - pad, high + pad


def kind_points(axis: Axes, rows: pd.DataFrame, x: pd.Series, y: pd.Series, colour: str, kinds: Sequence[str]) -> None:
    """Points (x, y) of rows with `mask_kind`: each kind has its marker, filled for masks that somebody would use."""
    for kind, marker in kind_markers(kinds).items():
        of_kind = rows["mask_kind"] == kind
        axis.plot(
            x[of_kind],
            y[of_kind],
            linestyle="none",
            marker=marker,
            markersize=4.5,
            markeredgewidth=0.7,
            color=colour,
            markerfacecolor=colour if is_delivered(kind) else "none",
            alpha=0.8,
        )


def _label_outer(axes: Iterable[Axes], n: int, columns: int, x: str, y: str) -> None:
    """Labels along the outside; a column's last panel has ticks also where an empty one follows below."""
    for i, axis in enumerate(axes):
        axis.set_visible(i < n)
        if i % columns == 0:
            axis.set_ylabel(y)
        if i < n <= i + columns:
            axis.set_xlabel(x)
            axis.tick_params(labelbottom=True)


def kind_legend(figure: Figure, kinds: Sequence[str]) -> None:
    """The markers of the kinds below the panels; nothing where there is but one."""
    if len(kinds) < 2:
        return
    markers = kind_markers(kinds)
    handles = [
        mpl.lines.Line2D(
            *([], []),
            linestyle="none",
            marker=markers[kind],
            color="#333333",
            markerfacecolor="#333333" if is_delivered(kind) else "none",
            label=kind,
        )
        for kind in kinds
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(kinds)), handletextpad=0.2)


def bland_altman_figure(view: pd.DataFrame, region: str, method: str, title: str = "") -> Figure:
    """QI - Acc of one method against their mean, with the bias and the 95 % limits of agreement (± 1.96 SD)."""
    rows = view[view["method"] == method]
    kinds = in_order(rows["mask_kind"].unique(), MASK_KINDS)
    acc, qi = rows[f"acc_{region}"], rows[f"qi_{region}"]
    bias, reach = limits_of_agreement(rows, region)
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.9)
        axis = figure.subplots()
        kind_points(axis, rows, (qi + acc) / 2, qi - acc, PALETTE[0], kinds)
        for value, style, text in (
            (bias, "-", "bias"),
            (bias + reach, "--", "+1.96 SD"),
            (bias - reach, "--", "-1.96 SD"),
        ):
            axis.axhline(value, color="#D55E00", linestyle=style, linewidth=1)
            axis.annotate(
                f"{text}\n{value:+.4f}".replace("-", "\N{MINUS SIGN}"),
                (1, value),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color="#8a3c00",
            )
        axis.axhline(0, color="#444444", linewidth=0.6)
        axis.margins(y=0.12)
        axis.set(title=title, xlabel=f"mean of QI and Acc ({region})", ylabel="QI - Acc")
        axis.locator_params(axis="x", nbins=5)
        kind_legend(figure, kinds)
    return figure


def risk_coverage_figure(
    view: pd.DataFrame, structures: tuple[str, ...], scores: Mapping[str, str], title: str = ""
) -> Figure:
    """Mean risk (1 - mean Dice) of the most confident masks against the share of masks kept.

    Args:
        view: rows of a case table.
        structures: keys in index order.
        scores: method -> its confidence, one of `whqa.results.failure_score.SCORES`.
        title: above the panel.
    """
    methods = in_order(view["method"].unique(), METHOD_ORDER)
    colours = method_colours(methods)
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.9)
        axis = figure.subplots()
        for i, method in enumerate(methods):
            rows = view[view["method"] == method]
            trust, risk = confidence(rows, scores[method], structures), risk_of(rows, structures)
            if i == 0:
                axis.plot(*risk_coverage(-risk, risk), color="#bbbbbb", label="perfect order")
            line = ("-", "--", "-.", ":")[i % 4]
            axis.plot(*risk_coverage(trust, risk), color=colours[method], linestyle=line, label=method)
        axis.set(title=title, xlabel="coverage (share of masks kept)", ylabel="risk (1 - mean Dice)", xlim=(0, 1))
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=3)
    return figure

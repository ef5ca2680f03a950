"""Figures of the case table: plain `Figure` objects without pyplot, so nothing leaks and workers may draw them.

Colours are Okabe & Ito's (readable with colour blindness); mask kinds also differ by marker. Every `view` argument is a
frame as `whqa.report.tables.view` gives it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.lines
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from whqa.masks.plan import MASK_KINDS, is_delivered
from whqa.metrics.failure import risk_coverage
from whqa.report.slices import new_figure
from whqa.report.statistics import confidence_and_risk
from whqa.report.tables import METHOD_ORDER, in_order

PALETTE = ("#0072B2", "#7F7F7F", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS: Mapping[str, str] = dict(zip(MASK_KINDS, "os^vDP", strict=True))
OTHERS = "X*pHd8"
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """One colour a method; the network and the baselines that every table carries always have the same."""
    colours = dict(zip(METHOD_ORDER, PALETTE, strict=False))
    others = [m for m in in_order(methods, METHOD_ORDER) if m not in colours]
    rest = PALETTE[len(METHOD_ORDER) :]
    return colours | {m: rest[i % len(rest)] for i, m in enumerate(others)}


def scatter_figure(view: pd.DataFrame, region: str, title: str = "", qi: str = "qi") -> Figure:
    """QI against Acc with the identity line, one panel a method on shared axes, one marker a mask kind.

    Args:
        view: rows with case, method, mask_kind, acc_<region>, <qi>_<region>.
        region: "volume" or "heart".
        qi: "qi" or "qi_soft".
    """
    methods = in_order(view["method"].unique(), METHOD_ORDER)
    kinds = in_order(view["mask_kind"].unique(), MASK_KINDS)
    colours, markers = method_colours(methods), kind_markers(kinds)
    columns = min(2, len(methods))
    n_rows = -(-len(methods) // columns)
    values = view[[f"acc_{region}", f"{qi}_{region}"]].to_numpy(float)
    low, high = np.nanmin(values), np.nanmax(values)
    pad = 0.04 * max(high - low, 1e-4)
    with mpl.rc_context(STYLE):
        figure = new_figure(2.7 * columns + 0.3, 2.5 * n_rows + 0.7)
        axes = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, method in zip(axes, methods, strict=False):
            rows = view[view["method"] == method]
            axis.axline((low, low), slope=1, color="#444444", linewidth=0.8, linestyle="--")
            for kind in kinds:
                of_kind = rows[rows["mask_kind"] == kind]
                axis.plot(
                    of_kind[f"acc_{region}"],
                    of_kind[f"{qi}_{region}"],
                    linestyle="none",
                    marker=markers[kind],
                    markersize=4.5,
                    markeredgewidth=0.7,
                    color=colours[method],
                    markerfacecolor=colours[method] if is_delivered(kind) else "none",
                    alpha=0.8,
                )
            axis.set_title(method, parse_math=False)
            axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
            axis.locator_params(nbins=4)
        for axis in axes[len(methods) :]:
            axis.set_visible(False)
        for axis in axes[-columns:]:
            axis.set_xlabel(f"Acc ({region})")
        for axis in axes[::columns]:
            axis.set_ylabel(("soft QI" if qi == "qi_soft" else "QI") + f" ({region})")
        figure.suptitle(title, fontsize=10, parse_math=False)
        _kind_legend(figure, kinds)
    return figure


def kind_markers(kinds: Sequence[str]) -> dict[str, str]:
    """One marker a mask kind: the segmenters' kinds always have the same, other programs' theirs in turn."""
    others = [kind for kind in kinds if kind not in MARKERS]
    return {k: MARKERS[k] for k in kinds if k in MARKERS} | {k: OTHERS[i % len(OTHERS)] for i, k in enumerate(others)}


def _kind_legend(figure: Figure, kinds: Sequence[str]) -> None:
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
    markers = kind_markers(kinds)
    acc, qi = rows[f"acc_{region}"].to_numpy(float), rows[f"qi_{region}"].to_numpy(float)
    difference = qi - acc
    bias, spread = difference.mean(), difference.std(ddof=1) if len(difference) > 1 else 0.0
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.9)
        axis = figure.subplots()
        for kind in kinds:
            of_kind = (rows["mask_kind"] == kind).to_numpy()
            axis.plot(
                ((qi + acc) / 2)[of_kind],
                difference[of_kind],
                linestyle="none",
                marker=markers[kind],
                markersize=4.5,
                color=PALETTE[0],
                markerfacecolor=PALETTE[0] if is_delivered(kind) else "none",
                alpha=0.8,
            )
        for value, style, text in (
            (bias, "-", "bias"),
            (bias + 1.96 * spread, "--", "+1.96 SD"),
            (bias - 1.96 * spread, "--", "-1.96 SD"),
        ):
            axis.axhline(value, color="#D55E00", linestyle=style, linewidth=1)
            axis.annotate(
                f"{text} {value:+.4f}",
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
                color="#8a3c00",
            )
        axis.axhline(0, color="#444444", linewidth=0.6)
        axis.margins(y=0.12)
        axis.set(title=title, xlabel=f"mean of QI and Acc ({region})", ylabel="QI - Acc")
        axis.locator_params(axis="x", nbins=5)
        _kind_legend(figure, kinds)
    return figure


def risk_coverage_figure(view: pd.DataFrame, structures: tuple[str, ...], title: str = "") -> Figure:
    """Mean risk (1 - mean Dice) of the most confident masks against the share of masks kept."""
    methods = in_order(view["method"].unique(), METHOD_ORDER)
    colours = method_colours(methods)
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.9)
        axis = figure.subplots()
        for i, method in enumerate(methods):
            confidence, risk = confidence_and_risk(view[view["method"] == method], structures)
            if i == 0:
                axis.plot(*risk_coverage(-risk, risk), color="#bbbbbb", label="perfect order")
            line = ("-", "--", "-.", ":")[i % 4]
            axis.plot(*risk_coverage(confidence, risk), color=colours[method], linestyle=line, label=method)
        axis.set(title=title, xlabel="coverage (share of masks kept)", ylabel="risk (1 - mean Dice)", xlim=(0, 1))
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def error_dice_figure(view: pd.DataFrame, title: str = "") -> Figure:
    """Error Dice by mask kind and method: box (quartiles, median) over all cases as dots."""
    methods = in_order(view["method"].unique(), METHOD_ORDER)
    kinds = in_order(view["mask_kind"].unique(), MASK_KINDS)
    groups = {
        method: [
            view.loc[(view["method"] == method) & (view["mask_kind"] == kind), "error_dice"].dropna().to_numpy(float)
            for kind in kinds
        ]
        for method in methods
    }
    return _strips(groups, kinds, method_colours(methods), title, "error Dice")


def segmentation_figure(segmented: pd.DataFrame, structures: Sequence[str], title: str = "") -> Figure:
    """Dice of the final masks by structure: box over all cases as dots."""
    final = segmented[segmented["mask_kind"] == "final"]
    groups = {"segmenter": [final[f"dice_{key}"].dropna().to_numpy(float) for key in structures]}
    return _strips(groups, structures, {"segmenter": PALETTE[0]}, title, "Dice")


def _strips(
    groups: Mapping[str, Sequence[np.ndarray]],
    ticks: Sequence[str],
    colours: Mapping[str, str],
    title: str,
    label: str,
) -> Figure:
    """Boxes side by side: one cluster a tick, one colour a group."""
    width = 0.8 / len(groups)
    jitter = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        figure = new_figure(max(4.6, 0.9 * len(ticks) * max(1, len(groups) / 3)), 3.9)
        axis = figure.subplots()
        for g, (name, values) in enumerate(groups.items()):
            centres = np.arange(len(ticks)) + (g - (len(groups) - 1) / 2) * width
            drawn = [(c, v) for c, v in zip(centres, values, strict=True) if len(v)]
            if not drawn:
                continue
            line = {"color": colours[name], "linewidth": 1.1}
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
            for centre, v in drawn:
                x = centre + jitter.uniform(-0.22, 0.22, len(v)) * width
                axis.plot(x, v, linestyle="none", marker=".", markersize=3, color=colours[name], alpha=0.45)
            axis.plot([], [], color=colours[name], linewidth=2.2, label=name)
        axis.set(title=title, ylabel=label, ylim=(-0.02, 1.02))
        axis.set_xticks(np.arange(len(ticks)), ticks)
        axis.grid(axis="x", visible=False)
        if len(groups) > 1:
            figure.legend(loc="outside lower center", ncols=min(5, len(groups)))
    return figure

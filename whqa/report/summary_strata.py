"""Tables and figures of summary.html by quality: the true one (strata) and the predicted one (reliability)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whqa.judges.constant import REGIONS
from whqa.report.figures import method_colours
from whqa.report.numbers import show_number
from whqa.report.slices import new_figure
from whqa.report.style import STYLE
from whqa.report.summary_tables import Cell, PageTable, TableRow, cell, minus, share_cell
from whqa.results.summary_entry import at_path

_LEGEND_COLUMNS = 3
# path, heading, digits, signed
_COLUMNS = (
    ("volume.bias", "bias (volume)", 4, True),
    ("bias", "bias (heart)", 3, True),
    ("volume.mae", "MAE (volume)", 4, False),
    ("mae", "MAE (heart)", 3, False),
    ("error_dice", "error Dice", 3, False),
    ("false_alarm", "false alarms", 4, False),
)


def strata_table(methods: Mapping[str, Mapping[str, Any]], part: str, caption: str) -> PageTable:
    """Strata that have masks, each with a line for every method; the first method's lines are highlighted."""
    names = [name for name in methods if methods[name][part]["n"]]
    rows = []
    for stratum in _with_masks(methods[names[0]][part]):
        for name in names:
            found = methods[name][part]["strata"][stratum]
            if found["n"]:
                cells = (Cell(str(found["n"])), *_cells(found))
                rows.append(TableRow(f"{stratum}, {name}", cells, highlighted=name == names[0]))
    heads = [head for _, head, _, _ in _COLUMNS]
    return PageTable(caption, ("stratum, method", "masks", *heads, "intervals (heart)", "correction"), tuple(rows))


def correction_by_stratum(numbers: Mapping[str, Any], titles: Mapping[str, str], caption: str) -> PageTable | None:
    """Change of Dice by correction, of each structure in each stratum, with the worst mask; None without any."""
    strata = {name: numbers["strata"][name]["correction"] for name in _with_masks(numbers)}
    if all(found["mean"] is None for found in strata.values()):
        return None
    null = {"mean": None, "ci95": None, "worst": None}
    lines = [("mean of structures", list(strata.values()))]
    lines += [
        (title, [found["per_structure"].get(key, null) for found in strata.values()]) for key, title in titles.items()
    ]
    rows = [TableRow(title, tuple(_change(entry) for entry in found), i == 0) for i, (title, found) in enumerate(lines)]
    return PageTable(caption, ("structure", *strata), tuple(rows))


def coverage_by_stratum(numbers: Mapping[str, Any], titles: Mapping[str, str], caption: str) -> PageTable | None:
    """Share of intervals that hold the truth in each stratum, and their mean width; None where none was made."""
    names = _with_masks(numbers)
    strata = [numbers["strata"][name] for name in names]
    lines = [("Acc (volume)", [found["volume"] for found in strata]), ("Acc (heart)", strata)]
    lines += [
        (f"Dice, {title}", [found["dice"][key] for found in strata])
        for key, title in titles.items()
        if strata and key in strata[0]["dice"]
    ]
    rows = [TableRow(title, tuple(_held(entry) for entry in found)) for title, found in lines]
    if all(c.text == "n/a" for row in rows for c in row.cells):
        return None
    return PageTable(caption, ("interval for", *names), tuple(rows))


def reliability_figure(methods: Mapping[str, Mapping[str, Any]], part: str, title: str) -> Figure:
    """Mean Acc against mean QI in bins of QI, a panel a region; bars span the 95 % interval of the bias."""
    names = [name for name in methods if methods[name][part]["n"] and name != "constant"]
    colours = method_colours(list(methods))
    with mpl.rc_context(STYLE):
        figure = new_figure(8.2, 4.0 + 0.22 * -(-len(names) // _LEGEND_COLUMNS))
        for axis, region in zip(figure.subplots(1, 2), REGIONS, strict=True):
            for name in names:
                _curve(axis, methods[name][part]["reliability"][region], colours[name], name)
            ends = (*axis.get_xlim(), *axis.get_ylim())
            span = (min(ends), max(ends))
            axis.axline((span[1], span[1]), slope=1, color="#444444", linewidth=0.8, linestyle="--", zorder=0.5)
            axis.set(xlim=span, ylim=span, aspect="equal", xlabel=f"mean QI ({region})", ylabel=f"mean Acc ({region})")
            axis.locator_params(nbins=5)
        figure.suptitle(title, fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize=8)
    return figure


def bias_by_bin(bins: Sequence[Mapping[str, Any]], digits: int) -> str:
    """The bias of each bin, in words for who cannot see the figure."""
    words = (f"{show_number(b['bias']['mean'], digits, True)} at QI {b['qi']:.3f} (n {b['n']})" for b in bins)
    return minus(", ".join(words))


def _with_masks(numbers: Mapping[str, Any]) -> list[str]:
    return [name for name, found in numbers["strata"].items() if found["n"]]


def _cells(found: Mapping[str, Any]) -> list[Cell]:
    cells = [cell(at_path(found, path), digits, signed) for path, _, digits, signed in _COLUMNS]
    return [*cells, _held(found), _change(found["correction"])]


def _held(found: Mapping[str, Any]) -> Cell:
    share = share_cell(found["coverage"])
    width = found["width"]["mean"]
    return share if width is None else Cell(share.text, f"width {show_number(width, 3)}")


def _change(entry: Mapping[str, Any]) -> Cell:
    shown = cell(entry, 3, signed=True)
    return shown if entry["worst"] is None else Cell(shown.text, minus(f"worst {show_number(entry['worst'], 3, True)}"))


def _curve(axis: Axes, bins: Sequence[Mapping[str, Any]], colour: str, name: str) -> None:
    """One method's bins; its smallest and largest number of masks in a bin stand beside its name."""
    qi, acc = (np.array([b[key] for b in bins]) for key in ("qi", "acc"))
    biases = np.array([b["bias"]["ci95"] or [b["bias"]["mean"]] * 2 for b in bins])
    bars = np.abs(qi - biases.T[::-1] - acc)
    counts = sorted({b["n"] for b in bins})
    label = f"{name} ({counts[0]} a bin)" if len(counts) == 1 else f"{name} ({counts[0]} to {counts[-1]} a bin)"
    axis.errorbar(qi, acc, yerr=bars, color=colour, marker="o", markersize=3.5, linewidth=1, capsize=2, label=label)

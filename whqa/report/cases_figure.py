"""Several judged masks in one picture, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from whqa.report.slices import JudgedVolume, draw_row, new_figure, structure_legend

AXIAL = 2


def cases_figure(
    shown: Mapping[str, JudgedVolume], scheme_colours: Sequence[str], scheme_titles: Sequence[str]
) -> Figure:
    """The axial plane of each through the voxel where errors are densest: mask | true error | predicted error.

    Args:
        shown: what is said of a row, beside it -> the row; all with or all without the truth.
        scheme_colours: one colour a structure, in index order.
        scheme_titles: one name a structure, in index order.
    """
    columns = next(iter(shown.values())).columns
    figure = new_figure(2.9 * len(columns), 2.8 * len(shown) + 0.4)
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    for row, (words, volume) in zip(axes, shown.items(), strict=True):
        draw_row(row, volume, AXIAL, volume.at, scheme_colours)
        row[0].set_ylabel(words, fontsize=8, parse_math=False)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=9)
    structure_legend(figure, scheme_colours, scheme_titles)
    return figure

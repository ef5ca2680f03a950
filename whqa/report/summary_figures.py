"""The figures of summary.html in their groups, as data URIs with a text alternative that gives the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from whqa.judges.constant import REGIONS
from whqa.parallel.beside import Start
from whqa.report import figures, strips, style
from whqa.report.html import data_uri
from whqa.report.numbers import show_entry, show_interval
from whqa.report.summary_strata import bias_by_bin, reliability_figure
from whqa.report.summary_tables import minus
from whqa.results.interval_coverage import band
from whqa.results.statistics import limits_of_agreement
from whqa.results.tables import RunTables, view

# One scale for all figures keeps their letters alike.
PX_PER_INCH = 112
# Inches from which letters would become too small in half of the page.
WIDE_FROM = 5.8


@dataclass(eq=False)
class Image:
    """A picture in the page.

    Attributes:
        figure: is drawn when it is asked for.
        alt: what it shows in words.
        width: in px.
        wide: whether it needs the whole page.
    """

    figure: Figure
    alt: str
    width: int
    wide: bool
    _drawn: Callable[[], bytes] | None = None

    def begin(self, start: Start) -> None:
        """Have it drawn by another process."""
        self._drawn = start(style.png, self.figure)

    @cached_property
    def png(self) -> bytes:
        """The file."""
        return self._drawn() if self._drawn else style.png(self.figure)

    @property
    def uri(self) -> str:
        """The same as data URI."""
        return data_uri(self.png)


def drawn(images: Sequence[Image], start: Start) -> None:
    """Draw all, every other one in the process that `start` gives work to, see `whqa.parallel.beside`."""
    for image in images[::2]:
        image.begin(start)
    for image in (*images[1::2], *images[::2]):
        assert image.png is not None


def scatters(tables: RunTables, summary: Mapping[str, Any], parts: Mapping[str, str]) -> list[Image]:
    """QI against Acc for every part and region, with the intervals of the first method."""
    judge, found = tables.methods[0], []
    for part, title in parts.items():
        rows = view(tables.judged, part)
        for region in REGIONS:
            levels = np.linspace(*figures.span(rows, region), 80)
            notes = {m: _note(numbers[part], region) for m, numbers in summary["methods"].items()}
            held = summary.get("intervals", {}).get(part, {}).get(f"acc_{region}", {}).get("coverage", {}).get("mean")
            bands = None if held is None else {judge: (levels, *band(tables.of_first_method, region, levels))}
            figure = figures.scatter_figure(rows, region, title, notes=notes, bands=bands)
            numbers = "; ".join(f"{m}: {note}".replace("\n", ", ") for m, note in notes.items() if note)
            found.append(image_of(figure, f"QI against Acc over the {region}, {title}. {numbers}"))
    return found


def bland_altman(tables: RunTables, parts: Mapping[str, str]) -> list[Image]:
    """Differences of the first method's QI for every part and region."""
    judge = tables.methods[0]
    return [
        image_of(
            figures.bland_altman_figure(rows, region, judge, f"{title}, {region}"),
            f"Bland-Altman plot of {judge} over the {region}, {title}: {_bias(rows[rows['method'] == judge], region)}",
        )
        for title, rows in ((title, view(tables.judged, part)) for part, title in parts.items())
        for region in REGIONS
    ]


def risk_curves(tables: RunTables, summary: Mapping[str, Any], parts: Mapping[str, str]) -> list[Image]:
    """Risk of the masks that are kept, for every part."""
    found = []
    for part, title in parts.items():
        areas = "; ".join(
            f"{m}: AURC {show_entry(numbers[part]['failure']['aurc'], 3)}" for m, numbers in summary["methods"].items()
        )
        scores = {m: numbers[part]["failure"]["score"] for m, numbers in summary["methods"].items()}
        figure = figures.risk_coverage_figure(view(tables.judged, part), tables.structures, scores, title)
        found.append(image_of(figure, f"Risk-coverage curves, {title}. {areas}"))
    return found


def reliability_curves(summary: Mapping[str, Any], parts: Mapping[str, str]) -> list[Image]:
    """QI against Acc in bins of QI, for every part; the words give the first method's bias in each bin."""
    own, found = next(iter(summary["methods"].values())), []
    for part, title in parts.items():
        if own[part]["n"]:
            words = "; ".join(
                f"{region}: {bias_by_bin(own[part]['reliability'][region], digits)}"
                for region, digits in zip(REGIONS, (4, 3), strict=True)
            )
            figure = reliability_figure(summary["methods"], part, f"QI against Acc by predicted quality, {title}")
            found.append(image_of(figure, f"Reliability, {title}, bias of the first method by bin. {words}"))
    return found


def by_structure(tables: RunTables, part: str, title: str) -> list[Image]:
    """Error Dice within each structure; nothing from older tables."""
    rows = view(tables.judged, part)
    columns = [f"error_dice_{key}" for key in tables.structures]
    if not rows.reindex(columns=columns).notna().any(axis=None):
        return []
    figure = strips.structures_figure(rows, tables.structures, f"error Dice by structure, {title}")
    return [image_of(figure, f"Error Dice by structure and method, {title}; the table above has the means")]


def by_kind(tables: RunTables) -> list[Image]:
    """Error Dice of each mask kind."""
    figure = strips.kinds_figure(tables.judged, "error Dice by mask kind")
    return [image_of(figure, "Error Dice by mask kind and method; the table above has the means")]


def segmentation(tables: RunTables) -> list[Image]:
    """Dice of the final masks; nothing where no segmenter was trained."""
    if tables.segmented.empty:
        return []
    figure = strips.segmentation_figure(tables.segmented, tables.structures, "Dice of the final masks")
    return [image_of(figure, "Dice of the final masks by structure; the table above has the means")]


def correction(tables: RunTables, part: str, title: str) -> list[Image]:
    """Dice before and after the first method's correction; nothing without a label head."""
    rows, keys = view(tables.of_first_method, part), tables.structures
    if not rows.reindex(columns=[f"dice_{key}_corrected" for key in keys]).notna().any(axis=None):
        return []
    return [
        image_of(
            strips.correction_scatter(rows, keys, f"each mask, {title}"),
            f"Mean Dice of each mask after correction against that before, {title}",
        ),
        image_of(
            strips.correction_by_kind(tables.of_first_method, keys, "mean Dice by mask kind"),
            "Mean Dice before and after correction by mask kind; the table above has the means",
        ),
        image_of(
            strips.correction_by_structure(rows, keys, f"Dice by structure, {title}"),
            f"Dice before and after correction by structure, {title}; the table above has the means",
        ),
    ]


def _note(numbers: Mapping[str, Any], region: str) -> str:
    """PCC and MAE with their intervals, short enough for a panel."""
    if not numbers["n"]:
        return ""
    words = []
    for name, key, digits in (("PCC", "pcc", 2), ("MAE", "mae", 3)):
        entry = numbers[region][key]
        if entry["mean"] is not None:
            ends = show_interval(entry["ci95"], digits).replace(" to ", ", ")
            words.append(f"{name} {show_entry(entry, digits)}" + (f" [{ends}]" if ends else ""))
    return minus("\n".join(words))


def _bias(rows: pd.DataFrame, region: str) -> str:
    bias, reach = limits_of_agreement(rows, region)
    return minus(f"bias {bias:+.4f}, limits of agreement ± {reach:.4f}")


def image_of(figure: Figure, alt: str) -> Image:
    """A figure and what it shows in words."""
    width = figure.get_figwidth()
    return Image(figure, alt, round(PX_PER_INCH * width), width > WIDE_FROM)

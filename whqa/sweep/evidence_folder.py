"""`whqa evidence DIR`: every table and figure of a finished experiment or sweep, in files to be read and quoted.

    DIR/evidence/evidence.md     tables in Markdown, with what they were made of
    DIR/evidence/*.png           the figures that it shows

Of a sweep the first point is taken apart, the others stand beside it as variants. Nothing is computed here that is not
in summary.json or `whqa compare`, but for the ceiling (`whqa.sweep.ceiling`).
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from whqa.callbacks.phases import time_spent
from whqa.compare import compare
from whqa.config.run_config import refuse_mixed_settings
from whqa.errors import InputError
from whqa.files import as_named, atomic_path, read_json, reading, write_text
from whqa.masks.made_from import runs_begun
from whqa.report import evidence_tables as tables_of
from whqa.report import summary_figures
from whqa.report.numbers import show_entry
from whqa.report.summary_figures import Image
from whqa.results.run_folds import folds_to_summarize
from whqa.results.statistics import method_numbers
from whqa.results.summary_entry import shown_views, view_title
from whqa.results.tables import RunTables, read_run
from whqa.sweep.ceiling import NOISE_FREE, noise_free_rows
from whqa.sweep.evidence_cases import cases_picture

EVIDENCE, SUMMARY = "evidence", "summary.json"
SHOWN = ("whqa", "torch", "python", "device", "platform")
"""Of the environment in summary.json."""


@dataclass(frozen=True)
class Finished:
    """What there is to show.

    Attributes:
        first: runs/<experiment>, or the first point of a sweep.
        variants: directory -> settings, of the other finished points.
        failed: names of the points that are not finished.
        command: that trained it; "" of a single experiment.
    """

    first: Path
    variants: Mapping[Path, str]
    failed: Sequence[str]
    command: str


def write_evidence(directory: Path) -> Path:
    """Write the tables and figures.

    Args:
        directory: runs/<experiment> or runs/<sweep>, finished.

    Returns:
        The Markdown file.

    Raises:
        InputError: it is neither, or not finished.
    """
    directory = as_named(directory)
    found = _finished(directory)
    summary, tables = _summary(found.first)
    out = directory / EVIDENCE
    out.mkdir(exist_ok=True)
    ceiling = _ceiling(found.first, tables)
    with reading(found.first / SUMMARY, "a summary", _remedy(found.first)):
        sections = [*_head(directory, found, summary), *_tables(summary, ceiling)]
    sections += _variants(found)
    figures = [*_figures(out, tables, summary), *_cases(out, cases_picture(found.first, tables))]
    text = "\n\n".join([*sections, *figures]) + "\n"
    write_text(out / "evidence.md", text)
    return out / "evidence.md"


def _remedy(run: Path) -> str:
    return f"`whqa summarize {shlex.quote(str(run))}` writes it again"


def _summary(run: Path) -> tuple[Any, RunTables]:
    """summary.json and the tables of the folds that it was made of."""
    summary = read_json(run / SUMMARY, _remedy(run))
    mixed = isinstance(summary, dict) and "mixed" in summary
    if not mixed:
        refuse_mixed_settings(runs_begun(run))
    tables, joined = read_run(run, mixed), run / "cases.csv"
    with reading(joined, "a case table", _remedy(run)):
        with joined.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if rows != [list(tables.text), *tables.text.astype(str).to_numpy().tolist()]:
            raise ValueError("the folds have changed since")
    return summary, tables


def _finished(directory: Path) -> Finished:
    sweep = directory / "sweep.json"
    if not sweep.is_file():
        folds_to_summarize(directory)
        return Finished(directory, {}, (), "")
    remedy = "the same `whqa sweep ...` writes it again"
    told = read_json(sweep, remedy)
    with reading(sweep, "a sweep", remedy):
        points = {point["name"]: point for point in told["points"]}
        first, command = points[told["first"]], shlex.join(["whqa", "sweep", *told["settings"]])
    if first["state"] != "done":
        raise InputError(f"{directory / first['name']}: the first point of the sweep failed; {remedy}")
    others = [name for name, point in points.items() if name != told["first"]]
    variants = {directory / name: _settings(points[name]) for name in others if points[name]["state"] == "done"}
    failed = [name for name in others if points[name]["state"] != "done"]
    return Finished(directory / told["first"], variants, failed, command)


def _settings(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point["settings"].items())


def _head(directory: Path, found: Finished, summary: Mapping[str, Any]) -> Iterator[str]:
    cohort, dice = summary["cohort"], summary["segmentation"]["dice"]
    yield f"# Evidence: {directory.name}"
    each = ", ".join(f"{key} {show_entry(value, 3)}" for key, value in dice["per_structure"].items())
    yield (
        f"{cohort['cases']} cases of {cohort['name']}, {cohort['folds']} folds, mask plan {summary['plan']}. Mean Dice "
        f"of the segmenters' final masks of unseen cases: {show_entry(dice, 3)} ({each})."
    )
    if found.command:
        yield f"    {found.command}"
    spent = time_spent(run for path in (found.first, *found.variants) for run in runs_begun(path))
    known = summary["environment"]
    made = ", ".join(f"{name} {known[name]}" for name in SHOWN if known.get(name))
    yield f"{spent}. {made}." if spent else f"{made}."
    if "mixed" in summary:
        yield f"Folds that differ were put together: {summary['mixed']}."
    for name in found.failed:
        yield f"Not finished, so that it is missing below: {name}."


def _ceiling(run: Path, tables: RunTables) -> dict[str, Any]:
    """The first method and the judge that knows the truth, as in summary.json; nothing where nobody knows it."""
    first = tables.of_first_method
    rows = noise_free_rows(run, first)
    return {} if rows is None else method_numbers(replace(tables, judged=pd.concat([first, rows])), {})


def _tables(summary: Mapping[str, Any], ceiling: Mapping[str, Any]) -> Iterator[str]:
    methods, structures = summary["methods"], summary["cohort"]["structures"]
    first, parts = next(iter(methods)), shown_views(methods)
    yield "## Methods"
    yield (
        "QI and Acc over the volume, 95 % intervals by patient, differences mask by mask over masks that both judged."
    )
    yield tables_of.methods_table(methods)
    yield "## Leads"
    yield (
        f"Error Dice of {first} minus that of each rival, and minus its own when it is shown the mask or the image of "
        "another patient."
    )
    yield tables_of.leads_table(methods)
    if ceiling:
        yield "## The ceiling of annotator noise"
        yield (
            f"{NOISE_FREE}: a judge that knows the phantoms' truth, to which it corrects every mask. It is held "
            "against the labels, which an annotator's noise moves away from it."
        )
        yield tables_of.methods_table(ceiling)
    known = {**methods, **{name: numbers for name, numbers in ceiling.items() if name not in methods}}
    yield "## Places"
    yield "Share of the wrong places of 1 ml and more that the error map shows / false ones a mask."
    yield tables_of.places_table(known)
    yield "## Errors by size"
    yield (
        "Share of the wrong voxels of each size that the error map shows / of the wrong places of 1 ml and more. Thin: "
        "less than three voxels thick; missing: of structures that the mask lacks."
    )
    yield tables_of.sizes_table(known)
    yield "## Expected Dice"
    yield "Mean of |expected Dice - Dice| of every structure."
    yield tables_of.expected_dice_table(known, structures)
    yield "## Masks of any quality"
    yield f"{first}, all kinds of masks by what they truly are."
    yield tables_of.true_quality_table(methods[first]["all"])
    yield "## Structures"
    for part in parts:
        yield f"Error Dice within each structure, {view_title(part)}:"
        yield tables_of.structures_table(methods, part, structures)


def _variants(found: Finished) -> Iterator[str]:
    if found.variants:
        yield "## Variants"
        yield "Error-map networks trained otherwise, on the same cases and folds; other masks where settings make them."
        names = {str(found.first): "the first"} | {str(path): name for path, name in found.variants.items()}
        yield tables_of.variants_table(compare([found.first, *found.variants]), names)


def _figures(out: Path, tables: RunTables, summary: Mapping[str, Any]) -> Iterator[str]:
    parts = {part: view_title(part) for part in shown_views(summary["methods"])}
    shown = {part: title for part, title in parts.items() if part in ("final", "all")} or parts
    groups = {
        "qi": summary_figures.scatters(tables, summary, shown),
        "risk": summary_figures.risk_curves(tables, summary, shown),
        "reliability": summary_figures.reliability_curves(summary, shown),
        "kinds": summary_figures.by_kind(tables),
        "structures": [i for part, title in shown.items() for i in summary_figures.by_structure(tables, part, title)],
        "correction": summary_figures.correction(tables, *next(iter(shown.items()))),
    }
    yield "## Figures"
    for name, images in groups.items():
        for number, image in enumerate(images, start=1):
            yield _written(out, f"{name}{number}.png", image)


def _cases(out: Path, found: Image | str) -> Iterator[str]:
    yield "## Cases"
    if isinstance(found, str):
        yield found
        return
    yield (
        "Axial planes where errors are densest: the mask that is judged, where it is wrong, and the error map over the "
        "probability of an error (white line: the map)."
    )
    yield _written(out, "cases.png", found)


def _written(out: Path, name: str, image: Image) -> str:
    with atomic_path(out / name) as path:
        path.write_bytes(image.png)
    return f"![{' '.join(image.alt.split())}]({name})"

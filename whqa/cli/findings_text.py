"""What a look at a cohort found: tables for people, one record for machines."""

from __future__ import annotations

import re
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whqa.data.findings.check import CheckedCase, CohortReport
from whqa.data.findings.finding import Finding, Group, Severity, counts, grouped

_COLOURS: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
# More columns than this do not fit beside the rest of the table.
_MAX_COLUMNS = 10
# Lines of one kind that are shown; --json has them all.
_MAX_LINES = 20
_PIPE_WIDTH = 160
_CAPTION = "axes: where they point (L left, P posterior, S superior) and how oblique; volumes in ml"


def check_record(report: CohortReport, source: str, root: str) -> dict[str, Any]:
    """The report as plain JSON values, with every finding in full."""
    cohort = report.cohort
    return {
        "cohort": {
            "name": cohort.name,
            "source": source,
            "root": root,
            "cases": len(report.cases),
            "labelled": sum(c.case.has_label for c in report.cases),
            "patients": len({c.case.patient for c in report.cases}),
            "modalities": sorted({c.modality for c in report.cases}),
            "scheme": cohort.scheme.name,
            "structures": dict(cohort.scheme.values),
            "spacing_rule": cohort.spacing_rule,
        },
        "cases": [_case_record(c) for c in report.cases],
        "findings": [
            {"severity": f.severity, "code": f.code, "case": f.case, "message": f.message} for f in report.findings
        ],
        "counts": counts(report.findings),
    }


def print_report(report: CohortReport, root: str, console: Console | None = None) -> None:
    """Table of cases, then the findings, severest first; a kind that most cases share takes one line."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    console.print(_case_table(report))
    for group in grouped(report.findings, len(report.cases)):
        _print_group(group, len(report.cases), root, console)
    found = counts(report.findings)
    words = [f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in found.items()]
    n_cases = len(report.cases)
    console.print(f"{n_cases} case{'' if n_cases == 1 else 's'}: {', '.join(words)}")


def _case_record(checked: CheckedCase) -> dict[str, Any]:
    case = checked.case
    return {
        "id": case.id,
        "patient": case.patient,
        "modality": case.modality,
        "image": str(case.image),
        "label": [str(path) for path in case.label_files],
        "shape": _plain(checked.shape),
        "spacing_mm": None if checked.spacing_mm is None else [round(s, 6) for s in checked.spacing_mm],
        "orientation": checked.orientation,
        "oblique_degrees": None if checked.oblique_degrees is None else round(checked.oblique_degrees, 2),
        "labels_ml": {key: round(volume, 3) for key, volume in checked.volumes_ml.items()},
    }


def _plain(values: tuple[int, ...] | None) -> list[int] | None:
    return None if values is None else [int(v) for v in values]


def _case_table(report: CohortReport) -> Table:
    keys = report.cohort.scheme.keys
    separate = len(keys) <= _MAX_COLUMNS
    # narrow enough for seven structures on a terminal of 80 columns
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, caption=_CAPTION, caption_justify="left")
    table.add_column("case", overflow="fold")
    for name in ("type", "shape", "spacing mm", "axes"):
        table.add_column(name, overflow="fold")
    for name in keys if separate else ["volumes"]:
        table.add_column(name, justify="right" if separate else "left")
    for checked in report.cases:
        volumes = {key: f"{ml:.0f}" if ml >= 10 else f"{ml:.2g}" for key, ml in checked.volumes_ml.items()}
        cells = [volumes.get(key, "") for key in keys]
        labels = cells if separate else [", ".join(f"{key} {volume}" for key, volume in volumes.items())]
        table.add_row(*(Text(cell) for cell in [*_header_cells(checked), *labels]))
    return table


def _header_cells(checked: CheckedCase) -> list[str]:
    shape = "?" if checked.shape is None else "x".join(str(n) for n in checked.shape)
    spacing = "?" if checked.spacing_mm is None else "x".join(f"{s:.3g}" for s in checked.spacing_mm)
    tilt = f" {checked.oblique_degrees:.0f}°" if checked.oblique_degrees else ""
    return [checked.case.id, checked.modality, shape, spacing, f"{checked.orientation or '?'}{tilt}"]


def _print_group(group: Group, n_cases: int, root: str, console: Console) -> None:
    first = group.findings[0]
    if group.shared:
        several = f", {len(group.findings)} in all" if len(group.findings) > group.cases else ""
        where = f"{group.cases} of {n_cases} cases{several}; e.g. {first.case}"
        console.print(_line(first, where, root), soft_wrap=True)
        return
    for finding in group.findings[:_MAX_LINES]:
        console.print(_line(finding, finding.case, root), soft_wrap=True)
    left = len(group.findings) - _MAX_LINES
    if left > 0:
        console.print(_line(first, f"and {left} more", root, "like these; --json lists them all"), soft_wrap=True)


def _line(finding: Finding, where: str | None, root: str, message: str = "") -> Text:
    """Severity, code, where, what; paths are shown from the data folder on."""
    text = message or _shortened(finding.message, root)
    line = Text.assemble((finding.severity, _COLOURS[finding.severity]), " ", (finding.code, "bold"))
    return line.append(f" [{where}]: {text}" if where else f": {text}")


def _shortened(message: str, root: str) -> str:
    """A command in it stays as it is, to be run from where it is read."""
    folder, (said, *command) = root.rstrip("/"), re.split(r"(?=\b(?:python -c|gunzip) )", message, maxsplit=1)
    short = re.sub(rf"(?<![^\s'\"(]){re.escape(folder)}/", "", said) if folder else said
    return "".join([short, *command])

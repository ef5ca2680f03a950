"""summary.html: one file that opens offline, made from the case tables and the numbers of summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from whqa.contract.summary_json import Summary
from whqa.parallel.beside import Start
from whqa.report import summary_figures as page_figures
from whqa.report import summary_strata as page_strata
from whqa.report import summary_tables as page_tables
from whqa.report.headline import tiles
from whqa.report.html import data_uri, render
from whqa.report.numbers import show_share
from whqa.report.worst import worst_masks
from whqa.results.definitions import DEFINITIONS, EXTERNAL_DEFINITIONS, SPLIT_DEFINITIONS
from whqa.results.summary_entry import shown_views, view_title
from whqa.results.tables import RunTables
from whqa.results.triage import BAD_DICE
from whqa.structures import STRUCTURES


def render_page(tables: RunTables, summary: Summary, run_dir: Path, start: Start = partial) -> str:
    """The page as HTML; everything that comes from files is escaped; `start` has a part of the figures drawn."""
    parts = {part: view_title(part) for part in shown_views(summary["methods"])}
    head = next(iter(parts))
    titles = {key: STRUCTURES[key].name if key in STRUCTURES else key for key in tables.structures}
    return render(
        "summary.html.j2",
        inline_styles=True,
        summary=summary,
        plan=tables.folds["plan"],
        seed=tables.folds["seed"],
        patients=len(set(tables.folds["patients"].values())),
        modalities=", ".join(f"{n} {name}" for name, n in sorted(Counter(tables.folds["modalities"].values()).items())),
        external=tables.external,
        segmented=len(tables.segmented) > 0,
        judge=tables.methods[0],
        head=parts[head],
        tiles=tiles(summary, head),
        methods=[_methods(tables, summary, part, title) for part, title in parts.items()],
        strata=_strata(summary, parts, titles),
        failing=_failing(summary, parts, titles),
        split=_split(summary, parts, titles),
        correction=_correction(summary, head, parts[head], titles),
        coverage=_coverage(summary, parts, titles),
        segmentation=page_tables.segmentation_table(
            summary["segmentation"],
            titles,
            "The segmenter's final masks of unseen cases. HD95: 95th percentile of surface distances; where a "
            "structure is missing from one of the two, the diagonal of the image.",
        ),
        images=_images(tables, summary, parts, start),
        worst=_worst(tables, run_dir),
        definitions=DEFINITIONS | SPLIT_DEFINITIONS | (EXTERNAL_DEFINITIONS if tables.external else {}),
    )


def _images(
    tables: RunTables, summary: Mapping[str, Any], parts: Mapping[str, str], start: Start
) -> dict[str, list[page_figures.Image]]:
    head, title = next(iter(parts.items()))
    images = {
        "scatter": page_figures.scatters(tables, summary, parts),
        "bland_altman": page_figures.bland_altman(tables, parts),
        "risk": page_figures.risk_curves(tables, summary, parts),
        "reliability": page_figures.reliability_curves(summary, parts),
        "structure": page_figures.by_structure(tables, head, title),
        "kind": page_figures.by_kind(tables) if len(tables.kinds) > 1 else [],
        "segmentation": page_figures.segmentation(tables),
        "correction": page_figures.correction(tables, head, title),
    }
    page_figures.drawn([image for group in images.values() for image in group], start)
    return images


def _methods(tables: RunTables, summary: Mapping[str, Any], part: str, title: str) -> dict[str, Any]:
    """The two tables of one part."""
    about = {
        "final": "The masks that a user would get.",
        "augmented": "As another program's might be: the segmenters' masks of the images seen a little differently, or "
        "masks drawn from a program's softmax.",
        "mixed": "The reference in some regions, a segmenter's mask in the others.",
        "corrupted": "Reference labels and final masks with faults put into them, of kinds that training had as well.",
        "novel": "The same with faults of kinds that training never had.",
        "all": f"All kinds: {', '.join(tables.kinds)}.",
    }.get(part, "Masks that another program or a person made.")
    columns_of = {
        "error maps and failure detection": page_tables.ERROR_COLUMNS,
        "QI against Acc": page_tables.QUALITY_COLUMNS,
    }
    return {
        "about": about,
        "title": title,
        "tables": [
            page_tables.method_table(summary["methods"], part, columns, f"{_sentence(title)}: {what}")
            for what, columns in columns_of.items()
        ],
    }


def _strata(summary: Mapping[str, Any], parts: Mapping[str, str], titles: Mapping[str, str]) -> list[Any]:
    """The table of every part by true quality; of the last part also correction and intervals of the first method."""
    last, title = list(parts.items())[-1]
    own = next(iter(summary["methods"].values()))[last]
    found = [
        *(
            page_strata.strata_table(summary["methods"], part, f"{_sentence(title)}, by true quality.")
            for part, title in parts.items()
        ),
        page_strata.correction_by_stratum(own, titles, f"Change of Dice by correction, {title}, by true quality."),
        page_strata.coverage_by_stratum(own, titles, f"Intervals that hold the truth, {title}, by true quality."),
    ]
    return [table for table in found if table and table.rows]


def _failing(summary: Mapping[str, Any], parts: Mapping[str, str], titles: Mapping[str, str]) -> list[Any]:
    """AUROC of each structure's failure, of the first and the last part."""
    shown = (next(iter(parts)), list(parts)[-1])
    found = [
        page_tables.structure_failure_table(
            summary["methods"], part, titles, f"AUROC of a failed structure (Dice below {BAD_DICE}), {parts[part]}."
        )
        for part in dict.fromkeys(shown)
    ]
    return [table for table in found if table]


def _split(summary: Mapping[str, Any], parts: Mapping[str, str], titles: Mapping[str, str]) -> dict[str, Any]:
    """Error Dice by structure, of every part but all kinds, and by mask kind."""
    methods = summary["methods"]
    by_structure = [
        page_tables.split_table(methods, part, "by_structure", titles, f"Error Dice by structure, {title}")
        for part, title in parts.items()
        if part != "all" or len(parts) == 1
    ]
    last = list(parts)[-1]
    by_kind = page_tables.split_table(methods, last, "by_kind", {}, "Error Dice by mask kind")
    return {"by_structure": [t for t in by_structure if t], "by_kind": by_kind}


def _correction(summary: Mapping[str, Any], part: str, title: str, titles: Mapping[str, str]) -> dict[str, Any]:
    """Tables of the first method's correction, or the reason why there are none."""
    own = next(iter(summary["methods"].values()))
    found, everything = own[part], own["all"]
    gain = everything["correction"]["gain"]
    if gain["mean"] is None:
        return {"reason": gain["reason"], "tables": [], "shares": None}
    tables = [page_tables.correction_table(found, titles, f"Dice by structure, {title}.")]
    if len(everything["by_kind"]) > 1:
        caption = "Mean Dice by mask kind; better and worse: the share of masks whose mean Dice rises or falls."
        tables.append(page_tables.correction_by_kind_table(everything, caption))
    return {
        "reason": "",
        "tables": tables,
        "shares": found["correction"] if "improved_share" in found["correction"] else None,
    }


def _coverage(summary: Mapping[str, Any], parts: Mapping[str, str], titles: Mapping[str, str]) -> dict[str, Any]:
    """The table of measured intervals, where summary.json has any."""
    intervals = summary.get("intervals") or {}
    if "confidence" not in intervals:
        return {"table": None, "confidence": ""}
    confidence = show_share(intervals["confidence"])
    caption = (
        f"Share of {confidence} intervals that hold the truth, with its 95 % interval by patient, and their width."
    )
    return {"table": page_tables.coverage_table(intervals, parts, titles, caption), "confidence": confidence}


def _worst(tables: RunTables, run_dir: Path) -> dict[str, Any]:
    """The masks to look at, with the pictures that are embedded."""
    found = worst_masks(tables, run_dir)
    pictures = [p | {"uri": data_uri(p["path"].read_bytes())} for p in found["pictures"]]
    return found | {"pictures": pictures}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

"""summary.html: one file that opens offline, made from the case tables and the numbers of summary.json."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from whqa.report import figures
from whqa.report.entries import Columns, at_path, show_entry, show_interval, show_number
from whqa.report.statistics import DEFINITIONS, EXTERNAL_DEFINITIONS, REGIONS
from whqa.report.tables import RunTables, view
from whqa.structures import STRUCTURES

N_WORST, N_OVERLAYS = 8, 6
ERROR_COLUMNS: Columns = (
    ("error_dice", "error Dice", 3),
    ("error_auprc", "error AUPRC", 3),
    ("failure.aurc", "AURC", 4),
    ("failure.e_aurc", "e-AURC", 4),
    ("failure.auroc", "AUROC", 3),
    ("seconds_per_case", "seconds", 2),
)
QUALITY_COLUMNS: Columns = tuple(
    (f"{region}.{key}", f"{title} ({region})", digits)
    for region in REGIONS
    for key, title, digits in (
        ("pcc", "PCC", 3),
        ("spearman", "Spearman", 3),
        ("mae", "MAE", 5),
        ("mae_constant", "MAE of a constant", 5),
    )
)


def render_page(tables: RunTables, summary: dict[str, Any], run_dir: Path) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    environment = Environment(
        loader=PackageLoader("whqa.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"entry": show_entry, "at": at_path, "interval": show_interval, "sentence": _sentence}
    environment.filters["number"] = show_number
    return environment.get_template("summary.html.j2").render(
        summary=summary,
        plan=tables.folds["plan"],
        seed=tables.folds.get("seed", "unknown"),
        patients=len(set(tables.folds["patients"].values())),
        modalities=_counts(tables.folds.get("modalities", {}).values()),
        kinds=tables.kinds,
        segmented=len(tables.segmented) > 0,
        masks={masks: view_title(masks) for masks in shown_views(summary["methods"])},
        parts=(("error maps and failure detection", ERROR_COLUMNS), ("QI against Acc", QUALITY_COLUMNS)),
        definitions=DEFINITIONS | (EXTERNAL_DEFINITIONS if tables.external else {}),
        titles={key: STRUCTURES[key].name if key in STRUCTURES else key for key in tables.structures},
        figures=_figures(tables, shown_views(summary["methods"])),
        worst=_worst(tables, shown_views(summary["methods"])[0]),
        overlays=_overlays(run_dir, len(tables.folds["folds"])),
    )


def view_title(masks: str) -> str:
    """What a part of the tables is about, for people."""
    return {"final": "final masks", "all": "all mask kinds"}.get(masks, f"masks of {masks}")


def shown_views(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Parts of the tables of summary.json that hold a mask; without "all" where that is one program's masks again."""
    names = [masks for masks in next(iter(methods.values())) if any(parts[masks]["n"] for parts in methods.values())]
    return names[:1] if len(names) == 2 and "final" not in names else names


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counts(names: Iterable[str]) -> str:
    counts = pd.Series(list(names), dtype=str).value_counts().sort_index()
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _figures(tables: RunTables, shown: Sequence[str]) -> list[dict[str, Any]]:
    """Groups of figures: heading, what to look for, images as data URIs with a text alternative."""
    views = {masks: view(tables.judged, masks) for masks in shown}
    judge = tables.methods[0]
    segmentation = []
    if len(tables.segmented):
        figure = figures.segmentation_figure(tables.segmented, tables.structures, "Dice of the final masks")
        segmentation = [(figure, "Dice of the final masks by structure")]
    groups: list[tuple[str, str, list[tuple[Figure, str]]]] = [
        (
            "Does QI follow Acc?",
            "Points on the dashed line are judged exactly. Filled dots are final masks; other markers are other kinds."
            + (" Filled markers of another shape are masks of other programs." if tables.external else ""),
            [
                (
                    figures.scatter_figure(v, region, view_title(masks)),
                    f"QI against Acc over the {region}, {view_title(masks)}",
                )
                for masks, v in views.items()
                for region in ("volume", "heart")
            ],
        ),
        (
            f"Agreement of QI with Acc ({judge})",
            "Bland-Altman: the difference against the mean; lines at the bias and at ± 1.96 standard deviations.",
            [
                (
                    figures.bland_altman_figure(v, region, judge, f"{view_title(masks)}, {region}"),
                    f"Bland-Altman plot of {judge} over the {region}, {view_title(masks)}",
                )
                for masks, v in views.items()
                for region in ("volume", "heart")
            ],
        ),
        (
            "Which masks can be trusted?",
            "Keep the masks with the highest QI first: the lower the curve, the better QI ranks the masks.",
            [
                (
                    figures.risk_coverage_figure(v, tables.structures, view_title(masks)),
                    f"risk-coverage, {view_title(masks)}",
                )
                for masks, v in views.items()
            ],
        ),
        (
            "Error maps and masks",
            "Boxes span the quartiles with the median as a thick line; each dot is one mask.",
            [
                (figures.error_dice_figure(tables.judged, "error Dice by mask kind"), "error Dice by mask kind"),
                *segmentation,
            ],
        ),
    ]
    return [{"heading": h, "text": text, "images": [_image(f, alt) for f, alt in images]} for h, text, images in groups]


def _image(figure: Figure, alt: str) -> dict[str, Any]:
    return {"uri": _uri(figures.png(figure)), "alt": alt, "wide": figure.get_figwidth() > 1.6 * figure.get_figheight()}


def _worst(tables: RunTables, masks: str) -> dict[str, Any]:
    """Masks, final ones where there are any, that the first method misjudges most."""
    judge = tables.methods[0]
    rows = view(tables.judged, masks)
    rows = rows[rows["method"] == judge].assign(
        mean_dice=lambda t: t[[f"dice_{key}" for key in tables.structures]].mean(axis=1),
        gap=lambda t: (t["qi_volume"] - t["acc_volume"]).abs(),
    )
    rows = rows.sort_values(["gap", "case"], ascending=[False, True]).head(N_WORST)
    columns = [("mean_dice", 3), ("error_dice", 3), *((f"{q}_{r}", 5) for r in REGIONS for q in ("acc", "qi"))]
    return {
        "method": judge,
        "masks": view_title(masks),
        "rows": [
            [row["case"], str(row["fold"]), *(show_number(_or_none(row[c]), digits) for c, digits in columns)]
            for row in rows.to_dict("records")
        ],
    }


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _overlays(run_dir: Path, n_folds: int) -> list[dict[str, str]]:
    """Up to N_OVERLAYS pictures, one a fold in turn, so that every fold is seen before any is seen twice."""
    by_fold = [sorted((run_dir / "errormap" / str(k) / "figures").glob("*.png")) for k in range(n_folds)]
    turns = [(i, k, path) for k, paths in enumerate(by_fold) for i, path in enumerate(paths)]
    return [
        {"uri": _uri(path.read_bytes()), "name": path.stem, "fold": str(k)} for _, k, path in sorted(turns)[:N_OVERLAYS]
    ]


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

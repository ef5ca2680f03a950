"""report.html of one assessed mask: a file that opens offline and says what is wrong, how sure that is, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from whqa.contract.quality_json import Assessment, QualityJson
from whqa.files import atomic_path, write_text
from whqa.report import figures, judged_view, slices, standing, wording
from whqa.report.html import data_uri, render
from whqa.report.viewer import OPACITY, Viewer, ViewerUnavailableError, viewer_of
from whqa.results.mean_dice import expected_mean_dice
from whqa.results.worklist import piece_words, slices_through

PREVIEW_DPI = 120
# Of pictures and volumes; the viewer's script and the texts are another 1.3 MB.
PAGE_BYTES = 13_500_000
_PREVIEW_COLUMNS = 110
_PLANE_DPI, _PICTURE_BYTES = 140, 600_000
_PIECES = 20
_PARTS = {"heart": "QI over the heart", "volume": "QI over the whole volume", "dice": "mean Dice"}


def write_report(assessment: Assessment, path: Path) -> None:
    """Write the report as one self-contained HTML file, whole or not at all."""
    write_text(path, render_report(assessment))


def write_preview(assessment: Assessment, path: Path) -> None:
    """Write one PNG for a glance: the verdict, and mask and predicted error in three planes."""
    quality = assessment.quality
    _, word, sentence = wording.HEADLINES[quality["verdict"]["decision"]]
    words = [f"{word}: {sentence}", *wording.what_is_wrong(quality), "Research software, not a medical device."]
    lines = [line for sentence in words for line in textwrap.wrap(sentence, _PREVIEW_COLUMNS)]
    figure = judged_view.preview_figure(judged_view.judged_view(assessment), assessment.name, lines)
    with atomic_path(path) as temporary:
        temporary.write_bytes(figures.png(figure, PREVIEW_DPI))


def render_report(assessment: Assessment) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    quality = assessment.quality
    view = judged_view.judged_view(assessment)
    applied = bool(quality["correction"]["applied"])
    planes, standings = _planes(view, changes=False), _standings(assessment)
    changes = _planes(view, changes=True) if applied and view.changed.any() else []
    drawn, pieces = [*planes, *standings, *changes], _pieces(assessment)
    try:
        left = PAGE_BYTES - sum(len(picture["uri"]) for picture in drawn)
        viewer: Viewer | None = viewer_of(view, applied, left, [piece["mm"] for piece in pieces])
        viewer_missing = ""
    except ViewerUnavailableError as error:
        viewer, viewer_missing = None, str(error)
    return render(
        "assessment.html.j2",
        looks="assessment.css",
        script="viewer.js" if viewer else "",
        name=assessment.name,
        quality=quality,
        viewer=viewer,
        viewer_missing=viewer_missing,
        opacity=OPACITY,
        pieces=pieces,
        work=quality["work"],
        layers=_layers(applied, view.opinion is not None),
        # whole percents, as the slider has them
        errors_from=min(1.0, round(quality["error_map"]["threshold"], 2)),
        error_map=wording.error_map_words(quality),
        opinion=wording.opinion_words(quality),
        headline=wording.HEADLINES[quality["verdict"]["decision"]],
        wrong=wording.what_is_wrong(quality),
        sure=wording.how_sure(quality),
        advice=wording.what_to_do(quality),
        correction=wording.correction_words(quality),
        applied=applied,
        tiles=_tiles(quality),
        rows=(rows := _rows(assessment)),
        labels=[row for row in rows if row["volume"] or row["corrected"]],
        planes=planes,
        any_error=bool(view.error_map.any()),
        tints={"error": slices.PREDICTED_ERROR, "changed": judged_view.CHANGED},
        changes=changes,
        standings=standings,
        rank=standing.rank_words(assessment.population, quality),
        provenance=_provenance(quality),
    )


def _pieces(assessment: Assessment) -> list[dict[str, Any]]:
    """The largest pieces to correct, with where they lie in the scan."""
    quality = assessment.quality
    return [
        {
            "ml": piece["ml"],
            "words": piece_words(piece, quality),
            "probability": wording.percent(piece["probability"], 0),
            "slices": slices_through(quality["image"], piece["voxel"]),
            "mm": (assessment.affine @ [*piece["voxel"], 1.0])[:3].round(3).tolist(),
        }
        for piece in quality["work"]["largest"][:_PIECES]
    ]


def _layers(corrected: bool, opinion: bool) -> list[tuple[str, str]]:
    """(name, words) of the label maps that the viewer can show; a key each, from 1 on."""
    return [
        ("mask", "mask"),
        *([("corrected", "corrected mask")] if corrected else []),
        *([("opinion", "second opinion")] if opinion else []),
    ]


def _tiles(quality: QualityJson) -> list[dict[str, str]]:
    """The figures that sum the mask up."""
    tiles = []
    regions = quality["qi"]
    for found, words in ((regions["heart"], "in and around the heart"), (regions["volume"], "in the whole volume")):
        tiles.append(
            {
                "label": f"Voxels that look right, {words} (QI)",
                "value": "n/a" if found["value"] is None else wording.percent(found["value"]),
                "beside": _beside(found, quality["confidence"]),
            }
        )
    dice = expected_mean_dice(quality["structures"])
    if dice is not None:
        tiles.append(
            {"label": "Expected Dice, mean of the structures", "value": f"{dice:.2f}", "beside": "1 is perfect"}
        )
    return tiles


def _beside(found: Mapping[str, Any], confidence: float) -> str:
    if found.get("interval"):
        return f"truth: {wording.percents(found['interval'])} ({wording.confidence_words(confidence)} interval)"
    return str(found.get("reason") or "no interval")


def _rows(assessment: Assessment) -> list[dict[str, Any]]:
    """The table of structures; bar positions in percent of the bar."""
    scheme, found = assessment.scheme, assessment.quality["structures"]
    tags, rows = judged_view.tags_of(scheme), []
    for key, tag, colour in zip(scheme.keys, tags, scheme.colours, strict=True):
        s = found[key]
        interval, dice = s["dice_interval"], s["dice_expected"]
        rows.append(
            {
                "key": key,
                "tag": tag,
                "name": s["name"],
                "colour": colour,
                "dice": "n/a" if dice is None else f"{dice:.2f}",
                "at": None if dice is None else min(99.4, max(0.6, 100 * dice)),
                "interval": None if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
                "bar": None if interval is None else (100 * interval[0], 100 * (interval[1] - interval[0])),
                "volume": s["volume_ml"],
                "corrected": s["volume_ml_corrected"],
                "wrong": "n/a" if s["wrong_share"] is None else wording.percent(s["wrong_share"]),
                "opinion": "n/a" if s["dice_opinion"] is None else f"{s['dice_opinion']:.2f}",
                "correction": s["correction"]["reason"] if assessment.quality["correction"]["applied"] else "",
                "reason": s.get("reason") or ("" if s["volume_ml"] else "not in the mask"),
            }
        )
    return rows


def _planes(view: judged_view.JudgedView, changes: bool) -> list[dict[str, str]]:
    """Per plane the slice with most predicted errors, or that in which the correction changed most."""
    at = slices.worst_voxel(view.changed if changes else view.error_map, view.mask)
    draw = judged_view.change_figure if changes else judged_view.plane_figure
    shown = "the mask before, and below it after the correction"
    if not changes:
        shown = "the mask's outlines, and below it the predicted error"
    return [
        _picture(
            draw(view, axis_index, at),
            f"{plane.capitalize()} slice: {shown}",
            f"{plane.capitalize()}, {view.slice_words(axis_index, at)}",
        )
        for axis_index, plane in slices.PLANES
    ]


def _standings(assessment: Assessment) -> list[dict[str, str]]:
    population, quality = assessment.population, assessment.quality
    known = [row for row in population if row.get("mean_dice_predicted") is not None]
    parts = [part for part in _PARTS if population and (part != "dice" or known)]
    return [
        _picture(
            standing.standing_figure(population, quality, part),
            f"{_PARTS[part]} of the run's own masks against the truth, and this case",
            _PARTS[part],
        )
        for part in parts
    ]


def _picture(figure: Figure, alt: str, caption: str) -> dict[str, str]:
    png = figures.png(figure, _PLANE_DPI)
    if len(png) > _PICTURE_BYTES:
        # noise does not compress
        png = figures.png(figure, _PLANE_DPI / 2)
    return {"uri": data_uri(png), "alt": alt, "caption": caption}


def _provenance(quality: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was judged, by what, with which versions: titles with lines of name and value."""
    parts = (
        *(("image", "Image"), ("mask", "Mask"), ("model", "Model"), ("opinion", "Second opinion")),
        *(("versions", "Versions"), ("seconds", "Seconds")),
    )
    return [(title, _lines(quality[key])) for key, title in parts if quality.get(key)]


def _lines(value: Any, name: str = "") -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [line for k, v in value.items() for line in _lines(v, f"{name} {k}".strip().replace("_", " "))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value))]
    return [(name or "value", f"{value:.4g}" if isinstance(value, float) else str(value))]

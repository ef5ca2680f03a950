"""report.html of one assessed mask: a file that opens offline and says what is wrong, how sure that is, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from whqa.contract.quality_json import Assessment, QualityJson
from whqa.files import atomic_path, write_text
from whqa.parallel.beside import Start
from whqa.report import wording
from whqa.report.html import data_uri, render
from whqa.report.judged_view import judged_view
from whqa.report.pictures import Asked, DrawnPicture, changed_slices, draw, error_slices
from whqa.report.shown import CHANGED, PREDICTED_ERROR, JudgedView, tags_of
from whqa.report.standing import standings_of
from whqa.report.viewer import OPACITY, Viewer, ViewerUnavailableError, viewer_of
from whqa.results.mean_dice import expected_mean_dice
from whqa.results.worklist import piece_words, slices_through

PREVIEW_DPI = 120
# Of pictures and volumes; the viewer's script and the texts are another 1.3 MB.
PAGE_BYTES = 13_500_000
_PREVIEW_COLUMNS = 110
_PIECES = 20


def write_report(assessment: Assessment, path: Path) -> None:
    """Write the report as one self-contained HTML file, whole or not at all."""
    begin_report(assessment)(path)


def begin_report(assessment: Assessment, start: Start = partial) -> Callable[[Path], None]:
    """Begin a report.

    Args:
        assessment: of one mask.
        start: has its pictures drawn, in this process or in others.

    Returns:
        Writes it, whole or not at all.
    """
    view = judged_view(assessment)
    drawn = [[start(draw, shown) for shown in part] for part in _asked(assessment, view)]
    return lambda path: write_text(path, _page(assessment, view, drawn))


def write_preview(assessment: Assessment, path: Path) -> None:
    """Write one PNG for a glance: the verdict, and mask and predicted error in three planes."""
    from whqa.report.judged_pictures import preview_figure  # matplotlib
    from whqa.report.style import png

    quality = assessment.quality
    _, word, sentence = wording.HEADLINES[quality["verdict"]["decision"]]
    words = [f"{word}: {sentence}", *wording.what_is_wrong(quality), "Research software, not a medical device."]
    lines = [line for sentence in words for line in textwrap.wrap(sentence, _PREVIEW_COLUMNS)]
    figure = preview_figure(judged_view(assessment), assessment.name, lines)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(figure, PREVIEW_DPI))


def render_report(assessment: Assessment) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    view = judged_view(assessment)
    return _page(assessment, view, [[partial(draw, shown) for shown in part] for part in _asked(assessment, view)])


def _asked(assessment: Assessment, view: JudgedView) -> Asked:
    quality = assessment.quality
    corrected = quality["correction"]["applied"] and view.changed.any()
    return Asked(
        error_slices(view),
        changed_slices(view) if corrected else [],
        standings_of(assessment.population, quality),
    )


def _page(assessment: Assessment, view: JudgedView, drawn: Sequence[Sequence[Callable[[], DrawnPicture]]]) -> str:
    quality = assessment.quality
    applied, pieces = bool(quality["correction"]["applied"]), _pieces(assessment)
    with_volumes = partial(viewer_of, view, applied, pieces=[piece["mm"] for piece in pieces])
    try:
        viewer: Viewer | None = with_volumes(budget=PAGE_BYTES)
        viewer_missing = ""
    except ViewerUnavailableError as error:
        viewer, viewer_missing = None, str(error)
    # only now: they may be drawn beside this process
    planes, changes, standings = ([_shown(picture()) for picture in part] for part in drawn)
    left = PAGE_BYTES - sum(len(picture["uri"]) for picture in (*planes, *changes, *standings))
    if viewer and len(viewer.data) > left:
        viewer = with_volumes(budget=left)
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
        tints={"error": PREDICTED_ERROR, "changed": CHANGED},
        changes=changes,
        standings=standings,
        rank=wording.rank_words(assessment.population, quality),
        provenance=_provenance(quality),
    )


def _shown(picture: DrawnPicture) -> dict[str, str]:
    return {"uri": data_uri(picture.png), "alt": picture.alt, "caption": picture.caption}


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
    tags, rows = tags_of(scheme), []
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

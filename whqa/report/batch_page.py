"""index.html of a batch: the worklist for people, the worst first, with links to the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from whqa.report.html import render
from whqa.report.wording import BADGES, HEADLINES, time_words
from whqa.results.correction_time import CorrectionTime
from whqa.results.worklist import WORST_FIRST, work_item, worklist_key


class ListedCase(Protocol):
    """What the page needs to know of a case that was asked for."""

    @property
    def name(self) -> str:
        """Of the case."""

    @property
    def folder(self) -> str:
        """Name of its folder beside the page."""

    @property
    def quality(self) -> Mapping[str, Any] | None:
        """Content of quality.json; None where the case failed."""

    @property
    def error(self) -> str | None:
        """Why it failed, one line."""

    @property
    def report(self) -> bool:
        """Whether its folder has a report."""


def render_index(cases: Sequence[ListedCase], run: str, time: CorrectionTime) -> str:
    """The page as HTML; everything that comes from files is escaped.

    Args:
        cases: judged and failed ones, in any order.
        run: name of the trained run.
        time: that corrections take.
    """
    judged = [case for case in cases if case.quality is not None]
    rows = sorted((index_row(case, time) for case in judged), key=lambda row: row["rank"])
    asked = f"{len(cases)} case{'' if len(cases) == 1 else 's'}"
    return render(
        "batch.html.j2",
        looks="batch.css",
        script="batch.js" if rows else "",
        title=f"{asked}{'' if len(judged) == len(cases) else f', {len(judged)}'} judged by {run}",
        leads_to="the full report" if all(case.report for case in judged) else "what was found, in quality.json",
        rows=rows,
        tiles=_tiles(rows),
        total=time_words(sum(row["item"].minutes for row in rows)),
        structures=sorted({row["structure"] for row in rows if row["structure"]}),
        time=time,
        smallest=judged[0].quality["work"]["smallest_ml"] if judged and judged[0].quality else None,
        failed=[case for case in cases if case.quality is None],
        confidence=judged[0].quality["confidence"] if judged and judged[0].quality else None,
    )


def _tiles(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    tiles = []
    for decision in WORST_FIRST:
        symbol, word, sentence = HEADLINES[decision]
        of_decision = [row["item"].minutes for row in rows if row["decision"] == decision]
        tiles.append(
            {
                "badge": BADGES[decision],
                "words": f"{symbol} {word}",
                "count": len(of_decision),
                "beside": f"{sentence} About {time_words(sum(of_decision))} to correct." if of_decision else sentence,
            }
        )
    return tiles


def index_row(case: ListedCase, time: CorrectionTime) -> dict[str, Any]:
    """What the page says about a judged case.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration: its quality is not what whqa writes.
    """
    quality = case.quality or {}
    item = work_item(case.name, quality, time)
    symbol, word, _ = HEADLINES[item.decision]
    structures = quality["structures"]
    folder = quote(case.folder, safe="")
    return {
        "item": item,
        "rank": worklist_key(case.name, quality),
        "link": f"{folder}/{'report.html' if case.report else 'quality.json'}",
        "piece": f"{folder}/report.html#piece-1" if case.report and item.pieces else None,
        "decision": item.decision,
        "badge": BADGES[item.decision],
        "verdict": f"{symbol} {word}",
        "minutes": time_words(item.minutes),
        "structure": structures[item.structure]["name"] if item.structure else None,
        "heart": _with_ends(quality["qi"]["heart"], "value", "interval"),
        "worst": None if item.worst is None else _with_ends(structures[item.worst], "dice_expected", "dice_interval"),
        "reasons": list(quality["verdict"]["reasons"]),
        "strange": [entry["message"] for entry in quality["out_of_distribution"]],
        "warnings": list(quality["warnings"]),
        "corrected": quality["correction"]["applied"] and quality["correction"]["changed_voxels"] > 0,
    }


def _with_ends(values: Mapping[str, Any], value: str, interval: str) -> dict[str, Any]:
    ends = values[interval] or None
    if ends is not None:
        low, high = ends
        ends = [float(low), float(high)]
    number = None if values[value] is None else float(values[value])
    return {**values, value: number, interval: ends}

"""index.html of a batch: every mask that was judged, the worst first, with links to the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from whqa.report.html import render
from whqa.report.wording import HEADLINES
from whqa.results.mean_dice import expected_mean_dice

_ORDER = ("reject", "review", "accept")
_BADGES = {"reject": "bad", "review": "watch", "accept": "good"}


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


def render_index(cases: Sequence[ListedCase], run: str) -> str:
    """The page as HTML; everything that comes from files is escaped.

    Args:
        cases: judged and failed ones, in any order.
        run: name of the trained run.
    """
    judged = [case for case in cases if case.quality is not None]
    rows = sorted((index_row(case) for case in judged), key=lambda row: row["rank"])
    counts = {decision: sum(row["decision"] == decision for row in rows) for decision in _ORDER}
    asked = f"{len(cases)} case{'' if len(cases) == 1 else 's'}"
    return render(
        "batch.html.j2",
        looks="batch.css",
        title=f"{asked}{'' if len(judged) == len(cases) else f', {len(judged)}'} judged by {run}",
        leads_to="the full report" if all(case.report for case in judged) else "what was found, in quality.json",
        rows=rows,
        tiles=[(HEADLINES[d], _BADGES[d], counts[d]) for d in _ORDER],
        failed=[case for case in cases if case.quality is None],
        confidence=judged[0].quality["confidence"] if judged and judged[0].quality else None,
    )


def index_row(case: ListedCase) -> dict[str, Any]:
    """What the page says about a judged case.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError: its quality is not what whqa writes.
    """
    quality = case.quality or {}
    verdict = quality["verdict"]
    score = verdict.get("score")
    symbol, word, _ = HEADLINES[verdict["decision"]]
    return {
        "name": case.name,
        "rank": (_ORDER.index(verdict["decision"]), -1.0 if score is None else float(score), case.name),
        "link": quote(case.folder, safe="") + ("/report.html" if case.report else "/quality.json"),
        "decision": verdict["decision"],
        "badge": _BADGES[verdict["decision"]],
        "verdict": f"{symbol} {word}",
        "heart": _with_ends(quality["qi"]["heart"], "value", "interval"),
        "dice": expected_mean_dice(quality["structures"]),
        "worst": _worst_structure(quality["structures"]),
        "reasons": list(verdict["reasons"]),
        "strange": [entry["message"] for entry in quality["out_of_distribution"]],
        "warnings": list(quality["warnings"]),
        "corrected": quality["correction"]["applied"],
    }


def _with_ends(values: dict[str, Any], value: str, interval: str) -> dict[str, Any]:
    ends = values[interval] or None
    if ends is not None:
        low, high = ends
        ends = [float(low), float(high)]
    number = None if values[value] is None else float(values[value])
    return values | {value: number, interval: ends}


def _worst_structure(structures: dict[str, Any]) -> dict[str, Any] | None:
    known = [
        _with_ends(s, "dice_expected", "dice_interval") for s in structures.values() if s["dice_expected"] is not None
    ]
    return min(known, key=lambda s: s["dice_expected"], default=None)

"""index.html of a batch: every mask that was judged, the worst first, with links to the reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from whqa.report.wording import HEADLINES

if TYPE_CHECKING:
    from whqa.assessment.batch import Outcome

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ORDER = ("reject", "review", "accept")
_BADGES = {"reject": "bad", "review": "watch", "accept": "good"}


def render_index(outcomes: Sequence[Outcome], run: str) -> str:
    """The page as HTML; everything that comes from files is escaped.

    Args:
        outcomes: see `whqa.assessment.batch.assess_many`.
        run: name of the trained run.
    """
    environment = Environment(
        loader=PackageLoader("whqa.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    judged = [outcome for outcome in outcomes if outcome.quality is not None]
    rows = [_row(outcome) for outcome in sorted(judged, key=_worst_first)]
    counts = {decision: sum(row["decision"] == decision for row in rows) for decision in _ORDER}
    return environment.get_template("batch.html.j2").render(
        policy=POLICY,
        run=run,
        total=len(outcomes),
        rows=rows,
        tiles=[(HEADLINES[d], _BADGES[d], counts[d]) for d in _ORDER],
        failed=[outcome for outcome in outcomes if outcome.quality is None],
        confidence=judged[0].quality["confidence"] if judged and judged[0].quality else None,
    )


def _worst_first(outcome: Outcome) -> tuple[int, float, str]:
    quality = outcome.quality or {}
    verdict = quality["verdict"]
    score = verdict.get("score")
    return _ORDER.index(verdict["decision"]), -1.0 if score is None else score, outcome.name


def _row(outcome: Outcome) -> dict[str, Any]:
    quality = outcome.quality or {}
    verdict = quality["verdict"]
    symbol, word, _ = HEADLINES[verdict["decision"]]
    return {
        "name": outcome.name,
        "link": quote(outcome.folder, safe="") + ("/report.html" if outcome.report else "/quality.json"),
        "decision": verdict["decision"],
        "badge": _BADGES[verdict["decision"]],
        "verdict": f"{symbol} {word}",
        "heart": quality["qi"]["heart"],
        "dice": _mean_dice(quality["structures"]),
        "worst": _worst_structure(quality["structures"]),
        "reasons": verdict["reasons"],
        "strange": [entry["message"] for entry in quality["out_of_distribution"]],
        "warnings": quality["warnings"],
        "corrected": quality["correction"]["applied"],
    }


def _mean_dice(structures: dict[str, Any]) -> float | None:
    known = [s["dice_expected"] for s in structures.values() if s["dice_expected"] is not None]
    return sum(known) / len(known) if known else None


def _worst_structure(structures: dict[str, Any]) -> dict[str, Any] | None:
    known = [s for s in structures.values() if s["dice_expected"] is not None]
    return min(known, key=lambda s: s["dice_expected"], default=None)

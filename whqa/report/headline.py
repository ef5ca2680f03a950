"""What a run shows, in a few tiles: each number beside the best that the other methods reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whqa.report.numbers import show_share
from whqa.report.summary_tables import cell, rank, share_cell
from whqa.results.summary_entry import at_path
from whqa.results.tables import ABLATIONS


@dataclass(frozen=True)
class HeadlineTile:
    """A number with its meaning; `badge` is (good | watch | bad, words)."""

    label: str
    value: str
    interval: str
    beside: str = ""
    badge: tuple[str, str] | None = None


# path, question, digits
_COMPARED = (
    ("error_dice", "Finds the wrong voxels: error Dice", 3),
    ("volume.pcc", "QI follows Acc: PCC (volume)", 3),
    ("volume.mae", "QI is off by: MAE (volume)", 4),
    ("failure.aurc", "Ranks the masks: AURC, lower is better", 3),
)


def tiles(summary: Mapping[str, Any], part: str) -> list[HeadlineTile]:
    """The tiles of one part of the tables, e.g. "final"."""
    found = []
    dice = summary["segmentation"]["dice"]
    if dice["mean"] is not None:
        shown = cell(dice, 3)
        found.append(HeadlineTile("The judged masks: mean Dice of the final ones", shown.text, shown.interval))
    found += [_compared(summary["methods"], part, path, label, digits) for path, label, digits in _COMPARED]
    own = next(iter(summary["methods"].values()))[part]
    if own["correction"]["gain"]["mean"] is not None:
        found.append(_gain(own["correction"]))
    coverage = summary.get("intervals", {}).get(part, {}).get("acc_volume", {}).get("coverage")
    if coverage and coverage["mean"] is not None:
        shown, wanted = share_cell(coverage), summary["intervals"]["confidence"]
        found.append(
            HeadlineTile(f"{show_share(wanted)} intervals for Acc that hold the truth", shown.text, shown.interval)
        )
    return found


def _compared(methods: Mapping[str, Mapping[str, Any]], part: str, path: str, label: str, digits: int) -> HeadlineTile:
    """The first method beside the best of the others; a constant counts for what it can do."""
    own, *others = (name for name in methods if name not in ABLATIONS)
    mine = at_path(methods[own][part], path)
    shown = cell(mine, digits)
    rivals = {name: at_path(methods[name][part], path) for name in others}
    rivals = {name: entry for name, entry in rivals.items() if entry["mean"] is not None}
    if mine["mean"] is None or not rivals:
        return HeadlineTile(label, shown.text, shown.interval, shown.reason)
    best = max(rivals, key=lambda name: rank(rivals[name]["mean"], path))
    theirs = rivals[best]
    beside = f"best other method: {best} {cell(theirs, digits).text}"
    own_rank, best_rank = (rank(entry["mean"], path) for entry in (mine, theirs))
    ahead = own_rank > best_rank
    if _apart(mine["ci95"], theirs["ci95"]):
        return HeadlineTile(
            label, shown.text, shown.interval, beside, ("good", "ahead") if ahead else ("bad", "behind")
        )
    if own_rank == best_rank:
        words = "as good"
    elif mine["ci95"] is None or theirs["ci95"] is None:
        words = f"{'ahead' if ahead else 'behind'}, of too few patients for intervals"
    else:
        words = f"{'ahead' if ahead else 'behind'}, but intervals overlap"
    return HeadlineTile(label, shown.text, shown.interval, beside, ("watch", words))


def _apart(a: list[float] | None, b: list[float] | None) -> bool:
    return a is not None and b is not None and (a[0] > b[1] or b[0] > a[1])


def _gain(correction: Mapping[str, Any]) -> HeadlineTile:
    shown = cell(correction["gain"], 3, signed=True)
    before, after = (cell(correction[name], 3).text for name in ("dice_before", "dice_after"))
    badge = None
    ends = correction["gain"]["ci95"]
    if ends is not None:
        badge = ("good", "helps") if ends[0] > 0 else ("bad", "harms") if ends[1] < 0 else ("watch", "not clear")
    return HeadlineTile("Correction: gain in mean Dice", shown.text, shown.interval, f"from {before} to {after}", badge)

"""comparison.html: what correction changed, case by case and structure by structure."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from whqa.contract.comparison_json import ChangedNumber, ComparedAssessments
from whqa.files import printable
from whqa.report.html import render
from whqa.report.wording import BADGES, HEADLINES, listed, time_words

# Of an expected Dice: smaller changes of a structure are left out in the terminal.
_TOLD = 0.01


def render_comparison(found: ComparedAssessments) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    n = len(found["cases"])
    return render(
        "comparison.html.j2",
        title=f"{n} case{'' if n == 1 else 's'} before and after correction",
        found=found,
        badges=BADGES,
        headlines=HEADLINES,
        shown=shown_change,
        time_words=time_words,
        pieces=pieces_words,
        structures=[*{key: s["name"] for case in found["cases"] for key, s in case["structures"].items()}.items()],
    )


def shown_change(change: ChangedNumber, digits: int = 2) -> str:
    """Such as "0.81 → 0.92 (+0.11)"."""
    before, after = ("n/a" if v is None else f"{v:.{digits}f}" for v in (change["before"], change["after"]))
    difference = change["difference"]
    return f"{before} → {after}" + ("" if difference is None else f" ({round(difference, digits) + 0:+.{digits}f})")


def pieces_words(pieces: list[Any], names: dict[str, Any]) -> str:
    """Such as "3, 12.3 ml (left atrium and aorta)", by the structures of `names` that they are in."""
    if not pieces:
        return "none"
    keys = dict.fromkeys(p["structure"] or p["opinion"] for p in pieces)
    where = [names[key]["name"] for key in keys if key in names]
    told = f" ({listed(where)})" if where else ""
    return f"{len(pieces)}, {sum(p['ml'] for p in pieces):.1f} ml{told}"


def comparison_table(found: ComparedAssessments) -> Table:
    """For the terminal: a line a case, and one for each of its structures whose expected Dice changed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("case", overflow="fold", min_width=8)
    table.add_column("verdict, structure", overflow="fold")
    for head in ("Dice", "QI heart", "min", "vanished", "appeared"):
        table.add_column(head, no_wrap=True)
    for case in found["cases"]:
        verdict = case["decision"]
        cells = (
            case["case"],
            f"{verdict['before']} → {verdict['after']}",
            shown_change(case["mean_dice"] | {"difference": None}),
            shown_change(case["qi_heart"] | {"difference": None}),
            shown_change(case["minutes"] | {"difference": None}, 0),
            *(pieces_words(pieces, {}) for pieces in (case["vanished"], case["appeared"])),
        )
        table.add_row(*map(_plain, cells))
        for structure in case["structures"].values():
            change = structure["dice_expected"]
            if abs(change["difference"] or 0) >= _TOLD:
                table.add_row("", _plain(structure["name"]), shown_change(change | {"difference": None}))
    return table


def _plain(text: str) -> str:
    """A terminal obeys what is not printable, rich what stands in brackets."""
    return escape(printable(text))

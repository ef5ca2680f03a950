"""Markdown tables say what summary.json and a comparison say."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from whqa.report.evidence_tables import (
    SIZE_TITLES,
    expected_dice_table,
    leads_table,
    markdown,
    methods_table,
    places_table,
    signed,
    sizes_table,
    structures_table,
    true_quality_table,
)
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def summary(tmp_path_factory, write_run):
    run = write_run(tmp_path_factory.mktemp("runs") / "demo", kinds=("final", "side1"), labels=True, regressor=True)
    return summarize(run, Console(file=io.StringIO()))


def _cells(table: str) -> list[list[str]]:
    head, line, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert set(line) == {"---"}
    assert {len(row) for row in rows} == {len(head)}
    return [head, *rows]


def test_a_cell_cannot_break_its_table() -> None:
    assert markdown(("a", "b"), [("x|y", "1\n2\N{NO-BREAK SPACE}%")]) == "| a | b |\n|---|---|\n| x\\|y | 1 2 % |"


def test_methods_have_a_row_for_each_part_and_what_is_not_known_is_said(summary) -> None:
    head, *rows = _cells(methods_table(summary["methods"]))
    assert head[:4] == ["method", "masks", "error Dice", "the network leads by"]
    found = {(row[0], row[1]): row[2:] for row in rows}
    names = set(summary["methods"])
    assert set(found) == {(name, part) for name in names for part in ("final", "all kinds")}
    for (name, part), cells in found.items():
        numbers = summary["methods"][name]["all" if part == "all kinds" else part]
        lead = numbers["lead"]
        if name == "dice_regressor":
            assert cells[:3] == ["n/a"] * 3
        else:
            assert cells[0] == f"{numbers['error_dice']['mean']:.3f}"
            assert cells[1] == ("" if name == "errormap" else signed(lead))
        assert cells[4] == f"{numbers['volume']['mae']['mean']:.4f}"
    low, high = summary["methods"]["boundary"]["final"]["lead"]["ci95"]
    assert found["boundary", "final"][1].endswith(f"[{low:.3f} to {high:.3f}]")


def test_leads_are_over_those_that_have_an_error_map(summary) -> None:
    head, *rows = _cells(leads_table(summary["methods"]))
    assert head == ["masks", "errormap", "lead over entropy", "lead over boundary", "lead over constant"]
    assert [row[0] for row in rows] == ["final", "all kinds"]
    assert rows[0][3] == signed(summary["methods"]["boundary"]["final"]["lead"])


def test_places_are_those_of_methods_that_show_some(summary) -> None:
    head, *rows = _cells(places_table(summary["methods"]))
    assert "dice_regressor" not in head
    assert [row[0] for row in rows] == ["final", "all kinds"]
    places = summary["methods"]["boundary"]["final"]["places"]
    told = f"{places['recall']['mean']:.2f} / {places['false_per_mask']['mean']:.1f}"
    assert rows[0][head.index("boundary")] == told


def test_sizes_have_the_recalls_of_the_summary(summary) -> None:
    head, *rows = _cells(sizes_table(summary["methods"]))
    assert head[:3] == ["masks", "errors", "of the wrong voxels"]
    assert "dice_regressor" not in head
    for row in rows:
        part = "all" if row[0] == "all kinds" else row[0]
        size = next(size for size, title in SIZE_TITLES.items() if title == row[1])
        numbers = summary["methods"]["boundary"][part]["places"]["by_size"][size]
        told = numbers["recall"]["mean"]
        shown = "n/a" if told is None else f"{told:.2f}"
        assert row[head.index("boundary")] == f"{numbers['voxel_recall']['mean']:.2f} / {shown}"
    assert len(rows) == 2 * len(SIZE_TITLES)


def test_expected_dice_is_that_of_methods_which_expect_one(summary) -> None:
    structures = summary["cohort"]["structures"]
    head, *rows = _cells(expected_dice_table(summary["methods"], structures))
    assert head == ["method", "masks", "mean of structures", *structures]
    assert {row[0] for row in rows} == {"errormap", "dice_regressor"}
    for row in rows:
        numbers = summary["methods"][row[0]]["all" if row[1] == "all kinds" else row[1]]
        assert row[2].startswith(f"{numbers['expected_dice_mae']['mean']:.3f} [")
        assert row[3:] == [f"{numbers['by_structure'][k]['expected_dice_mae']['mean']:.3f}" for k in structures]


def test_strata_and_structures_are_those_of_the_summary(summary) -> None:
    strata = summary["methods"]["errormap"]["all"]["strata"]
    _, *rows = _cells(true_quality_table(summary["methods"]["errormap"]["all"]))
    assert [int(row[1]) for row in rows] == [found["n"] for found in strata.values() if found["n"]]
    assert {row[0] for row in rows} <= {
        "reference (no wrong voxel)",
        "mild (from 0.95)",
        "good (0.85-0.95)",
        "fair (0.7-0.85)",
        "bad (below 0.7)",
    }
    head, *rows = _cells(structures_table(summary["methods"], "final", summary["cohort"]["structures"]))
    assert [row[0] for row in rows] == summary["cohort"]["structures"]
    expected = summary["methods"]["errormap"]["final"]["by_structure"]["rv"]["error_dice"]["mean"]
    assert rows[1][head.index("errormap")] == f"{expected:.3f}"

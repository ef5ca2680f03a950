"""The tiles of a summary: whom the network is compared with, and in which words."""

from __future__ import annotations

import copy

import pytest

from whqa.report.headline import tiles
from whqa.report.summary_tables import method_table


def _entry(mean, low=None, high=None):
    return {"mean": mean, "ci95": None if low is None else [low, high]} | ({"reason": "why"} if mean is None else {})


def _numbers(dice, mae):
    nothing = _entry(None)
    return {
        "n": 3,
        "error_dice": dice,
        "volume": {"pcc": nothing, "mae": mae},
        "failure": {"aurc": _entry(0.2)},
        "correction": {"dice_before": nothing, "dice_after": nothing, "gain": nothing},
    }


@pytest.fixture
def summary():
    methods = {
        "errormap": {"final": _numbers(_entry(0.6, 0.55, 0.65), _entry(0.02, 0.015, 0.025))},
        "constant": {"final": _numbers(_entry(0.0, 0.0, 0.0), _entry(0.01, 0.008, 0.012))},
        "entropy": {"final": _numbers(_entry(0.5, 0.45, 0.56), _entry(0.5, 0.4, 0.6))},
    }
    return copy.deepcopy({"segmentation": {"dice": _entry(0.8, 0.7, 0.9)}, "methods": methods})


def _of(summary, words):
    (found,) = [tile for tile in tiles(summary, "final") if words in tile.label]
    return found


def test_the_best_rival_is_the_highest_dice_but_the_lowest_mae(summary):
    dice, mae = _of(summary, "error Dice"), _of(summary, "MAE")
    assert dice.beside == "best other method: entropy 0.500"
    assert dice.badge == ("watch", "ahead, but intervals overlap")
    assert mae.beside == "best other method: constant 0.0100"
    assert mae.badge == ("bad", "behind")
    summary["methods"]["entropy"]["final"]["error_dice"] = _entry(0.4, 0.35, 0.54)
    assert _of(summary, "error Dice").badge == ("good", "ahead")


def test_the_network_with_an_input_of_another_patient_is_no_rival(summary):
    summary["methods"]["mask_shuffled"] = {"final": _numbers(_entry(0.7, 0.6, 0.8), _entry(0.001, 0.0, 0.002))}
    assert _of(summary, "error Dice").beside == "best other method: entropy 0.500"
    columns = (("error_dice", "error Dice", 3), ("volume.mae", "MAE", 4))
    rows = method_table(summary["methods"], "final", columns, "t").rows
    assert [[cell.best for cell in row.cells] for row in rows if row.name == "mask_shuffled"] == [[False, False]]
    assert [row.name for row in rows if row.cells[0].best] == ["errormap"]


def test_what_is_not_defined_says_why_and_has_no_badge(summary):
    found = _of(summary, "PCC")
    assert (found.value, found.interval, found.beside, found.badge) == ("n/a", "", "why", None)


@pytest.mark.parametrize(
    ("ends", "badge"), [((0.01, 0.03), "helps"), ((-0.01, 0.03), "not clear"), ((-0.03, -0.01), "harms")]
)
def test_correction_helps_only_where_its_interval_says_so(summary, ends, badge):
    gain = {"dice_before": _entry(0.7, 0.6, 0.8), "dice_after": _entry(0.72, 0.6, 0.8), "gain": _entry(0.02, *ends)}
    summary["methods"]["errormap"]["final"]["correction"] = gain
    found = _of(summary, "Correction")
    assert found.value == "+0.020"
    assert found.beside == "from 0.700 to 0.720"
    assert found.badge[1] == badge


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        (_entry(0.6), _entry(0.5), "ahead, of too few patients for intervals"),
        (_entry(0.4, 0.3, 0.5), _entry(0.5), "behind, of too few patients for intervals"),
        (_entry(0.5, 0.4, 0.6), _entry(0.5, 0.4, 0.6), "as good"),
    ],
)
def test_what_cannot_be_told_apart_is_not_called_overlapping(summary, mine, theirs, words):
    del summary["methods"]["constant"]
    summary["methods"]["errormap"]["final"]["error_dice"] = mine
    summary["methods"]["entropy"]["final"]["error_dice"] = theirs
    assert _of(summary, "error Dice").badge == ("watch", words)


def test_intervals_are_shown_where_they_were_measured(summary):
    assert not [tile for tile in tiles(summary, "final") if "hold the truth" in tile.label]
    summary["intervals"] = {"confidence": 0.9, "final": {"acc_volume": {"coverage": _entry(0.893, 0.85, 0.94)}}}
    found = _of(summary, "hold the truth")
    assert found.label.startswith("90\N{NO-BREAK SPACE}% intervals")
    assert found.value == "89\N{NO-BREAK SPACE}%"


def test_without_segmenter_there_is_no_tile_of_its_masks(summary):
    summary["segmentation"]["dice"] = _entry(None)
    assert not [tile for tile in tiles(summary, "final") if "judged masks" in tile.label]

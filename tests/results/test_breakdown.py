"""Kinds, structures and corrections against plain pandas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from whqa.results.breakdown import breakdown

STRUCTURES = ("lv", "rv")


@pytest.fixture(scope="module")
def rows():
    """Ten patients with two kinds; a structure that is nowhere, one that the correction invents, two uncorrected."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"case": f"c{i}", "patient": f"p{i}", "mask_kind": kind, "method": "errormap"}
            | {"error_dice": rng.random(), "acc_volume": rng.random(), "qi_volume": rng.random()}
            | {f"dice_{key}": rng.random() for key in STRUCTURES}
            | {f"error_dice_{key}": rng.random() for key in STRUCTURES}
            for i in range(10)
            for kind in ("side1", "final")
        ]
    )
    for key in STRUCTURES:
        table[f"dice_{key}_corrected"] = (table[f"dice_{key}"] + rng.normal(0.05, 0.1, len(table))).clip(0, 1)
    table.loc[3, ["dice_rv", "dice_rv_corrected", "error_dice_rv"]] = np.nan
    table.loc[5, "dice_rv"], table.loc[5, "dice_rv_corrected"] = np.nan, 0.0
    table.loc[7, ["dice_lv_corrected", "dice_rv_corrected"]] = np.nan
    return table


def test_gain_is_the_mean_difference_of_paired_means(rows):
    found = breakdown(rows, STRUCTURES)["correction"]
    kept = rows.drop(7)
    before = (kept["dice_lv"] + kept["dice_rv"].fillna(1.0)).to_numpy() / 2
    after = (kept["dice_lv_corrected"] + kept["dice_rv_corrected"].fillna(1.0)).to_numpy() / 2
    before[3], after[3] = kept["dice_lv"][3], kept["dice_lv_corrected"][3]
    gain = after - before
    assert found["dice_before"]["mean"] == pytest.approx(np.mean(before))
    assert found["dice_after"]["mean"] == pytest.approx(np.mean(after))
    assert found["gain"]["mean"] == pytest.approx(gain.mean()) == pytest.approx(np.mean(after) - np.mean(before))
    assert found["gain"]["n"] == 19
    low, high = found["gain"]["ci95"]
    assert low < gain.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * gain.std() / math.sqrt(19), rel=0.35)
    assert found["improved_share"] == pytest.approx((gain > 0).mean())
    assert found["worsened_share"] == pytest.approx((gain < 0).mean())
    # what was invented costs half of a Dice, one of two structures
    assert gain[5] == pytest.approx((rows["dice_lv_corrected"][5] - rows["dice_lv"][5] - 1) / 2)


def test_structures_count_where_they_are(rows):
    found = breakdown(rows, STRUCTURES)["by_structure"]
    assert list(found) == list(STRUCTURES)
    assert found["rv"]["error_dice"]["mean"] == pytest.approx(rows["error_dice_rv"].mean())
    assert found["rv"]["error_dice"]["n"] == 19
    both = rows.drop(index=[3, 5, 7])
    assert found["rv"]["dice_before"]["mean"] == pytest.approx(both["dice_rv"].mean())
    assert found["rv"]["gain"]["mean"] == pytest.approx((both["dice_rv_corrected"] - both["dice_rv"]).mean())


def test_kinds_are_those_of_the_rows_in_order(rows):
    other = rows[rows["mask_kind"] == "final"].assign(mask_kind="nnunet")
    found = breakdown(pd.concat([other, rows]), STRUCTURES)["by_kind"]
    assert list(found) == ["final", "side1", "nnunet"]
    of_kind = rows[rows["mask_kind"] == "side1"]
    assert found["side1"]["n"] == 10
    assert found["side1"]["error_dice"]["mean"] == pytest.approx(of_kind["error_dice"].mean())
    gap = (of_kind["qi_volume"] - of_kind["acc_volume"]).abs()
    assert found["side1"]["mae_volume"]["mean"] == pytest.approx(gap.mean())
    assert found["side1"]["dice"]["mean"] == pytest.approx(of_kind[["dice_lv", "dice_rv"]].mean(axis=1).mean())
    assert found["nnunet"]["correction"] == found["final"]["correction"]


@pytest.mark.parametrize("empty", ["absent", "nan"])
def test_methods_without_labels_and_older_tables_get_null_with_a_reason(rows, empty):
    extra = [c for c in rows if c.endswith("_corrected") or c.startswith("error_dice_")]
    older = rows.drop(columns=extra) if empty == "absent" else rows.assign(**dict.fromkeys(extra, np.nan))
    found = breakdown(older, STRUCTURES)
    assert "improved_share" not in found["correction"]
    for entry in (*found["correction"].values(), found["by_kind"]["final"]["correction"]["gain"]):
        assert entry == {
            "mean": None,
            "ci95": None,
            "reason": "the method predicts no labels, so that it corrects nothing",
        }
    assert found["by_structure"]["lv"]["error_dice"]["mean"] is None
    assert "older" in found["by_structure"]["lv"]["error_dice"]["reason"]
    assert found["by_kind"]["final"]["error_dice"]["mean"] is not None


def test_a_method_that_judged_nothing_has_no_kinds(rows):
    found = breakdown(rows[rows["mask_kind"] == "nobody"], STRUCTURES)
    assert found["by_kind"] == {}
    assert found["correction"]["gain"]["mean"] is None


def test_expected_dice_is_off_by_its_distance_from_dice(rows):
    rng = np.random.default_rng(1)
    told = rows.assign(**{f"dice_{key}_predicted": rng.random(len(rows)) for key in STRUCTURES})
    told.loc[2, "dice_lv_predicted"] = np.nan
    found = breakdown(told, STRUCTURES)
    # nothing is expected of a structure: rightly absent, says the judge
    said = {key: told[f"dice_{key}_predicted"].fillna(1.0) for key in STRUCTURES}
    gaps = {key: np.abs(said[key] - told[f"dice_{key}"]) for key in STRUCTURES}
    for key, gap in gaps.items():
        assert found["by_structure"][key]["expected_dice_mae"]["mean"] == pytest.approx(np.nanmean(gap))
    each = [np.nanmean([gaps[key][i] for key in STRUCTURES]) for i in range(len(rows))]
    assert found["expected_dice_mae"]["mean"] == pytest.approx(np.mean(each))
    none = breakdown(rows, STRUCTURES)["expected_dice_mae"]
    assert (none["mean"], none["reason"]) == (None, "the method expects no Dice")


def test_a_structure_that_is_nowhere_says_so(rows):
    found = breakdown(rows.assign(dice_lv=np.nan, dice_lv_corrected=np.nan), STRUCTURES)["by_structure"]
    reasons = {found["lv"][name]["reason"] for name in ("dice_before", "dice_after", "gain", "expected_dice_mae")}
    assert reasons == {"no judged mask and no reference has this structure"}
    assert found["rv"]["gain"]["mean"] is not None

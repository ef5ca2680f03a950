"""Strata, false alarms and coverage against plain pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from whqa.results.strata import STRATA, strata_numbers, stratum_of

STRUCTURES = ("lv", "rv")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Forty masks of ten patients over the whole range of quality, four of them without an error."""
    rng = np.random.default_rng(4)
    n = 40
    base = np.r_[np.ones(4), rng.uniform(0.5, 1.0, n - 4)]
    table = pd.DataFrame(
        {
            "case": [f"c{i % 10}" for i in range(n)],
            "patient": [f"p{i % 10}" for i in range(n)],
            "mask_kind": ["reference"] * 4 + ["corrupted1"] * (n - 4),
            "method": "errormap",
            "voxels": 1000.0,
            "error_voxels": np.r_[np.zeros(4), rng.integers(1, 300, n - 4)],
            "error_dice": rng.random(n),
        }
    )
    table["hit_voxels"] = (table["error_voxels"] * rng.random(n)).round()
    table["predicted_voxels"] = table["hit_voxels"] + rng.integers(0, 50, n)
    for region in ("volume", "heart"):
        table[f"acc_{region}"], table[f"qi_{region}"] = rng.random(n), rng.random(n)
    table["dice_lv"], table["dice_rv"] = np.clip(base + 0.02, 0, 1), np.clip(base - 0.02, 0, 1)
    table["dice_lv_corrected"] = np.clip(table["dice_lv"] + rng.normal(0, 0.05, n), 0, 1)
    table["dice_rv_corrected"] = np.clip(table["dice_rv"] + rng.normal(0, 0.05, n), 0, 1)
    table.loc[9, ["dice_rv", "dice_rv_corrected"]] = np.nan
    return table


@pytest.fixture(scope="module")
def measured(rows) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(5)
    names = ("acc_volume", "acc_heart", "dice_lv", "dice_rv")
    found = {name: pd.DataFrame({"hit": rng.integers(0, 2, 40), "width": rng.random(40)}, rows.index) for name in names}
    found["dice_rv"] = found["dice_rv"].drop(9)
    return found


def _mask_of(rows: pd.DataFrame, name: str) -> pd.Series:
    dice = rows[["dice_lv", "dice_rv"]].mean(axis=1)
    right = rows["error_voxels"] == 0
    edges = {"mild": (0.95, 2), "good": (0.85, 0.95), "fair": (0.7, 0.85), "bad": (-1, 0.7)}
    if name == "reference":
        return right
    low, high = edges[name]
    return ~right & (dice >= low) & (dice < high)


def test_strata_are_cut_by_the_true_mean_dice_and_perfect_masks_stand_apart():
    table = pd.DataFrame(
        {
            "dice_lv": [1.0, 1.0, 0.95, 0.9499, 0.85, 0.7, 0.6999, 0.0, np.nan, np.nan],
            "error_voxels": [0.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0, 5.0],
        }
    )
    expected = ["reference", "mild", "mild", "good", "good", "fair", "bad", "bad", "reference", ""]
    assert stratum_of(table, ("lv",)).tolist() == expected


@pytest.mark.parametrize("name", STRATA)
def test_numbers_of_a_stratum_are_those_of_its_masks(rows, measured, name):
    part = rows[_mask_of(rows, name)]
    assert len(part) > 1
    found = strata_numbers(rows, STRUCTURES, measured)[name]
    assert found["n"] == len(part)
    for region, numbers in (("heart", found), ("volume", found["volume"])):
        gap = part[f"qi_{region}"] - part[f"acc_{region}"]
        assert numbers["bias"]["mean"] == pytest.approx(gap.mean())
        assert numbers["mae"]["mean"] == pytest.approx(gap.abs().mean())
        held = measured[f"acc_{region}"].loc[part.index]
        assert numbers["coverage"]["mean"] == pytest.approx(held["hit"].mean())
        assert numbers["width"]["mean"] == pytest.approx(held["width"].mean())
        few = part["patient"].nunique() < 6
        assert (numbers["bias"]["ci95"] is None) == few
        low, high = numbers["bias"]["ci95"] or (gap.mean(), gap.mean())
        assert low <= gap.mean() <= high
    false = (part["predicted_voxels"] - part["hit_voxels"]) / (1000 - part["error_voxels"])
    assert found["false_alarm"]["mean"] == pytest.approx(false.mean())
    assert found["error_dice"]["mean"] == pytest.approx(part["error_dice"].mean())
    gains = {key: part[f"dice_{key}_corrected"] - part[f"dice_{key}"] for key in STRUCTURES}
    change = pd.DataFrame(gains).mean(axis=1)
    assert found["correction"]["mean"] == pytest.approx(change.mean())
    assert found["correction"]["worst"] == pytest.approx(change.min())
    for key in STRUCTURES:
        assert found["correction"]["per_structure"][key]["mean"] == pytest.approx(gains[key].mean())
        assert found["correction"]["per_structure"][key]["worst"] == pytest.approx(gains[key].min())
        held = measured[f"dice_{key}"].reindex(part.index).dropna()
        assert found["dice"][key]["n"] == len(held)
        assert found["dice"][key]["coverage"]["mean"] == pytest.approx(held["hit"].mean())


def test_every_mask_with_a_dice_is_in_one_stratum(rows):
    found = strata_numbers(rows, STRUCTURES, {})
    assert sum(numbers["n"] for numbers in found.values()) == len(rows)
    assert found["good"]["coverage"]["mean"] is None
    assert "first method" in found["good"]["coverage"]["reason"]
    assert found["good"]["dice"] == {}


def test_without_masks_labels_or_voxels_there_is_null_with_a_reason(rows):
    plain = rows[rows["mask_kind"] == "reference"].drop(columns=["voxels", "dice_lv_corrected", "dice_rv_corrected"])
    found = strata_numbers(plain, STRUCTURES, {})
    assert found["bad"]["n"] == 0
    assert found["bad"]["bias"] == {"mean": None, "ci95": None, "reason": "no such mask"}
    assert "voxels" in found["reference"]["false_alarm"]["reason"]
    assert found["reference"]["correction"]["worst"] is None
    assert "corrects nothing" in found["reference"]["correction"]["reason"]
    assert found["reference"]["correction"]["per_structure"] == {}


def test_a_mask_that_is_wrong_everywhere_has_no_false_alarm_rate(rows):
    table = rows.iloc[[10, 11]].assign(voxels=[100.0, 1000.0], error_voxels=[100.0, 10.0], hit_voxels=0.0)
    table["predicted_voxels"] = [0.0, 99.0]
    table[["dice_lv", "dice_rv"]] = 0.1
    found = strata_numbers(table, STRUCTURES, {})["bad"]["false_alarm"]
    assert found["n"] == 1
    assert found["mean"] == pytest.approx(0.1)

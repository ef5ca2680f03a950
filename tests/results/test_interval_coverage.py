"""Measured coverage on tables whose noise is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whqa.results.interval_coverage import band, interval_numbers, measure_intervals
from whqa.results.tables import RunTables

N, FOLDS, SIGMA = 200, 4, 0.02


def _tables(n: int = N, kinds=("final", "side1"), labels: bool = True, spread: float = SIGMA) -> RunTables:
    """QI is Acc plus noise, expected Dice is Dice plus noise."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        for kind in kinds:
            acc, dice = rng.uniform(0.5, 1.0, 2)
            row = {"case": f"c{i}", "patient": f"p{i}", "fold": i % FOLDS, "mask_kind": kind, "method": "errormap"}
            row |= {f"acc_{r}": acc for r in ("volume", "heart")}
            row |= {f"qi_{r}": acc + spread * rng.standard_normal() for r in ("volume", "heart")}
            row |= {"dice_lv": dice, "dice_lv_predicted": dice + spread * rng.standard_normal() if labels else np.nan}
            rows += [row, row | {"method": "entropy", "qi_volume": 0.0}]
    table = pd.DataFrame(rows)
    for region in ("volume", "heart"):
        table[f"constant_{region}"] = table[f"constant_{region}_kind"] = 0.8
    return RunTables(table, table.astype(str), table.head(0), {"cohort": {"structures": ["lv"]}})


def _numbers(tables: RunTables) -> Any:
    return interval_numbers(tables, measure_intervals(tables))


def test_nine_in_ten_intervals_hold_and_are_as_wide_as_the_noise_demands():
    found = _numbers(_tables())
    assert found["confidence"] == 0.9
    assert found["method"] == "errormap"
    width = 2 * stats.norm.ppf(0.95) * SIGMA
    for part, n in (("final", N), ("all", 2 * N)):
        assert set(found[part]) == {"acc_volume", "acc_heart", "dice_lv"}
        for numbers in found[part].values():
            assert numbers["n"] == n
            assert 0.85 < numbers["coverage"]["mean"] < 0.95
            low, high = numbers["coverage"]["ci95"]
            assert low <= numbers["coverage"]["mean"] <= high
            assert numbers["width"]["mean"] == pytest.approx(width, rel=0.2)


def test_a_fold_that_is_judged_worse_than_the_others_is_not_covered():
    tables = _tables()
    first = tables.judged["fold"] == 0
    tables.judged.loc[first, "qi_volume"] += 0.15
    found = _numbers(tables)["all"]["acc_volume"]["coverage"]["mean"]
    assert found == pytest.approx(0.75, abs=0.03)


def test_without_label_head_or_patients_there_is_a_reason():
    found = _numbers(_tables(n=8, labels=False))
    assert set(found["final"]) == {"acc_volume", "acc_heart"}
    entry = found["final"]["acc_volume"]["coverage"]
    assert entry["mean"] is None
    assert "too few patients" in entry["reason"]
    no_final = _numbers(_tables(kinds=("side1",)))
    assert no_final["final"]["acc_volume"]["n"] == 0
    assert no_final["final"]["acc_volume"]["coverage"]["mean"] is None
    assert no_final["all"]["acc_volume"]["coverage"]["mean"] is not None


def test_the_band_holds_its_share_of_the_masks_that_made_it():
    rows = _tables().judged.query("method == 'errormap'")
    qi = rows["qi_volume"].to_numpy()
    low, high = band(rows, "volume", qi)
    inside = ((low <= rows["acc_volume"]) & (rows["acc_volume"] <= high)).mean()
    assert inside == pytest.approx(0.9, abs=0.02)
    assert ((high - low) > 0).all()
    few = rows[rows["patient"].isin(["p0", "p1"])]
    assert np.isnan(band(few, "volume", qi[:3])[0]).all()

"""Bins of predicted quality against pandas.qcut and plain means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from whqa.results.reliability import equal_count_bins, reliability


def _rows(n: int, bias: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"patient": [f"p{i % 25}" for i in range(n)]})
    for region in ("volume", "heart"):
        table[f"acc_{region}"] = rng.random(n)
        table[f"qi_{region}"] = table[f"acc_{region}"] + 0.05 * rng.standard_normal(n) + bias
    return table


def test_bins_are_of_equal_count_and_state_their_bias():
    rows = _rows(200, bias=0.1)
    found = reliability(rows)
    for region in ("volume", "heart"):
        bins = found[region]
        groups = pd.qcut(rows[f"qi_{region}"], 10, labels=False)
        assert len(bins) == 10
        for part, (_, group) in zip(bins, rows.groupby(groups), strict=True):
            assert part["n"] == len(group)
            assert part["qi"] == pytest.approx(group[f"qi_{region}"].mean())
            assert part["acc"] == pytest.approx(group[f"acc_{region}"].mean())
            assert part["bias"]["mean"] == pytest.approx(part["qi"] - part["acc"])
            low, high = part["bias"]["ci95"]
            assert low < part["bias"]["mean"] < high
        assert [b["qi"] for b in bins] == sorted(b["qi"] for b in bins)


def test_few_masks_make_few_bins_and_equal_values_share_one():
    assert len(reliability(_rows(36))["heart"]) == 3
    assert len(reliability(_rows(7))["heart"]) == 1
    assert reliability(_rows(5).head(0)) == {"volume": [], "heart": []}
    values = pd.Series([0.5] * 30 + [0.9] * 10)
    bins = equal_count_bins(values)
    assert len(set(bins[:30])) == 1
    assert len(set(bins[30:])) == 1
    assert bins[0] < bins[-1]

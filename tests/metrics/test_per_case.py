import copy
import pickle

import numpy as np
import pytest
import torch

from whqa.metrics.arrays import mean_defined
from whqa.metrics.over_cases import ErrorMapDice
from whqa.metrics.per_case import CaseTable


def test_rows_come_back_in_order_of_index_and_once() -> None:
    table = CaseTable(("a", "b"))
    for index, a in ((7, 0.5), (2, 1.5), (7, 0.5)):
        table.update(index, {"a": a, "b": float("nan")})
    found = table.compute()
    assert found["index"].tolist() == [2, 7]
    assert found["a"].tolist() == [1.5, 0.5]
    assert np.isnan(found["b"]).all()


def test_one_case_stays_a_column() -> None:
    table = CaseTable(("a",))
    table.update(torch.tensor(0), {"a": torch.tensor(0.25)})
    assert table.compute()["a"].shape == (1,)
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert twin.compute()["a"].tolist() == [0.25]


def test_numbers_keep_more_digits_than_float32() -> None:
    values = [2.0**40 + 1, 16_777_217.0, 1 / 3, -1e-30, 0.0, float("inf"), float("-inf")]
    table = CaseTable(("x",))
    for index, value in enumerate(values):
        table.update(index, {"x": value})
    np.testing.assert_allclose(table.compute()["x"], values, rtol=1e-13)
    assert table.compute()["x"][:2].tolist() == values[:2]


def test_the_state_is_what_torchmetrics_can_gather() -> None:
    table = CaseTable(("a", "b"))
    table.update(3, {"a": 1, "b": 2})
    assert [(row.ndim, row.dtype) for row in table.rows] == [(1, torch.float32)]


def test_counts_above_float32_are_exact() -> None:
    metric, n = ErrorMapDice(), 2**24 + 1
    true, predicted = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    predicted[0] = True
    for index in range(3):
        metric.update(index, predicted, true)
    assert metric.columns()["error"].tolist() == [n] * 3
    assert float(metric.compute()) == np.float32(2 / (n + 1))


def test_reset_forgets() -> None:
    table = CaseTable(("a",))
    table.update(0, {"a": 1})
    table.reset()
    table.update(1, {"a": 2})
    assert table.compute()["index"].tolist() == [1]


@pytest.mark.parametrize("row", [{"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_other_columns_are_refused(row: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="the metric keeps"):
        CaseTable(("a", "b")).update(0, row)


def test_mean_defined_skips_nan() -> None:
    assert mean_defined([1.0, float("nan"), 2.0]) == 1.5
    assert np.isnan(mean_defined([float("nan")]))
    assert np.isnan(mean_defined([]))

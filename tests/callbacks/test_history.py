"""metrics.csv: complete at any moment, continued after a restart, never doubled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.callbacks.history import CsvHistory
from whqa.errors import InputError

Read = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.csv"


def _log(path: Path, steps: range, value: float = 0.0) -> CsvHistory:
    history = CsvHistory(path)
    for step in steps:
        history.log_metrics({"loss": value + step}, step)
    history.save()
    return history


def test_metrics_of_one_step_share_a_row(path: Path, rows_of: Read) -> None:
    history = CsvHistory(path)
    history.log_metrics({"b": 1.0}, 3)
    history.log_metrics({"a": 2.0}, 3)
    history.log_metrics({"a": 4.0}, 1)
    history.finalize("success")
    assert path.read_text().splitlines()[0] == "step,a,b"
    assert rows_of(path) == [{"step": "1", "a": "4.0", "b": ""}, {"step": "3", "a": "2.0", "b": "1.0"}]


def test_a_resumed_run_continues_the_log(path: Path, rows_of: Read) -> None:
    _log(path, range(4))
    _log(path, range(4, 6))
    assert [(r["step"], r["loss"]) for r in rows_of(path)] == [(str(s), str(float(s))) for s in range(6)]


def test_rows_after_the_checkpoint_are_made_anew(path: Path, rows_of: Read) -> None:
    _log(path, range(8))
    _log(path, range(4, 6), value=100.0)
    assert [float(r["loss"]) for r in rows_of(path)] == [0, 1, 2, 3, 104, 105]


def test_a_new_column_leaves_old_rows_empty(path: Path, rows_of: Read) -> None:
    _log(path, range(1))
    history = CsvHistory(path)
    history.log_metrics({"dice": 0.5}, 1)
    history.save()
    assert [(r["loss"], r["dice"]) for r in rows_of(path)] == [("0.0", ""), ("", "0.5")]


def test_numbers_keep_all_their_digits(path: Path, rows_of: Read) -> None:
    history = CsvHistory(path)
    history.log_metrics({"loss": 0.1 + 0.2}, 0)
    history.save()
    assert float(rows_of(path)[0]["loss"]) == 0.1 + 0.2
    _log(path, range(1, 2))
    assert float(rows_of(path)[0]["loss"]) == 0.1 + 0.2


def test_nothing_logged_writes_nothing(path: Path) -> None:
    CsvHistory(path).finalize("failed")
    assert not path.exists()


def test_a_metric_without_a_step_is_of_step_0(path: Path, rows_of: Read) -> None:
    history = CsvHistory(path)
    history.log_metrics({"x": 1.0})
    history.save()
    assert rows_of(path)[0]["step"] == "0"


def test_only_the_first_process_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.utilities.rank_zero_only.rank", 1)
    _log(path, range(2))
    assert not path.exists()


@pytest.mark.parametrize("content", ["step,a\n0,0.5\n1", "step,a\nx,0.5\n", "a\n0.5\n", "step,a\n0,x\n"])
def test_a_damaged_log_is_named_with_what_to_do(content: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv: not readable as .*; rm .*metrics\.csv, and the same comm"):
        _log(path, range(2, 3))
    path.unlink()
    _log(path, range(2, 3))


def test_noise_in_a_log_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"step,loss\n0,\xff\xfe\x00\n")
    with pytest.raises(InputError, match=r"metrics\.csv: not readable as a log"):
        _log(path, range(1, 2))

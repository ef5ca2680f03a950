"""How a run says that it failed, and what its log tells of one that could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from whqa.errors import STOPPED, InputError
from whqa.masks.run_state import (
    COMPLETED,
    FAILED,
    failure_noted,
    last_log_line,
    logged_failure,
    note_failure,
    noted_failure,
    refuse_damaged,
    stamp,
)

BAR = "Testing ━━━━━━━━━━━━━━ 33/33 0:00:43 • 0:00:00 0.75it/s"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("masks of fold 1:\nnone"), "masks of fold 1: none"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
    ],
)
def test_a_failed_attempt_says_why_until_the_next(error: Exception, line: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), failure_noted(tmp_path):
        raise error
    assert noted_failure(tmp_path) == line
    with failure_noted(tmp_path):
        assert noted_failure(tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure(end: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(end), failure_noted(tmp_path):
        raise end
    assert noted_failure(tmp_path) is None


@pytest.mark.parametrize(("rank", "noted"), [("0", True), ("1", False)])
def test_a_further_process_that_lost_the_first_knows_no_cause(
    rank: str, noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(RuntimeError), failure_noted(tmp_path):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5310")
    assert (noted_failure(tmp_path) is not None) == noted
    with pytest.raises(ValueError, match="its own"), failure_noted(tmp_path):
        raise ValueError("its own")
    assert noted_failure(tmp_path) == "ValueError: its own"


def test_a_complete_run_that_refuses_an_attempt_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / COMPLETED).touch()
    with pytest.raises(InputError), failure_noted(tmp_path):
        raise InputError("other settings")
    assert not (tmp_path / FAILED).exists()


def test_a_further_process_of_a_run_does_not_take_back_what_the_first_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_failure(tmp_path, "so it is")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with failure_noted(tmp_path):
        assert noted_failure(tmp_path) == "so it is"


def test_what_cannot_be_noted_is_no_further_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    note_failure(tmp_path / "file" / "0", "no directory can be there")
    (tmp_path / FAILED).touch()
    assert noted_failure(tmp_path) == "for an unknown reason"


@pytest.mark.parametrize(
    ("log", "last", "failure"),
    [
        ("", None, None),
        (f"{BAR}\n\n", None, None),
        (f"hello\n{BAR}\n", "hello", None),
        ("hello\r50/50 2.0it/s\rend", "end", None),
        ("whqa train: training diverged\n", "whqa train: training diverged", "training diverged"),
        (f"whqa train: {STOPPED}\n", f"whqa train: {STOPPED}", None),
        ("Traceback ...\n  File\nKeyError: 'x'\n", "KeyError: 'x'", "KeyError: 'x'"),
        ("torch.OutOfMemoryError: tried\n", "torch.OutOfMemoryError: tried", "torch.OutOfMemoryError: tried"),
        ("KeyError: 'x'\nwarning: a later attempt\n", "warning: a later attempt", None),
        ("x" * 200_000 + "\nAssertionError\n", "AssertionError", "AssertionError"),
    ],
)
def test_the_end_of_a_log(log: str, last: str | None, failure: str | None, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(log, newline="")
    assert last_log_line(tmp_path) == last
    assert logged_failure(tmp_path) == failure


def test_no_log_and_a_damaged_one_tell_nothing(tmp_path: Path) -> None:
    assert last_log_line(tmp_path) is None
    assert logged_failure(tmp_path) is None
    (tmp_path / "train.log").write_bytes(b"\xff\xfe\x00")
    assert logged_failure(tmp_path) is None


def test_a_stamp_torn_between_two_lines_is_noticed(tmp_path: Path) -> None:
    for name in ("config.yaml", "cases.csv"):
        (tmp_path / name).write_text(name)
    stamp(tmp_path)
    refuse_damaged([tmp_path])
    first = (tmp_path / COMPLETED).read_text().splitlines(keepends=True)[0]
    for torn in (first, first.rstrip()):
        (tmp_path / COMPLETED).write_text(torn)
        with pytest.raises(InputError, match=r"COMPLETED: .*rm .*/COMPLETED, then") as caught:
            refuse_damaged([tmp_path])
        assert "\n" not in str(caught.value)

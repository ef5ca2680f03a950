"""Whether a run has begun, failed or is complete, and whether its files are still those that it wrote.

runs/<experiment>/{segmenter,errormap}/<name>/COMPLETED
    written last: SHA-256 and name of every file that others read, as `sha256sum --check COMPLETED` takes them;
    empty where an older version made the run
runs/<experiment>/{segmenter,errormap}/<name>/FAILED
    why its last attempt failed, in one line; gone as soon as the next one begins
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whqa.errors import STOPPED, InputError
from whqa.files import reading, sha256, write_text
from whqa.process import is_first_rank

COMPLETED = "COMPLETED"
FAILED = "FAILED"
LOG = "train.log"
LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
EARLY_WEIGHTS = Path("checkpoints", "early.pt")
# What a training leaves, which only a training makes again, and what the test after it leaves.
_OF_TRAINING = ("config.yaml", "made_from.json", str(LAST_CHECKPOINT), str(EARLY_WEIGHTS))
_OF_TEST = (
    *("masks.json", "cases.csv", "features.csv", "calibration.json", "held_back_gains.csv"),
    *("baselines.json", "validation.csv"),
)
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
# Of a log, in bytes: its end is all that tells how a run ended.
_LOG_END = 2**16
_BAR = re.compile(r"━|\bit/s\b")
_ERROR = re.compile(r"[\w.]*(?:Error|Exception)(?:: .*)?")


def has_begun(run_dir: Path) -> bool:
    """Whether the directory holds a run, finished or not."""
    return (run_dir / "checkpoints").exists() or is_complete(run_dir)


def is_complete(run_dir: Path) -> bool:
    """Whether the directory holds a finished run."""
    return (run_dir / COMPLETED).is_file()


def stamp(run_dir: Path) -> None:
    """Say that a run is complete, and what its files are."""
    write_text(run_dir / COMPLETED, "".join(f"{sha256(run_dir / name)}  {name}\n" for name in _files(run_dir)))


def _files(run_dir: Path) -> list[str]:
    return [name for name in (*_OF_TRAINING, *_OF_TEST) if (run_dir / name).is_file()]


@contextmanager
def failure_noted(run_dir: Path) -> Iterator[None]:
    """For one attempt of a run: whatever ends it but an interrupt is told in FAILED, until the next attempt."""
    if is_first_rank():
        (run_dir / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        name = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        if not is_complete(run_dir) and not _of_another_process(error):
            note_failure(run_dir, f"{name}{error}")
        raise


def _of_another_process(error: Exception) -> bool:
    """Whether a further process of a run only says that the first one, which was stopped or tells its own, has gone."""
    return not is_first_rank() and bool(re.search(r"Connection (closed|reset) by peer", str(error)))


def note_failure(run_dir: Path, why: str) -> None:
    """Say why an attempt failed; a disk that does not take it is no further trouble."""
    with suppress(OSError):
        write_text(run_dir / FAILED, " ".join(why.split()) + "\n")


def noted_failure(run_dir: Path) -> str | None:
    """What FAILED says; None where the last attempt did not fail."""
    with suppress(OSError):
        return (run_dir / FAILED).read_text(encoding="utf-8", errors="replace").strip() or "for an unknown reason"
    return None


def last_log_line(run_dir: Path) -> str | None:
    """The last line of a run's log that is no progress bar; None where there is none."""
    with suppress(OSError), (run_dir / LOG).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END))
        lines = (line.strip() for line in file.read().decode(errors="replace").splitlines())
        return next((line for line in reversed(list(lines)) if line and not _BAR.search(line)), None)
    return None


def logged_failure(run_dir: Path) -> str | None:
    """What a run's log ends with where that is an error: of runs that could not write FAILED themselves."""
    line = last_log_line(run_dir) or ""
    if line.startswith("whqa train: "):
        line = line.removeprefix("whqa train: ")
        return line if line != STOPPED else None
    return line if _ERROR.fullmatch(line) else None


def refuse_damaged(run_dirs: Iterable[Path], trained_only: bool = False) -> None:
    """Whether the files of those of the runs that are complete are as they were written.

    Args:
        run_dirs: of any runs.
        trained_only: only what the training left, as for a test that is about to write the rest again.

    Raises:
        InputError: one is not, or is gone; names it.
    """
    for run_dir in filter(is_complete, run_dirs):
        for name, digest in _stamped(run_dir).items():
            if trained_only and name not in _OF_TRAINING:
                continue
            _refuse_gone(run_dir, name)
            if sha256(run_dir / name) != digest:
                raise InputError(f"{run_dir / name}: not as this run wrote it; {_remedy(run_dir, name)}")


def lost_file(run_dir: Path) -> str | None:
    """Which file of a complete run is gone, and what makes it again; None where all are there, as they may be."""
    try:
        for name in _stamped(run_dir) or ("cases.csv",):
            _refuse_gone(run_dir, name)
    except InputError as error:
        return str(error)
    return None


def _refuse_gone(run_dir: Path, name: str) -> None:
    if not (run_dir / name).is_file():
        raise InputError(f"{run_dir / name}: gone since this run was completed; {_remedy(run_dir, name)}")


def _remedy(run_dir: Path, name: str) -> str:
    return (made_anew if name in _OF_TRAINING else made_again)(run_dir)


def made_again(run_dir: Path) -> str:
    """What writes the files of a run's test again, from its last checkpoint."""
    return f"make it again: rm {shlex.quote(str(run_dir / COMPLETED))}, then {_same_command(run_dir)}"


def made_anew(run_dir: Path) -> str:
    """What trains a run again."""
    return f"start this run anew: rm -r {shlex.quote(str(run_dir))}, then {_same_command(run_dir)}"


def _same_command(run_dir: Path) -> str:
    stage, fold = run_dir.parent.name, run_dir.name
    return f"the same `whqa cv ...`, or `whqa train ... stage={stage} fold={fold}`"


def _stamped(run_dir: Path) -> dict[str, str]:
    path = run_dir / COMPLETED
    with reading(path, "the stamp of a run", made_again(run_dir)):
        found = [_LINE.fullmatch(line) for line in path.read_text(encoding="ascii").splitlines()]
        if not all(found):
            raise ValueError("no list of digests and names")
        stamped = {match[2]: match[1] for match in found if match}
        # torn between two lines it would vouch for fewer files than it was written for
        if stamped and (lost := [name for name in _files(run_dir) if name not in stamped]):
            raise ValueError(f"it does not list {lost[0]}")
        return stamped

"""Whether a run has begun, whether it is complete, and whether its files are still those that it wrote.

runs/<experiment>/{segmenter,errormap}/<name>/COMPLETED
    written last: SHA-256 and name of every file that others read, as `sha256sum --check COMPLETED` takes them;
    empty where an older version made the run
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from whqa.errors import InputError
from whqa.files import reading, sha256, write_text

COMPLETED = "COMPLETED"
LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
EARLY_WEIGHTS = Path("checkpoints", "early.pt")
# What a training leaves, which only a training makes again, and what the test after it leaves.
_OF_TRAINING = ("config.yaml", "made_from.json", str(LAST_CHECKPOINT), str(EARLY_WEIGHTS))
_OF_TEST = ("masks.json", "cases.csv", "features.csv", "calibration.json", "baselines.json")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def has_begun(run_dir: Path) -> bool:
    """Whether the directory holds a run, finished or not."""
    return (run_dir / "checkpoints").exists() or is_complete(run_dir)


def is_complete(run_dir: Path) -> bool:
    """Whether the directory holds a finished run."""
    return (run_dir / COMPLETED).is_file()


def stamp(run_dir: Path) -> None:
    """Say that a run is complete, and what its files are."""
    files = [name for name in (*_OF_TRAINING, *_OF_TEST) if (run_dir / name).is_file()]
    write_text(run_dir / COMPLETED, "".join(f"{sha256(run_dir / name)}  {name}\n" for name in files))


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
            path, remedy = run_dir / name, (made_anew if name in _OF_TRAINING else made_again)(run_dir)
            if not path.is_file():
                raise InputError(f"{path}: gone since this run was completed; {remedy}")
            if sha256(path) != digest:
                raise InputError(f"{path}: not as this run wrote it; {remedy}")


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
        return {match[2]: match[1] for match in found if match}

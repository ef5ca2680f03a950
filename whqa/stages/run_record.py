"""provenance.json of a run: by which code, on what, from which data and with which command it was made."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from whqa.contract.provenance import Attempt, RunProvenance
from whqa.files import write_json
from whqa.masks.made_from import Cases
from whqa.results.environment import environment

PROVENANCE = "provenance.json"


def record_attempt(run_dir: Path, words: Sequence[str] | None, seed: int, cases: Cases) -> None:
    """Add this attempt to those that the directory tells of.

    Args:
        run_dir: runs/<experiment>/<stage>/<fold>.
        words: of `whqa train`; None where no command started it.
        seed, cases: of the experiment.
    """
    command = None if words is None else shlex.join(["whqa", "train", *words])
    attempt: Attempt = {"command": command, "environment": environment()}
    attempts = _known(run_dir / PROVENANCE)
    if attempts[-1:] != [attempt]:
        attempts.append(attempt)
    digest = hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()
    record: RunProvenance = {"seed": seed, "cohort_sha256": digest, "attempts": attempts}
    write_json(run_dir / PROVENANCE, record)


def _known(path: Path) -> list[Attempt]:
    # nothing is made from it, so that a damaged one costs no training
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads(path.read_bytes())["attempts"])
    return []

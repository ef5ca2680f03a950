"""provenance.json: what made a run, and how to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whqa.stages.run_record import PROVENANCE, record_attempt

CASES = {"a": {"fold": 0, "image": "1", "label": "2"}, "b": {"fold": 1, "image": "3", "label": "4"}}
WORDS = ["experiment=demo", "data.without=[a b]", "fold=0"]


def _read(directory: Path) -> dict[str, Any]:
    return json.loads((directory / PROVENANCE).read_text())


def test_it_names_seed_cohort_code_and_command(tmp_path: Path) -> None:
    record_attempt(tmp_path, WORDS, 3, CASES)
    found = _read(tmp_path)
    assert found["seed"] == 3
    (attempt,) = found["attempts"]
    assert attempt["command"] == "whqa train experiment=demo 'data.without=[a b]' fold=0"
    assert {"torch", "python", "git", "platform"} <= attempt["environment"].keys()


def test_one_digest_stands_for_all_files_and_folds(tmp_path: Path) -> None:
    digests = []
    for i, cases in enumerate((CASES, dict(reversed(CASES.items())), {**CASES, "b": {**CASES["b"], "fold": 0}})):
        record_attempt(tmp_path / str(i), WORDS, 0, cases)
        digests.append(_read(tmp_path / str(i))["cohort_sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_an_attempt_is_added_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (WORDS, WORDS, None):
        record_attempt(tmp_path, words, 0, CASES)
    assert [attempt["command"] is None for attempt in _read(tmp_path)["attempts"]] == [False, True]
    monkeypatch.setattr("whqa.stages.run_record.environment", lambda: {"python": "4"})
    record_attempt(tmp_path, None, 0, CASES)
    assert len(_read(tmp_path)["attempts"]) == 3


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"attempts": 3}'])
def test_a_damaged_record_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / PROVENANCE).write_text(text)
    record_attempt(tmp_path, WORDS, 0, CASES)
    assert len(_read(tmp_path)["attempts"]) == 1


def test_every_run_of_a_study_has_one(judged: Path) -> None:
    runs = [judged / "runs" / "tiny" / name for name in ("segmenter/0", "segmenter/2", "errormap/0")]
    found = [_read(run) for run in runs]
    assert len({record["cohort_sha256"] for record in found}) == 1
    for run, record in zip(runs, found, strict=True):
        (attempt,) = record["attempts"]
        assert f"stage={run.parent.name} fold={run.name}" in attempt["command"]

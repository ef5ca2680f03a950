"""Whatever happens to a file of a finished experiment: the same numbers, or one line with the file and a remedy."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from whqa.cli.commands import main

Run = Callable[..., tuple[int, list[str]]]
Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]

OF_BOTH = ("config.yaml", "made_from.json", "cases.csv", "validation.csv", "checkpoints/last.ckpt", "COMPLETED")
OF_A_RUN = (
    *(
        f"errormap/1/{name}"
        for name in (*OF_BOTH, "calibration.json", "held_back_gains.csv", "features.csv", "baselines.json")
    ),
    *(f"segmenter/1/{name}" for name in (*OF_BOTH, "masks.json", "checkpoints/early.pt")),
)
SIDE_EFFECTS = ("metrics.csv", "progress.json", "seconds.json", ".lock")  # logs: nothing is made from them


@pytest.fixture(scope="module")
def finished(study: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The tiny study, summarised; a test puts back what it damages."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copytree(study, root, dirs_exist_ok=True)
    with pytest.raises(SystemExit) as end:
        main(["cv", *tiny(root)])
    assert end.value.code == 0
    return root


@pytest.fixture
def run(finished: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command on the study; returns its code and the lines in which it says why it refused."""
    experiment, scans = finished / "runs" / "tiny", sorted(finished.glob("data/*/*1001_*.nii.gz"))
    words = {
        "cv": tiny(finished),
        "summarize": [str(experiment)],
        "assess": [*map(str, scans), "--model", str(experiment), "-o", str(tmp_path / "out")],
    }

    def start(command: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as end:
            main([command, *words[command]])
        return int(end.value.code or 0), [x for x in capsys.readouterr().err.splitlines() if x.startswith("whqa ")]

    return start


def numbers(root: Path) -> dict[str, Any]:
    """What the summary states of the methods, but for the time that they take."""
    methods = json.loads((root / "runs" / "tiny" / "summary.json").read_text())["methods"]
    for parts in (p for method in methods.values() for p in method.values()):
        del parts["seconds_per_case"]
    return methods


def damaged(content: bytes) -> Iterator[bytes | None]:
    """Torn off, overwritten in part, replaced, removed."""
    noise, middle = random.Random(0).randbytes(64), len(content) // 2
    yield from (b"", content[:20], content[:middle], noise + content[64:], content[:middle] + noise, b"[1, 2]", None)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_file_of_a_run_that_is_damaged_or_gone_is_named(name: str, finished: Path, run: Run, undrawn: None) -> None:
    path, run_dir = finished / "runs" / "tiny" / name, (finished / "runs" / "tiny").joinpath(*name.split("/")[:2])
    before, whole = numbers(finished), path.read_bytes()
    try:
        for content in damaged(whole):
            if name.endswith("COMPLETED") and not content:
                continue  # a run of an older version, or one that is not complete
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            for command in ("summarize", "assess") if name.startswith("errormap") else ("summarize",):
                code, said = run(command)
                assert (code, len(said)) == (2, 1), said
                assert f": {path}: " in said[0] or name.endswith("COMPLETED")
                assert f"rm {run_dir}/COMPLETED, then" in said[0] or f"rm -r {run_dir}, then" in said[0]
        assert run("cv") == (2, [said[0].replace("summarize", "cv").replace("assess", "cv")])
    finally:
        path.write_bytes(whole)
    assert numbers(finished) == before


@pytest.mark.parametrize("name", ["empty", "torn", "noise", "other"])
def test_damaged_folds_are_dealt_again_by_the_command_that_the_line_names(
    name: str, finished: Path, run: Run, undrawn: None
) -> None:
    path, before = finished / "runs" / "tiny" / "folds.json", numbers(finished)
    whole = path.read_bytes()
    content = {"empty": b"", "torn": whole[:90], "noise": b"\xff\x00" * 99, "other": b'{"folds": {"a": 1}}'}[name]
    for command in ("summarize", "assess", "cv"):
        path.write_bytes(content)
        code, said = run(command)
        assert (code, len(said)) == (2, 1), said
        assert f"{path}: not readable as" in said[0]
        assert f"rm {path}, and the same `whqa cv ...` deals the same folds again" in said[0]
    path.unlink()
    assert run("cv") == (0, [])
    assert path.read_bytes() == whole
    assert numbers(finished) == before


def test_damaged_cache_entries_and_logs_change_nothing(finished: Path, run: Run, undrawn: None) -> None:
    before, cache = numbers(finished), finished / "runs" / ".cache"
    entry = next(cache.glob("ct_train_1001-*"))
    digests = sorted((cache / "hashes").iterdir())[:1]
    logs = [finished / "runs" / "tiny" / "errormap" / "1" / name for name in SIDE_EFFECTS]
    for i in range(4):
        for path in (*(entry / f for f in ("case.json", "image.npy", "label.npy")), *digests, *logs):
            if path.is_file():
                whole = path.read_bytes()
                noise = random.Random(i).randbytes(min(64, len(whole))) + whole[64:]
                path.write_bytes((b"", whole[:20], noise, b"[1, 2]")[i])
        assert run("cv") == (0, [])
    assert numbers(finished) == before


def test_what_the_line_advises_makes_the_file_again(
    finished: Path, run: Run, tiny: Tiny, train: Train, undrawn: None, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    run_dir = root / "runs" / "tiny" / "errormap" / "1"
    before = {name: (run_dir / name).read_bytes() for name in ("calibration.json", "features.csv")}
    for name in before:
        (run_dir / name).write_text("{")
    words = [*tiny(root), "stage=errormap", "fold=1"]
    assert train(*words) == 2
    (run_dir / "COMPLETED").unlink()
    assert train(*words) == 0
    assert {name: (run_dir / name).read_bytes() for name in before} == before
    assert "calibration.json" in (run_dir / "COMPLETED").read_text()


def test_folds_of_different_settings_are_not_put_together(finished: Path, run: Run, tiny: Tiny, undrawn: None) -> None:
    run_dir = finished / "runs" / "tiny" / "errormap" / "2"
    kept = {name: (run_dir / name).read_bytes() for name in ("config.yaml", "COMPLETED")}
    config = yaml.safe_load(kept["config.yaml"])
    config["errormap"]["learning_rate"], config["preprocess"]["centre"] = 0.5, "heart"
    try:
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
        (run_dir / "COMPLETED").write_text("")
        for command in ("summarize", "assess"):
            code, said = run(command)
            assert code == 2
            assert len(said) == 1
            assert "errormap/2 have other settings than the other runs (errormap.learning_rate, pre" in said[0]
            assert f"rm -r {run_dir} and the same `whqa cv ...`" in said[0]
    finally:
        for name, content in kept.items():
            (run_dir / name).write_bytes(content)

"""`make wandb-sync`: which runs it hands to `wandb sync`, and that this has the options that it is called with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("experiment", ["demo,seed=1", None])
def test_offline_runs_are_uploaded_side_by_side(experiment: str | None, tmp_path: Path) -> None:
    runs = [tmp_path / "runs" / "demo,seed=1" / "segmenter" / "0", tmp_path / "runs" / "b c" / "x" / "errormap" / "1"]
    for run in runs:
        (run / "wandb" / "offline-run-20261129_1-a" / "files").mkdir(parents=True)
        (run / "wandb" / "run-20261129_1-online").mkdir()
    wandb = tmp_path / "bin" / "wandb"
    wandb.parent.mkdir()
    wandb.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/asked\n")
    wandb.chmod(0o755)
    _says(wandb.with_name("python"), "exit 0")
    words = [f"BIN={wandb.parent}", *([f"EXP={experiment}"] if experiment else [])]
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", "wandb-sync", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:5] == ["sync", "--yes", "--skip-synced", "-n", "4"]
    handed = [str(run.relative_to(tmp_path) / "wandb" / "offline-run-20261129_1-a") for run in runs]
    assert sorted(asked[5:]) == sorted(handed[:1] if experiment else handed)


def _says(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_where_no_server_answers_nothing_is_begun_and_one_line_says_why(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "runs" / "demo" / "wandb" / "offline-run-20261129_1-a").mkdir(parents=True)
    wandb = tmp_path / "bin" / "wandb"
    wandb.parent.mkdir()
    _says(wandb, f"touch {tmp_path}/begun")
    _says(wandb.with_name("python"), f'exec {sys.executable} "$@"')
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", "wandb-sync", f"BIN={wandb.parent}"]
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | nobody | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "nothing is uploaded: http://127.0.0.1:9 does not answer; the same command uploads it later" in done.stderr
    assert not (tmp_path / "begun").exists()


def test_wandb_takes_these_options() -> None:
    cli = pytest.importorskip("wandb.cli.cli")
    options = {
        name for parameter in cli.cli.commands["sync"].params for name in parameter.opts + parameter.secondary_opts
    }
    if "-n" not in options:
        pytest.skip("an older wandb uploads one run after the other")
    assert {"--yes", "--skip-synced", "-n"} <= options

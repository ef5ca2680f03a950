"""A Slurm that keeps what it is asked and runs nothing."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

# Jobs are files of `jobs`, named by their ids: the script. What `queue` holds squeue prints, of the names asked for.
PROGRAMS = {
    "sbatch": """
        n=$(($(ls jobs | wc -l) + 1))
        grep -q 'partition=nowhere' "$1" && { echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1; }
        cp "$1" jobs/$n
        name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
        if [ -n "$last" ]; then
            for k in $(seq 0 $last); do echo "$name|$n|$k|PENDING|Priority" >> queue; done
        else
            echo "$name|$n|N/A|PENDING|Dependency" >> queue
        fi
        [ -e deadly ] && kill -9 $PPID
        echo "Submitted batch job $n"
        """,
    "squeue": """
        echo "$@" >> asked
        [ -e mute ] && { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
        for word in "$@"; do case $word in --name=*) names=${word#--name=};; esac; done
        for name in $(echo $names | tr , ' '); do grep "^$name|" queue; done
        true
        """,
    "scancel": """
        echo "$@" >> cancelled
        grep -v "|${1%_*}|" queue > left; mv left queue
        """,
    "srun": "exit 1",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder; PATH leads to its programs."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'whqa[slurm]'")
    root = tmp_path / "fake-slurm"
    for name in ("bin", "jobs"):
        (root / name).mkdir(parents=True)
    (root / "queue").touch()
    for name, text in PROGRAMS.items():
        path = root / "bin" / name
        path.write_text(f"#!/bin/sh\ncd {root}\n{dedent(text)}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return root

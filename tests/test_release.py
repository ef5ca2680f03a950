"""What a release is made of: hosted CI calls the targets of the Makefile, the lock fits the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
LOCK = (ROOT / ".ci" / "demo.lock").read_text("utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_runs_targets_of_the_makefile_alone(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs
    targets = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, flags=re.MULTILINE))
    assert [run for run in runs if not (run.startswith("make ") and set(run.split()[1:]) <= targets)] == []
    for job in jobs.values():
        assert f"{job['env']['TORCH'].split()[0]}\n" in MAKEFILE


def test_every_python_of_the_project_is_tested_and_tried() -> None:
    named = {c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    tested = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    assert set(tested["jobs"]["test"]["strategy"]["matrix"]["python"]) == named
    (tried,) = re.findall(r"^PYTHONS \?= (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(tried.split()) == named


def test_the_lock_holds_all_that_the_project_needs_and_no_host() -> None:
    pins = [line for line in LOCK.splitlines() if line]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+( ; .+)?", line)] == []
    locked = {re.split("==", line)[0].lower() for line in pins}
    needed = {re.split(r"[<>=!~\[ ]", one)[0].lower() for one in PROJECT["dependencies"]}
    assert needed - locked == set()


def test_the_lock_has_the_torch_of_the_makefile() -> None:
    (torch,) = re.findall(r"^TORCH \?= (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert f"{torch}\n" in LOCK

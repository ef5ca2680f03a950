"""What produced a number: versions, device, platform and the commit of the code."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch

from whqa.contract.provenance import Commit, Environment

PACKAGES = ("torch", "pytorch_lightning", "torchmetrics", "whqa")


def environment() -> Environment:
    """Versions of python and of the packages that compute, this process's device, the platform, the git commit."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package.replace("_", "-"))
        except PackageNotFoundError:
            found[package] = None
            found[f"{package}_reason"] = "not installed as a package"
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found["platform"] = platform.platform()
    found["git"] = _commit(Path(__file__).resolve().parent)
    return cast(Environment, found)


def _commit(directory: Path) -> Commit:
    # An installed copy may lie inside somebody else's repository, whose commit says nothing about this code.
    if _git(directory, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"commit": None, "reason": "the code does not run from a git checkout"}
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "reason": "the git checkout has no commit"}
    return {"commit": commit, "changed": bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))}


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

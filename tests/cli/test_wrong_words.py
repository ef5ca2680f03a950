"""Wrong words, help and info are answered before anything is imported that they do not need: imports take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "pandas", "matplotlib", "monai", "sklearn")
COMMAND = f"""
import sys
from whqa.cli import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in {HEAVY} if name in sys.modules])
"""


def answer(words: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, the heavy packages that were imported, and the last line on standard error."""
    command = [sys.executable, "-c", COMMAND, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout.splitlines()[-1], done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["cv", "experiment=dmo"], "did you mean 'demo'?"),
        (["cv", "experiment=demo", "segmenter.stepz=3"], "did you mean 'segmenter.steps'?"),
        (["cv", "experiment=demo", "--jobs", "0"], "must be at least 1"),
        (["summarize", "runs/demo", "--reports", "-1"], "must be at least 0"),
        (["export", "runs/demo", "-o", "models/"], "e.g. -o models/model.whqa"),
        (["summarize", "nowhere"], "`whqa cv experiment=...` makes one"),
        (["status", "nowhere"], "`whqa cv experiment=...` makes one"),
        (["assess", "a.nii.gz", "a.nii.gz", "--model", "nowhere", "-o", "out"], "`make demo` makes runs/demo"),
        (["assess", "no-such.nii.gz", "mask.nii.gz", "--model", "run", "-o", "out"], "no such file or folder"),
        (["assess", ".", ".", "--model", "run", "-o", "out"], "no "),
        (["assess", "a.nii.gz", "a.nii.gz", "--label-map", "lv=x", "--model", "run", "-o", "out"], "lv=x"),
        (["data", "check", "nowhere"], "data folder does not exist"),
        (["data", "check", ".", "--source", "mmwsh"], "did you mean 'mmwhs'?"),
        (["data", "prepare", "experiment=dmo"], "did you mean 'demo'?"),
        (["data", "preview", ".", "--source", "mmwhs", "modalty=ct"], "did you mean 'data.modality'?"),
        (["info", "--jsno"], "unknown argument '--jsno'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_wrong_word_is_met_before_the_heavy_imports(words: list[str], cause: str, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    code, imported, line = answer(words, tmp_path)
    assert cause in line
    assert (code, imported) == (2, "[]")


IMPORTED = """
import sys
from whqa.cli import main
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as end:
        assert not end.code, words
print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_by(*commands: str) -> set[str]:
    """Packages that one process has imported after these commands."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *commands], capture_output=True, text=True, timeout=300, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_no_reader_of_scans_and_nothing_that_computes() -> None:
    plain = ["summarize", "compare", "status", "evidence", "assess", "export", "info", "data check", "data phantom"]
    found = imported_by("--help", *(f"{command} --help" for command in plain))
    assert found.isdisjoint({*HEAVY, "scipy", "nibabel", "hydra", "omegaconf", "rich", "jinja2"})
    # those that take settings read them
    assert imported_by("cv --help", "sweep --help", "train --help").isdisjoint({*HEAVY, "scipy", "nibabel"})


def test_info_imports_torch_and_nothing_that_trains_or_draws() -> None:
    found = imported_by("info --json")
    assert "torch" in found
    assert found.isdisjoint({*HEAVY, "nibabel"} - {"torch", "pandas"})

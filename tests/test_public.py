"""What other projects may use: the names of `whqa.__all__`, cheap to import, documented, working from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import whqa

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "pandas", "numpy", "hydra", "monai", "nibabel")
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[1]


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, whqa; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_public_name_is_there_and_on_the_page() -> None:
    for name in whqa.__all__:
        assert getattr(whqa, name) is not None
        assert name in dir(whqa)
    described = set(re.findall(r"^::: whqa\.(\w+)$", PAGE, flags=re.MULTILINE))
    assert described == set(whqa.__all__) - {"__version__", "metrics"}


def test_every_public_metric_is_there_and_on_the_page() -> None:
    for name in whqa.metrics.__all__:
        assert getattr(whqa.metrics, name).__name__ == name
    assert set(re.findall(r"^::: whqa\.metrics\.(\w+)$", PAGE, flags=re.MULTILINE)) == set(whqa.metrics.__all__)


@pytest.mark.parametrize("module", [whqa, whqa.metrics], ids=["whqa", "whqa.metrics"])
def test_a_name_that_does_not_exist_is_named(module: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'asess'"):
        getattr(module, "asess")  # noqa: B009, to ask as hasattr does


def test_the_data_of_a_fold_follow_from_a_cohort(phantoms: Path, tmp_path: Path) -> None:
    cohort = whqa.read_cohort("mmwhs", phantoms / "data" / "phantom-ct-6-6mm-seed0")
    grid = whqa.Preprocess(spacing=(8, 8, 8))
    options = {"patch": (8, 8, 8), "batch_size": 1, "steps_per_epoch": 2, "validation_fraction": 0}
    of_folds = [whqa.WholeHeartDataModule.of_cohort(cohort, tmp_path, grid, k, folds=3, **options) for k in range(3)]
    tested = [case for data in of_folds for case in data.test_cases]
    assert sorted(tested) == sorted(case.id for case in cohort.cases)
    for data in of_folds:
        assert not set(data.train_cases) & set(data.test_cases)
        assert next(iter(data.train_dataloader()))["image"].shape == (1, 1, 8, 8, 8)
    with pytest.raises(whqa.InputError, match="fold=3: must be between 0 and 2"):
        whqa.WholeHeartDataModule.of_cohort(cohort, tmp_path, grid, 3, folds=3, **options)


@pytest.mark.slow
def test_the_wheel_serves_a_project_that_knows_public_names_alone(tmp_path: Path) -> None:
    """An empty environment beside that of the tests, whose packages it sees, but not their whqa."""
    wheel_in(tmp_path / "dist")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    others = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "others.pth").write_text(others)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel]
    subprocess.run(install, check=True)
    project = tmp_path / "project"
    project.mkdir()
    (project / "mine.py").write_text(f"{EXAMPLE}\nprint(whqa.__file__, trainer.callback_metrics['dice'].item())\n")
    done = subprocess.run([python, "-I", "mine.py"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, dice = done.stdout.split()[-2:]
    assert Path(where).is_relative_to(tmp_path / "venv")
    assert 0 <= float(dice) <= 1


def wheel_in(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True)

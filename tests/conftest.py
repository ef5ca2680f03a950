"""A study so small that a stage takes a second or two, run once a session through the real entry point."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Train = Callable[..., int]

# 32-true: oneDNN's bf16 weight gradients of layers with under 8 channels hold rubbish now and then.
TINY = (
    "experiment=demo",
    "name=tiny",
    "data.n=6",
    "data.spacing_mm=6",
    "preprocess.spacing=[8,8,8]",
    "network.width=4",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "+trainer.enable_progress_bar=false",
    "segmenter.early=0.5",
    "segmenter.validation_fraction=0.3",
    "errormap.overlays=1",
    *(
        f"{stage}.{setting}"
        for stage in ("segmenter", "errormap")
        for setting in (
            "learning_rate=0.02",
            "steps=24",
            "steps_per_epoch=12",
            "patch=[16,16,16]",
            "validate_every=1",
            "batch_size=2",
        )
    ),
)


@pytest.fixture(scope="session")
def train() -> Train:
    """`whqa train ...` in this process; returns its exit code."""
    import whqa.train

    def run(*overrides: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["whqa train", *overrides])
            patch.setenv("HYDRA_FULL_ERROR", "1")
            try:
                whqa.train.main()
            except SystemExit as end:
                return int(end.code or 0)
            finally:
                # the trainer sets it for the whole process
                torch.use_deterministic_algorithms(False)
        return 0

    return run


@pytest.fixture(scope="session")
def tiny() -> Callable[[Path], list[str]]:
    """Overrides of the tiny study below a folder."""
    return lambda root: [*TINY, f"runs_dir={root / 'runs'}", f"data_dir={root / 'data'}"]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data/ holds the tiny study's phantoms; not to be changed."""
    from whqa.data.phantom import write_phantoms

    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root / "data" / "phantom-ct-6-6mm-seed0", 6, "ct", 0, 6)
    return root


@pytest.fixture(scope="session")
def segmented(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Path, train: Train, tiny: Callable[[Path], list[str]]
) -> Path:
    """The tiny study with its three segmenters complete; not to be changed."""
    root = tmp_path_factory.mktemp("segmented")
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    for fold in range(3):
        assert train(*tiny(root), "stage=segmenter", f"fold={fold}") == 0
    return root


@pytest.fixture(scope="session")
def judged(
    tmp_path_factory: pytest.TempPathFactory, segmented: Path, train: Train, tiny: Callable[[Path], list[str]]
) -> Path:
    """The same with the error-map network of fold 0 as well; not to be changed."""
    root = tmp_path_factory.mktemp("judged")
    shutil.copytree(segmented, root, dirs_exist_ok=True)
    assert train(*tiny(root), "stage=errormap", "fold=0") == 0
    return root


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    """Reads a CSV file."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read

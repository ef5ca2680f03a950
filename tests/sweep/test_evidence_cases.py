"""Pictures of typical and worst masks beside the tables of an experiment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whqa.files import write_arrays
from whqa.report.summary_figures import Image
from whqa.results.tables import read_run
from whqa.sweep.evidence_cases import cases_picture, typical_and_worst


def test_typical_is_the_median_and_the_worst_are_the_ends() -> None:
    rows = pd.DataFrame({"case": [*"abcde"], "mask_kind": "final", "error_dice": [0.5, np.nan, 0.2, 0.9, 0.7]})
    found = typical_and_worst(rows)
    assert [row["case"] for row in found.values()] == ["e", "c", "a"]
    assert typical_and_worst(rows.iloc[1:2]) == {}


@pytest.fixture
def run(tmp_path: Path, study: Path) -> Path:
    return shutil.copytree(study / "runs" / "tiny", tmp_path / "tiny")


def test_a_finished_experiment_shows_its_cases(run: Path) -> None:
    picture = cases_picture(run, read_run(run))
    assert isinstance(picture, Image)
    for words in ("typical, ", "lowest error Dice, ", "QI farthest from Acc, ", "heart: QI 0."):
        assert words in picture.alt


def test_what_cannot_be_shown_is_said_in_a_line(run: Path) -> None:
    for path in (run / "errormap").glob("*/masks/*/final.npz"):
        write_arrays(path, error_probability=np.zeros((2, 3, 4)), error_map=np.zeros((2, 3, 4)))
    said = cases_picture(run, read_run(run))
    assert isinstance(said, str)
    assert "another grid" in said
    for path in (run / "segmenter").glob("*/masks/*/final.npz"):
        path.unlink()
    said = cases_picture(run, read_run(run))
    assert isinstance(said, str)
    assert "final.npz" in said
    assert "\n" not in said

"""A network of the nested plan hears all segmenters that have not seen a test case, and learned from one at a time."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

NESTED = ("masks=nested", "segmenter.validation_fraction=0")


@pytest.fixture(scope="module")
def segmented_pairs(
    tmp_path_factory: pytest.TempPathFactory,
    phantoms: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
) -> Path:
    """Segmenters that fold 0 of the nested plan needs."""
    work = tmp_path_factory.mktemp("nested")
    shutil.copytree(phantoms, work, dirs_exist_ok=True)
    for fold in ("0-1", "0-2", "0"):
        assert train(*tiny(work), *NESTED, "stage=segmenter", f"fold={fold}") == 0
    return work


def test_the_mean_of_all_is_heard_of_test_cases_alone(
    segmented_pairs: Path, tmp_path: Path, train: Callable[..., int], tiny: Callable[[Path], list[str]]
) -> None:
    runs = {}
    for together in (True, False):
        work = tmp_path / str(together)
        shutil.copytree(segmented_pairs, work)
        words = (*tiny(work), *NESTED, f"errormap.opinion_ensemble={together}", "stage=errormap", "fold=0")
        assert train(*words) == 0
        runs[together] = work / "runs" / "tiny" / "errormap" / "0"
    # training cases have one opinion each
    calibrations = [json.loads((run / "calibration.json").read_text()) for run in runs.values()]
    assert calibrations[0] == calibrations[1]
    for method, alike in (("opinion", True), ("tta", True), ("ensemble", True), ("errormap", False)):
        found = [_column(run, method) for run in runs.values()]
        assert found[0]
        assert (found[0] == found[1]) == alike, method
    # whatever is heard, how many voxels are wrong is told by the opinion that training cases have, too
    qi = [np.array(_column(run, "errormap", "qi_heart"), float) for run in runs.values()]
    np.testing.assert_allclose(qi[0], qi[1], atol=2e-3)


def _column(run: Path, method: str, name: str = "error_auprc") -> list[str]:
    with (run / "cases.csv").open(newline="") as file:
        return [row[name] for row in csv.DictReader(file) if row["method"] == method]

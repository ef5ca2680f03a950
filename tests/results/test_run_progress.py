"""How far a run has come, told by files that the training really writes."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from whqa.modules.weights import write_weights
from whqa.results.run_progress import TRAINING_SHARE, read_progress, saved_step, share_done


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "segmenter" / "0"
    directory.mkdir(parents=True)
    return directory


def _tell(run_dir: Path, **told: Any) -> None:
    (run_dir / "progress.json").write_text(json.dumps(told))


def test_a_training_is_a_share_of_the_run(run_dir: Path) -> None:
    _tell(run_dir, phase="training", done=0.5, step=200, of=400, speed=0.01)
    os.utime(run_dir / "progress.json", (50, 50))
    found, training = read_progress(run_dir), TRAINING_SHARE["segmenter"]
    assert found is not None
    assert (found.phase, found.step, found.of, found.at) == ("training", 200, 400, 50.0)
    assert found.share == share_done(run_dir) == pytest.approx(training / 2)
    # 50 s of training are left, and what comes after it, at the same pace
    assert found.left_s == pytest.approx(50 + 100 * (1 - training) / training)


def test_a_test_is_the_rest_of_the_run(run_dir: Path) -> None:
    _tell(run_dir, phase="testing", done=0.75, step=3, of=4, speed=0.05)
    found, training = read_progress(run_dir), TRAINING_SHARE["segmenter"]
    assert found is not None
    assert found.share == pytest.approx(training + 0.75 * (1 - training))
    assert found.left_s == pytest.approx(5)


def test_an_older_version_told_a_share_alone(run_dir: Path) -> None:
    _tell(run_dir, phase="training", done=0.5)
    found = read_progress(run_dir)
    assert found is not None
    assert (found.step, found.of, found.left_s) == (None, None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"phase": "training"}', '{"phase": "training", "done": NaN}'])
def test_what_is_torn_tells_nothing(text: str, run_dir: Path) -> None:
    (run_dir / "progress.json").write_text(text)
    assert read_progress(run_dir) is None
    assert share_done(run_dir) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_the_step_of_a_checkpoint_is_read_without_torch(dtype: torch.dtype, run_dir: Path) -> None:
    """What we lean on: a file of `torch.save` is a zip archive with the pickle of everything but the tensors."""
    module = torch.nn.Linear(2, 3).to(dtype if dtype.is_floating_point else torch.float32)
    content = {"state_dict": module.state_dict(), "loops": {"a": [1, (2.5, None)]}, "epoch": 3, "global_step": 1234}
    write_weights(run_dir / "checkpoints" / "last.ckpt", {**content, "more": torch.ones(4, dtype=dtype)})
    assert saved_step(run_dir) == 1234


def test_a_checkpoint_is_not_run_as_code(run_dir: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(run_dir / "evil"),)

    path = run_dir / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"global_step": 7, "more": Evil()}))
    assert saved_step(run_dir) == 7
    assert not (run_dir / "evil").exists()


@pytest.mark.parametrize("keep", [0, 3, 0.5, None])
def test_a_checkpoint_that_is_torn_or_missing_has_no_step(keep: float | None, run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "last.ckpt"
    write_weights(path, {"global_step": 5, "more": torch.ones(100)})
    whole = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(whole[: round(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    assert saved_step(run_dir) is None

"""Stopping and starting again: the same weights bit for bit, one log without gaps, and nothing done twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from whqa.callbacks.training import SeedSteps
from whqa.judges.calibration import Calibration
from whqa.masks.plan import MASK_KINDS
from whqa.modules.segmenter import SegmenterModule

Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]
Read = Callable[[Path], list[dict[str, str]]]


class _PowerCutError(Exception):
    """Not an error that anything in whqa handles."""


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends every training at the start of one step."""

    def at(step: int) -> None:
        seeded = SeedSteps.on_train_batch_start

        def start(self: SeedSteps, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == step:
                raise _PowerCutError
            seeded(self, trainer, *args)

        monkeypatch.setattr(SeedSteps, "on_train_batch_start", start)

    return at


def _weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def _without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
@pytest.mark.parametrize("step", [5, 17])
def test_an_interrupted_run_ends_where_an_undisturbed_one_does(
    stage: str,
    step: int,
    judged: Path,
    tmp_path: Path,
    train: Train,
    tiny: Tiny,
    rows_of: Read,
    power_cut: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    undisturbed, run_dir = (root / "runs" / "tiny" / stage / "0" for root in (judged, tmp_path))
    shutil.rmtree(run_dir)
    words = [*tiny(tmp_path), f"stage={stage}", "fold=0"]
    with monkeypatch.context() as patch:
        patch.setattr(SeedSteps, "on_train_batch_start", SeedSteps.on_train_batch_start)
        power_cut(step)
        with pytest.raises(_PowerCutError):
            train(*words)
    assert not (run_dir / "COMPLETED").exists()
    assert (run_dir / "checkpoints" / "last.ckpt").exists() == (step > 12)
    monkeypatch.undo()
    assert train(*words) == 0

    expected, found = _weights(undisturbed), _weights(run_dir)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    log, undisturbed_log = rows_of(run_dir / "metrics.csv"), rows_of(undisturbed / "metrics.csv")
    assert log == undisturbed_log
    assert _without_seconds(rows_of(run_dir / "cases.csv")) == _without_seconds(rows_of(undisturbed / "cases.csv"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_with_one_line_and_130(
    number: int,
    phantoms: Path,
    tmp_path: Path,
    train: Train,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def start(self: SeedSteps, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 14:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(SeedSteps, "on_train_batch_start", start)
    try:
        assert train(*tiny(tmp_path)) == 130
    finally:
        found = {one: signal.getsignal(one) for one in before}
        for one, handler in before.items():
            signal.signal(one, handler)
    assert found[signal.SIGTERM] == before[signal.SIGTERM]
    assert capsys.readouterr().err.strip() == "whqa train: stopped; the same command continues from the last checkpoint"
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 12


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_every_epoch_leaves_a_checkpoint_also_without_validation(
    fraction: float, phantoms: Path, tmp_path: Path, train: Train, tiny: Tiny, power_cut: Callable[[int], None]
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    power_cut(17)
    with pytest.raises(_PowerCutError):
        train(*tiny(tmp_path), f"segmenter.validation_fraction={fraction}", "segmenter.validate_every=5")
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 12


def test_the_log_has_every_step_once(judged: Path, rows_of: Read) -> None:
    for stage in ("segmenter", "errormap"):
        rows = rows_of(judged / "runs" / "tiny" / stage / "0" / "metrics.csv")
        steps = [int(r["step"]) for r in rows]
        assert steps == sorted(set(steps))
        assert [int(r["step"]) for r in rows if r["train/loss"]] == list(range(24))
        validated = "val/dice" if stage == "segmenter" else "val/error_dice"
        assert [int(r["step"]) for r in rows if r[validated]][:2] == [11, 23]


def test_a_complete_run_does_nothing(
    judged: Path, tmp_path: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.suffix in (".ckpt", ".csv", ".npz", ".json")}
    # the copied configuration names the folder of the original
    assert train(*tiny(tmp_path), "stage=errormap", "fold=0") == 0
    assert "is complete; nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_in_a_used_directory_are_refused_by_name(
    judged: Path, tmp_path: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    if not finished:
        (run_dir / "COMPLETED").unlink()
    config = (run_dir / "config.yaml").read_text()
    assert train(*tiny(tmp_path), "stage=errormap", "fold=0", "errormap.learning_rate=0.5", "seed=3") == 2
    err = capsys.readouterr().err
    assert f"{run_dir}: holds a run with other settings (errormap.learning_rate, seed)" in err
    assert (run_dir / "config.yaml").read_text() == config


def test_where_and_how_to_run_may_change(
    judged: Path, tmp_path: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    words = ["stage=errormap", "fold=0", "trainer.log_every_n_steps=7", "errormap.num_workers=1"]
    assert train(*tiny(tmp_path), *words) == 0
    assert "is complete" in capsys.readouterr().out


def test_fit_false_tests_again_with_the_same_numbers(
    judged: Path, tmp_path: Path, train: Train, tiny: Tiny, rows_of: Read
) -> None:
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    before, log = rows_of(run_dir / "cases.csv"), rows_of(run_dir / "metrics.csv")
    (run_dir / "cases.csv").unlink()
    shutil.rmtree(run_dir / "masks")
    assert train(*tiny(tmp_path), "stage=errormap", "fold=0", "fit=false") == 0
    assert _without_seconds(rows_of(run_dir / "cases.csv")) == _without_seconds(before)
    assert rows_of(run_dir / "metrics.csv") == log
    assert len(list(run_dir.glob("masks/*/*.npz"))) == 2 * len(MASK_KINDS)


def test_fit_false_makes_a_segmenters_masks_again(
    segmented: Path, tmp_path: Path, train: Train, tiny: Tiny, rows_of: Read
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "segmenter" / "0"
    before = rows_of(run_dir / "cases.csv")
    shutil.rmtree(run_dir / "masks")
    assert train(*tiny(tmp_path), "stage=segmenter", "fold=0", "fit=false") == 0
    assert rows_of(run_dir / "cases.csv") == before
    # an opinion beside them, and its mean over augmented views
    assert len(list(run_dir.glob("masks/*/*.npz"))) == 2 * (len(MASK_KINDS) + 2)


def test_a_network_that_is_not_calibrated_says_so_and_keeps_its_numbers(
    segmented: Path, tmp_path: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    words = [*tiny(tmp_path), "stage=errormap", "fold=0", "errormap.validation_fraction=0"]
    assert train(*words) == 0
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    told = f"{run_dir}: not calibrated, errormap.validation_fraction=0 holds no training case back"
    assert capsys.readouterr().out.count(told) == 1
    assert json.loads((run_dir / "calibration.json").read_text()) == Calibration().to_dict()


def test_the_same_seed_gives_the_same_study(
    judged: Path, phantoms: Path, tmp_path: Path, train: Train, tiny: Tiny, rows_of: Read
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    for words in (["fold=0"], ["fold=1"], ["fold=2"], ["stage=errormap", "fold=0"]):
        assert train(*tiny(tmp_path), *words) == 0
    first, second = (root / "runs" / "tiny" / "errormap" / "0" / "cases.csv" for root in (judged, tmp_path))
    assert _without_seconds(rows_of(first)) == _without_seconds(rows_of(second))


def test_a_training_that_diverges_ends_with_one_line_and_a_sound_checkpoint(
    phantoms: Path,
    tmp_path: Path,
    train: Train,
    tiny: Tiny,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(SegmenterModule, "loss", lambda module, logits, target: logits.sum() * math.nan)
    assert train(*tiny(tmp_path)) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert "whqa train: training diverged: " in err
    assert "lower the stage's own segmenter.learning_rate" in err
    assert not list(tmp_path.rglob("COMPLETED"))
    for path in tmp_path.rglob("last.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(w).all()) for w in weights.values())

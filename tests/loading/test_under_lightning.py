"""The data module under Lightning: resumed, with two processes, overfitting.

Also a program: `python test_under_lightning.py ROOT` trains with two processes and writes what each of them saw.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from stub_cohort import FOLDS, StubCase, data_module, write_cases

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
    # 2026-11: pytorch-lightning 2.6.6 under torch 2.13
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\).*:FutureWarning"),
]

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class _Recorder(pl.LightningModule):
    """A one-layer segmenter that notes what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1)
        self.seen: list[list[float]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        self.seen += [[float(i), float(x.sum())] for i, x in zip(batch["index"], batch["image"], strict=True)]
        return torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(cases: dict[str, Any], epochs: int, resume: Path | None = None, **kwargs: Any) -> tuple[_Recorder, pl.Trainer]:
    torch.manual_seed(0)
    module, trainer = _Recorder(), pl.Trainer(max_epochs=epochs, **QUIET)
    trainer.fit(
        module, datamodule=data_module(cases, **kwargs), ckpt_path=resume, weights_only=resume is not None or None
    )
    return module, trainer


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(
    cases: dict[str, Any], tmp_path: Path, num_workers: int
) -> None:
    whole, _ = _fit(cases, 3, num_workers=num_workers)
    first, trainer = _fit(cases, 2, num_workers=num_workers)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second, _ = _fit(cases, 3, resume=tmp_path / "last.ckpt", num_workers=num_workers)
    assert len(whole.seen) == 18
    assert first.seen + second.seen == whole.seen
    assert len({checksum for _, checksum in whole.seen}) == 18
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_validation_is_optional(cases: dict[str, Any]) -> None:
    without, _ = _fit(cases, 1, validation_fraction=0.0)
    assert (len(without.seen), without.validated) == (6, [])
    assert data_module(cases, validation_fraction=0.0).val_dataloader() == []
    module, _ = _fit(cases, 1, validation_fraction=0.5)
    assert sorted(set(module.validated)) == list(range(len(data_module(cases, validation_fraction=0.5).val_items)))


def test_overfitting_repeats_the_same_patches(cases: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = _Recorder()
    with pytest.warns(UserWarning, match="overfit"):
        pl.Trainer(max_epochs=2, overfit_batches=1, **QUIET).fit(module, datamodule=data_module(cases))
    assert module.seen[:2] == module.seen[2:]


def test_two_processes_see_together_what_one_sees(cases: dict[str, Any], tmp_path: Path) -> None:
    alone, _ = _fit(write_cases(tmp_path), 2, batch_size=4)
    # A program of its own, because processes are forked safely only where autograd has not started threads.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (root, root / "tests" / "helpers")))
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=120, capture_output=True)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    together = [pair for step in range(0, 12, 2) for rank in ranks for pair in rank["seen"][step : step + 2]]
    assert together == alone.seen
    # Gradients are averaged over the halves of each batch, so the training is that of one process.
    for rank in ranks:
        torch.testing.assert_close(torch.tensor(rank["bias"]), alone.layer.bias.detach())
    n_val = len(data_module(cases).val_items)
    assert {i for rank in ranks for i in rank["validated"]} == set(range(n_val))


class _RankRecorder(_Recorder):
    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def on_train_end(self) -> None:
        found = {"seen": self.seen, "validated": self.validated, "bias": self.layer.bias.tolist()}
        (self.root / f"rank{self.global_rank}.json").write_text(json.dumps(found))


def _train_with_two_processes(root: Path) -> None:
    torch.manual_seed(0)
    module = _RankRecorder(root)
    cases = {c: StubCase(c, root, np.load(root / f"{c}-image.npy").shape) for fold in FOLDS.folds for c in fold}
    trainer = pl.Trainer(max_epochs=2, strategy="ddp_fork", devices=2, **QUIET)
    trainer.fit(module, datamodule=data_module(cases, batch_size=4))


if __name__ == "__main__":
    _train_with_two_processes(Path(sys.argv[1]))

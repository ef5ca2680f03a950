"""What a W&B run shows beside numbers: pictures of the same cases every epoch, the case table, QI against Acc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from whqa.callbacks.mirror import spared
from whqa.callbacks.ranks import gather_by_index
from whqa.callbacks.wandb_run import wandb_figure, wandb_table
from whqa.config.wandb_settings import require_wandb
from whqa.files import ONLY_EMPTY_IS_MISSING
from whqa.modules.segmenter import Segmented
from whqa.modules.volume_batches import spacing_of
from whqa.quality import ErrorPrediction
from whqa.structures import LabelScheme

N_PICTURES = 3


@dataclass(frozen=True)
class Picture:
    """Grey image (H, W) uint8 with label layers (H, W) uint8 by name."""

    caption: str
    grey: npt.NDArray[np.uint8]
    layers: Mapping[str, npt.NDArray[np.uint8]]


class TrackRun(pl.Callback):
    """Adds to a W&B run what is not a number; does nothing where no W&B logger is.

    Every validation epoch of the training logs pictures of the same first validation cases under the same keys
    `val/overlay/<i>`, the test loop those of test cases under `test/overlay/<i>`: three planes with layers to switch on
    and off (mask, reference, true error, in stage two predicted error). At the end of the test loop the case table
    (`test/cases`) and, in stage two, QI against Acc.

    Args:
        run_dir: where the test loop leaves cases.csv.
        scheme: names the structures.
        n: number of cases with pictures.
    """

    def __init__(self, run_dir: Path, scheme: LabelScheme, n: int = N_PICTURES) -> None:
        self.dir = run_dir
        self.scheme = scheme
        self.n = n
        self.pictures: dict[int, Picture] = {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Keep the picture of a fixed case."""
        if _logger(trainer) and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._keep(trainer.datamodule.val_items, outputs, batch)  # type: ignore[attr-defined]

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Keep the picture of a fixed case."""
        if _logger(trainer):
            self._keep(trainer.datamodule.test_items, outputs, batch)  # type: ignore[attr-defined]

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the pictures of all ranks."""
        self._log_pictures(trainer, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the pictures of all ranks."""
        self._log_pictures(trainer, "test")

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the case table as the other callbacks have written it."""
        logger = _logger(trainer)
        if logger and trainer.is_global_zero:
            with spared():
                logger.log_metrics(_case_media(self.dir / "cases.csv"), _step(trainer))

    def _keep(self, items: list[tuple[str, str]], outputs: Any, batch: Any) -> None:
        fixed = fixed_items(items, self.n)
        index = int(batch["index"][0])
        if index in fixed:
            with spared():
                self.pictures[fixed.index(index)] = _picture(outputs, batch, self.scheme.n_classes)

    def _log_pictures(self, trainer: pl.Trainer, phase: str) -> None:
        logger = _logger(trainer)
        if not logger:
            return
        everyone = gather_by_index(self.pictures)
        self.pictures = {}
        if everyone and trainer.is_global_zero:
            with spared():
                media = {f"{phase}/overlay/{i + 1}": self._image(everyone[i]) for i in sorted(everyone)}
                logger.log_metrics(media, _step(trainer))

    def _image(self, picture: Picture) -> Any:
        # one numbering for all layers: W&B joins the classes of a picture's masks
        n = self.scheme.n_classes
        structures = dict(enumerate(self.scheme.titles, start=1))
        labels = {"true error": {n: "true error"}, "predicted error": {n + 1: "predicted error"}}
        masks = {
            name: {"mask_data": layer, "class_labels": labels.get(name, structures)}
            for name, layer in picture.layers.items()
        }
        return require_wandb().Image(picture.grey, caption=picture.caption, masks=masks)


def fixed_items(items: list[tuple[str, str]], n: int) -> list[int]:
    """Indices into `items` of one mask of each of the first `n` cases, the final one where there is a choice."""
    first: dict[str, int] = {}
    for index, (case, kind) in enumerate(items):
        if case not in first or kind == "final":
            first[case] = index
    return list(first.values())[:n]


def _logger(trainer: pl.Trainer) -> WandbLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)


def _step(trainer: pl.Trainer) -> int:
    # The step beside which Lightning logs numbers. Nothing public says it: global_step is one more after an epoch, and
    # 0 with fit=false. tests/callbacks/test_lightning.py sees that it is the same.
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def _picture(outputs: Any, batch: Any, n_classes: int) -> Picture:
    """Where to cut depends only on what stays the same from epoch to epoch."""
    from whqa.report.shown import middle, side_by_side, worst_voxel

    reference = batch["label"][0].cpu().numpy()
    judging = "mask" in batch
    mask = (batch["mask"][0] if judging else _final(outputs)).cpu().numpy()
    error = mask != reference
    layers = {"mask": mask, "reference": reference, "true error": error * n_classes}
    if judging:
        predicted = outputs.error_map if isinstance(outputs, ErrorPrediction) else outputs.error_logit > 0
        layers["predicted error"] = predicted.cpu().numpy() * (n_classes + 1)
    at = worst_voxel(error, mask) if judging else middle(reference)
    kind = "final" if not judging else batch["kind"][0]
    grey, flat = side_by_side(batch["image"][0, 0].float().cpu().numpy(), layers, at, spacing_of(batch))
    return Picture(f"{batch['case'][0]}, {kind} mask", grey, flat)


def _final(outputs: Any) -> Tensor:
    """The final mask of a segmenter's validation or test step."""
    masks = outputs.masks if isinstance(outputs, Segmented) else outputs
    found: Tensor = masks["final"][0]
    return found


def _case_media(path: Path) -> dict[str, Any]:
    import pandas as pd

    from whqa.report.figures import scatter_figure

    wandb = require_wandb()
    rows = pd.read_csv(path, dtype={"case": str, "patient": str, "segmenter": str}, **ONLY_EMPTY_IS_MISSING)
    found: dict[str, Any] = {"test/cases": wandb_table(rows)}
    for region in ("volume", "heart") if "method" in rows else ():
        found[f"test/qi_accuracy_{region}"] = wandb_figure(scatter_figure(rows, region))
        network = wandb_table(
            rows[rows["method"] == "errormap"][["case", "mask_kind", f"acc_{region}", f"qi_{region}"]]
        )
        title = f"QI against Acc ({region})"
        found[f"test/qi_accuracy_{region}_chart"] = wandb.plot.scatter(
            network, f"acc_{region}", f"qi_{region}", title=title
        )
    return found

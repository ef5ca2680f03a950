"""Weights & Biases, a mirror of metrics.csv and cases.csv: `logger=wandb`. Without it nothing here imports wandb.

One run a stage and fold: group = experiment, job_type = stage, and an id that follows from experiment, stage and fold,
so that a resumed job continues its run. A further run of job_type "summary" holds the numbers of the whole
cross-validation. Offline unless told otherwise: `wandb sync` uploads later.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from whqa.callbacks.batches import gather_by_index, spacing_of
from whqa.errors import InputError
from whqa.quality import ErrorPrediction
from whqa.structures import LabelScheme

MODES = ("offline", "online", "shared", "disabled")
N_PICTURES = 3
MAX_NAME, MAX_ID = 128, 64


def require_wandb() -> Any:
    """The module wandb.

    Raises:
        InputError: it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise InputError(
            "logger=wandb: wandb is not installed; pip install 'whqa[wandb]', or leave logger=wandb out: metrics.csv "
            "and cases.csv hold the same numbers"
        ) from None
    return wandb


def wandb_logger(
    run_dir: str | Path, stage: str, project: str = "whqa", mode: str = "offline", **options: Any
) -> WandbLogger:
    """Logger of one stage of one fold; the W&B run begins with the first thing logged.

    Args:
        run_dir: runs/<experiment>/<stage>/<fold>; its config.yaml, where there is one, becomes the run's configuration.
        stage: becomes the run's job_type.
        project: of W&B.
        mode: "offline", "online", "shared" or "disabled" (nothing is written).
        options: more arguments of `wandb.init`, e.g. entity or tags.

    Raises:
        InputError: wandb is not installed, or there is no such mode.
    """
    require_wandb()
    run_dir = Path(run_dir)
    # mode goes to wandb.init itself: Lightning's offline=True would switch the whole process to offline
    settings = _settings(run_dir.resolve().parent.parent, stage, run_dir.name, run_dir, project, mode)
    return WandbLogger(save_dir=settings.pop("dir"), **settings, **options)


def run_id(experiment: str, stage: str, fold: str) -> str:
    """One id a run, the same at any time: at most 64 letters, digits, `_`, `.` and `-`, the last eight a hash."""
    full = f"{experiment}/{stage}/{fold}".strip("/")
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", full.replace("/", "-"))
    return f"{readable[: MAX_ID - 9]}-{digest}"


def _settings(experiment_dir: Path, stage: str, fold: str, place: Path, project: str, mode: str) -> dict[str, Any]:
    if mode not in MODES:
        raise InputError(f"logger.wandb.mode={mode} (WANDB_MODE): must be one of {', '.join(MODES)}")
    experiment, config = experiment_dir.name, place / "config.yaml"
    place.mkdir(parents=True, exist_ok=True)
    return {
        "project": project,
        "group": experiment if len(experiment) <= MAX_NAME else run_id(experiment, "", ""),
        "job_type": stage,
        "name": f"{stage}/{fold}" if fold else stage,
        "id": run_id(experiment, stage, fold),
        "dir": str(place),
        "mode": mode,
        "resume": "allow",
        "config": OmegaConf.to_container(OmegaConf.load(config), resolve=True) if config.exists() else None,
    }


@contextmanager
def finished_run() -> Iterator[None]:
    """End the W&B run that the block began, however it ends.

    A sweep runs several jobs in one process, and wandb writes everything into the first run that is still open.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and getattr(wandb, "run", None) is not None:
            wandb.finish(exit_code=int(failed))


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
            logger.log_metrics(_tables(self.dir / "cases.csv"), _step(trainer))

    def _keep(self, items: list[tuple[str, str]], outputs: Any, batch: Any) -> None:
        fixed = fixed_items(items, self.n)
        index = int(batch["index"][0])
        if index in fixed:
            self.pictures[fixed.index(index)] = _picture(outputs, batch, self.scheme.n_classes)

    def _log_pictures(self, trainer: pl.Trainer, phase: str) -> None:
        logger = _logger(trainer)
        if not logger:
            return
        everyone = gather_by_index(self.pictures)
        self.pictures = {}
        if everyone and trainer.is_global_zero:
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
    # the step beside which Lightning logs numbers; with fit=false it is the checkpoint's, global_step is 0
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def _picture(outputs: Any, batch: Any, n_classes: int) -> Picture:
    """Where to cut depends only on what stays the same from epoch to epoch."""
    from whqa.report.slices import middle, side_by_side, worst_voxel  # imports matplotlib

    reference = batch["label"][0].cpu().numpy()
    judging = "mask" in batch
    mask = (batch["mask"][0] if judging else outputs["final"][0]).cpu().numpy()
    error = mask != reference
    layers = {"mask": mask, "reference": reference, "true error": error * n_classes}
    if judging:
        predicted = outputs.error_map if isinstance(outputs, ErrorPrediction) else outputs.error_logit > 0
        layers["predicted error"] = predicted.cpu().numpy() * (n_classes + 1)
    at = worst_voxel(error, mask) if judging else middle(reference)
    kind = "final" if not judging else batch["kind"][0]
    grey, flat = side_by_side(batch["image"][0, 0].float().cpu().numpy(), layers, at, spacing_of(batch))
    return Picture(f"{batch['case'][0]}, {kind} mask", grey, flat)


def _tables(path: Path) -> dict[str, Any]:
    import pandas as pd

    from whqa.report.figures import scatter_figure

    wandb = require_wandb()
    rows = pd.read_csv(path, dtype={"case": str, "patient": str, "segmenter": str})
    found: dict[str, Any] = {"test/cases": _table(rows)}
    for region in ("volume", "heart") if "method" in rows else ():
        found[f"test/qi_accuracy_{region}"] = _figure(scatter_figure(rows, region))
        network = _table(rows[rows["method"] == "errormap"][["case", "mask_kind", f"acc_{region}", f"qi_{region}"]])
        title = f"QI against Acc ({region})"
        found[f"test/qi_accuracy_{region}_chart"] = wandb.plot.scatter(
            network, f"acc_{region}", f"qi_{region}", title=title
        )
    return found


def _table(rows: Any) -> Any:
    data = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    return require_wandb().Table(columns=[str(c) for c in rows.columns], data=data)


def _figure(figure: Any) -> Any:
    import PIL.Image

    from whqa.report.figures import png

    return require_wandb().Image(PIL.Image.open(io.BytesIO(png(figure))))


def log_summary(
    experiment_dir: Path, summary: Mapping[str, Any], project: str = "whqa", mode: str = "offline", **options: Any
) -> None:
    """The run of job_type "summary": every number of summary.json with its interval, all cases, the figures, the page.

    Args:
        experiment_dir: runs/<experiment>, summarised.
        summary: content of summary.json.
        project: of W&B.
        mode: see `wandb_logger`.
        options: more arguments of `wandb.init`.

    Raises:
        InputError: wandb is not installed, or there is no such mode.
    """
    from whqa.report.figures import risk_coverage_figure, scatter_figure
    from whqa.report.summary_page import shown_views
    from whqa.results.tables import read_run, view

    wandb = require_wandb()
    experiment_dir = Path(experiment_dir).resolve()
    settings = _settings(experiment_dir, "summary", "", experiment_dir, project, mode)
    settings["config"] = {key: summary[key] for key in ("cohort", "plan", "environment")}
    tables = read_run(experiment_dir)
    with finished_run():
        run = wandb.init(**settings, **{"settings": {"quiet": True}} | options)
        media = {"cases": _table(tables.judged), "page": wandb.Html(str(experiment_dir / "summary.html"), inject=False)}
        for masks in shown_views(summary["methods"]):
            rows = view(tables.judged, masks)
            media[f"risk_coverage/{masks}"] = _figure(risk_coverage_figure(rows, tables.structures))
            for region in ("volume", "heart"):
                media[f"qi_accuracy/{masks}_{region}"] = _figure(scatter_figure(rows, region))
        run.log(media)
        run.summary.update(headline_numbers(summary))


def headline_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """summary.json -> flat names: `final/errormap/error_dice`, beside it `..._low` and `..._high` of the interval."""
    halves = {
        f"{masks}/{method}": numbers for method, both in summary["methods"].items() for masks, numbers in both.items()
    }
    return dict(_flat({"segmentation": summary["segmentation"]} | halves))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in node.items():
        name = f"{prefix}/{key}".strip("/")
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif key == "ci95" and value is not None:
            yield from ((f"{prefix}_low", value[0]), (f"{prefix}_high", value[1]))
        elif isinstance(value, int | float):
            yield (prefix if key == "mean" else name), float(value)


def wandb_options(config: DictConfig) -> dict[str, Any]:
    """Arguments of `log_summary` that a run's configuration states; empty without logger=wandb."""
    loggers: Any = OmegaConf.to_container(config.get("logger") or OmegaConf.create(), resolve=True)
    return {k: v for k, v in loggers.get("wandb", {}).items() if k != "_target_"}


def options_of(experiment_dir: Path) -> dict[str, Any]:
    """Arguments of `log_summary` as the experiment's own runs had them; the mode is WANDB_MODE, else offline."""
    options: dict[str, Any] = {"project": os.environ.get("WANDB_PROJECT", "whqa")}
    for path in sorted(experiment_dir.glob("errormap/*/config.yaml")):
        options |= wandb_options(OmegaConf.load(path))  # type: ignore[arg-type]
    return options | {"mode": os.environ.get("WANDB_MODE", "offline")}

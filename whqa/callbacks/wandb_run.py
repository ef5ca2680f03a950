"""Weights & Biases, a mirror of metrics.csv and cases.csv: `logger=wandb`. Without it nothing here imports wandb.

One run a stage and fold: group = experiment, job_type = stage, and an id that follows from experiment, stage and fold,
so that a resumed job continues its run. A further run of job_type "summary" holds the numbers of the whole
cross-validation. Offline unless told otherwise: `wandb sync` uploads later.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers import WandbLogger

from whqa.callbacks.mirror import Mirror, patience, spared, stay_below, usable_mode, within_run
from whqa.config.run_config import CONFIG, read_run_config
from whqa.config.wandb_settings import check_wandb, require_wandb, wandb_defaults

MAX_NAME, MAX_ID = 128, 64


def wandb_logger(
    run_dir: str | Path, stage: str, project: str | None = None, mode: str | None = None, **options: Any
) -> WandbLogger:
    """Logger of one stage of one fold; the W&B run begins with the first thing logged.

    Args:
        run_dir: runs/<experiment>/<stage>/<fold>; its config.yaml, where there is one, becomes the run's configuration.
        stage: becomes the run's job_type.
        project: of W&B; None takes that of `wandb_defaults`.
        mode: "offline", "online", "shared" or "disabled" (nothing is written); None as for the project.
        options: more arguments of `wandb.init`, e.g. entity or tags.

    Raises:
        InputError: see `check_wandb`.
    """
    project, mode = project or wandb_defaults()["project"], mode or wandb_defaults()["mode"]
    check_wandb({"project": project, "mode": mode, **options})
    run_dir = Path(run_dir)
    # mode goes to wandb.init itself: Lightning's offline=True would switch the whole process to offline
    settings = run_settings(run_dir.absolute().parent.parent, stage, run_dir.name, run_dir, project, mode)
    settings["settings"] |= options.pop("settings", {})
    return Mirror(save_dir=settings.pop("dir"), **settings, **options)


def run_id(experiment: str, stage: str, fold: str) -> str:
    """One id a run, the same at any time: at most 64 letters, digits, `_`, `.` and `-`, the last eight a hash."""
    full = f"{experiment}/{stage}/{fold}".strip("/")
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", full.replace("/", "-"))
    return f"{readable[: MAX_ID - 9]}-{digest}"


def run_settings(experiment_dir: Path, stage: str, fold: str, place: Path, project: str, mode: str) -> dict[str, Any]:
    """Arguments of `wandb.init` that say which run it is; `place` is its directory, below which all is written."""
    stay_below(place)
    experiment, config = experiment_dir.name, place / CONFIG
    place.mkdir(parents=True, exist_ok=True)
    return {
        "project": project,
        "group": experiment if len(experiment) <= MAX_NAME else run_id(experiment, "", ""),
        "job_type": stage,
        "name": f"{stage}/{fold}" if fold else stage,
        "id": run_id(experiment, stage, fold),
        "dir": str(place),
        "mode": usable_mode(mode),
        "resume": "allow",
        "settings": patience(),
        "config": OmegaConf.to_container(read_run_config(place), resolve=True) if config.exists() else None,
    }


@contextmanager
def finished_run() -> Iterator[None]:
    """End the W&B run that the block began, however it ends.

    A sweep runs several jobs in one process, and wandb writes everything into the first run that is still open.
    """
    failed = True
    with within_run():
        try:
            yield
            failed = False
        finally:
            wandb = sys.modules.get("wandb")
            if wandb is not None and getattr(wandb, "run", None) is not None:
                with spared():
                    wandb.finish(exit_code=int(failed))


def wandb_table(rows: Any) -> Any:
    """A data frame as a W&B table, nan as an empty cell."""
    data = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    return require_wandb().Table(columns=[str(c) for c in rows.columns], data=data)


def wandb_figure(figure: Any) -> Any:
    """A matplotlib figure as a W&B image."""
    import PIL.Image

    from whqa.report.style import png

    return require_wandb().Image(PIL.Image.open(io.BytesIO(png(figure))))

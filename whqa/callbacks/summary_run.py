"""The W&B run of job_type "summary", which holds the numbers of the whole cross-validation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from whqa.callbacks.wandb_run import finished_run, require_wandb, run_settings, wandb_figure, wandb_table


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
    from whqa.results.summary_entry import shown_views
    from whqa.results.tables import read_run, view

    wandb = require_wandb()
    experiment_dir = Path(experiment_dir).resolve()
    settings = run_settings(experiment_dir, "summary", "", experiment_dir, project, mode)
    settings["config"] = {key: summary[key] for key in ("cohort", "plan", "environment")}
    tables = read_run(experiment_dir)
    with finished_run():
        run = wandb.init(**settings, **{"settings": {"quiet": True}} | options)
        media = {
            "cases": wandb_table(tables.judged),
            "page": wandb.Html(str(experiment_dir / "summary.html"), inject=False),
        }
        for masks in shown_views(summary["methods"]):
            rows = view(tables.judged, masks)
            media[f"risk_coverage/{masks}"] = wandb_figure(risk_coverage_figure(rows, tables.structures))
            for region in ("volume", "heart"):
                media[f"qi_accuracy/{masks}_{region}"] = wandb_figure(scatter_figure(rows, region))
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

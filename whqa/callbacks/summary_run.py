"""W&B runs that hold the numbers of many: of job_type "summary" of a whole cross-validation, of "sweep" of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from whqa.callbacks.mirror import begin, spared
from whqa.callbacks.wandb_run import finished_run, run_settings, wandb_figure, wandb_table
from whqa.config.run_config import CONFIG, read_run_config
from whqa.config.wandb_settings import OF_LIGHTNING, require_wandb, wandb_defaults, wandb_options
from whqa.contract.sweep_json import Sweep
from whqa.report.sweep_page import sweep_rows

# Of a run's configuration: which run it is and where, not what the experiment is.
_OF_ONE_RUN = ("stage", "fold", "fit", "runs_dir", "cache_dir", "data_dir", "logger")


def log_summary(
    experiment_dir: Path,
    summary: Mapping[str, Any],
    project: str | None = None,
    mode: str | None = None,
    **options: Any,
) -> None:
    """The run of job_type "summary": every number of summary.json with its interval, all cases, the figures, the page.

    Its configuration is that of the experiment, so that the dashboard compares experiments by their settings.

    Args:
        experiment_dir: runs/<experiment>, summarised.
        summary: content of summary.json.
        project, mode: see `wandb_logger`.
        options: more arguments of `wandb.init`; those of Lightning's logger are left out.

    Raises:
        InputError: wandb is not installed.
    """
    experiment_dir = Path(experiment_dir).absolute()
    config = experiment_config(experiment_dir) | {key: summary[key] for key in ("cohort", "plan", "environment")}
    with _begun(experiment_dir, "summary", config, project, mode, options) as run:
        run.log(_media(experiment_dir, summary))
        run.summary.update(headline_numbers(summary))


def log_sweep(
    sweep_dir: Path, found: Sweep, project: str | None = None, mode: str | None = None, **options: Any
) -> None:
    """The run of job_type "sweep": a table with a row a point, the page, and the numbers of the best point.

    Args:
        sweep_dir: runs/<sweep>.
        found: content of sweep.json.
        project, mode, options: see `log_summary`.

    Raises:
        InputError: wandb is not installed.
    """
    sweep_dir = Path(sweep_dir).absolute()
    config = {key: found[key] for key in ("settings", "first", "chosen_by", "why", "environment")}
    with _begun(sweep_dir, "sweep", config, project, mode, options) as run:
        rows = sweep_rows(found)
        table = require_wandb().Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        run.log({"points": table, "page": require_wandb().Html(str(sweep_dir / "sweep.html"), inject=False)})
        best = found["points"][0]
        figures = {key: best[key] for key in ("validation", "test") if best[key]}
        run.summary.update({"best": best["name"], **dict(_flat(figures))} if found["chosen_by"] else {})


@contextmanager
def _begun(
    place: Path, job_type: str, config: dict[str, Any], project: str | None, mode: str | None, options: dict[str, Any]
) -> Iterator[Any]:
    wandb = require_wandb()
    project, mode = project or wandb_defaults()["project"], mode or wandb_defaults()["mode"]
    with finished_run():
        settings = run_settings(place, job_type, "", place, project, mode) | {"config": config}
        settings["settings"] |= {"quiet": True} | options.pop("settings", {})
        settings |= {key: value for key, value in options.items() if key not in OF_LIGHTNING}
        run = begin(lambda mode: wandb.init(**settings | {"mode": mode}), settings["mode"])
        with spared():
            yield run


def _media(experiment_dir: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    from whqa.report.figures import risk_coverage_figure, scatter_figure
    from whqa.results.summary_entry import shown_views
    from whqa.results.tables import read_run, view

    tables = read_run(experiment_dir, mixed="mixed" in summary)
    media = {
        "cases": wandb_table(tables.judged),
        "page": require_wandb().Html(str(experiment_dir / "summary.html"), inject=False),
    }
    for masks in shown_views(summary["methods"]):
        rows = view(tables.judged, masks)
        scores = {method: parts[masks]["failure"]["score"] for method, parts in summary["methods"].items()}
        media[f"risk_coverage/{masks}"] = wandb_figure(risk_coverage_figure(rows, tables.structures, scores))
        for region in ("volume", "heart"):
            media[f"qi_accuracy/{masks}_{region}"] = wandb_figure(scatter_figure(rows, region))
    return media


def experiment_config(experiment_dir: Path) -> dict[str, Any]:
    """The settings that all runs of an experiment share, as its first error-map network has them; {} without any."""
    for config in _configs(experiment_dir):
        found: Any = OmegaConf.to_container(config)
        return {str(key): value for key, value in found.items() if key not in _OF_ONE_RUN}
    return {}


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


def options_of(experiment_dir: Path) -> dict[str, Any]:
    """Arguments of `log_summary` as the experiment's own runs had them; the mode is WANDB_MODE, else offline."""
    options: dict[str, Any] = {"project": wandb_defaults()["project"]}
    for config in _configs(experiment_dir):
        options |= wandb_options(config)
    return options | {"mode": wandb_defaults()["mode"]}


def _configs(experiment_dir: Path) -> Iterator[DictConfig]:
    for path in sorted(experiment_dir.glob(f"errormap/*/{CONFIG}")):
        yield read_run_config(path.parent)

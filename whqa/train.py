"""One stage of one fold through Hydra: `whqa train experiment=demo stage=segmenter fold=0`.

Reading guide: `main` checks the words, `whqa.stages.from_config` turns the configuration into objects, and
`whqa.stages.running` does the work with them. A run directory is finished when it holds COMPLETED; without it, the same
command resumes from the last checkpoint.

    python -m whqa.train experiment=demo stage=segmenter fold=0
    python -m whqa.train experiment=demo stage=errormap fold=0           # after the segmenters of its mask plan
    python -m whqa.train -m experiment=demo stage=segmenter fold=0,1,2 segmenter.learning_rate=1e-3,2e-3
    python -m whqa.train experiment=demo stage=errormap fold=0 fit=false # test again from the checkpoint
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from whqa.config.instantiate import config_dir
from whqa.config.run_config import refuse_sweep
from whqa.config.run_name import run_name
from whqa.config.settings_help import train_help
from whqa.config.words import check_overrides
from whqa.errors import STOPPED, InputError, plain_messages
from whqa.files import system_trouble
from whqa.masks.run_state import failure_noted
from whqa.process import collect_seldom, follow_parent, is_first_rank, locked, sigterm_interrupts, sleep_while_waiting
from whqa.stages.fold_word import refuse_no_such_run


def main() -> None:
    """Entry point of `whqa train` and `python -m whqa.train`."""
    plain_messages()
    sleep_while_waiting()
    collect_seldom()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(train_help())
        return
    try:
        with sigterm_interrupts():
            check_overrides(sys.argv[1:])
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            follow_parent()
            _job()
        return
    except InputError as error:
        line, code = str(error), 2
    except KeyboardInterrupt:
        line, code = STOPPED, 130
    except OSError as error:
        line, code = system_trouble(error, "runs_dir") or "", 2
        if not line:
            raise
    except SystemExit as end:
        # what Lightning makes of an interrupt
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        line, code = STOPPED, 130
    if is_first_rank():
        print(f"whqa train: {line}", file=sys.stderr)
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    context = HydraConfig.get()
    try:
        refuse_doubled_sweep(cfg, context)
        # before its directory is made
        refuse_no_such_run(cfg)
        run_dir = run_dir_of(cfg, list(context.overrides.task))
        refuse_sweep(run_dir.parents[1])
        with locked(run_dir), failure_noted(run_dir):
            from whqa.stages.from_config import (
                run_stage,
            )  # seconds of torch and Lightning, which a wrong word never costs

            return run_stage(cfg, run_dir)
    except InputError as error:
        if is_first_rank():
            print(f"whqa train: {error}", file=sys.stderr)
        if context.mode == RunMode.MULTIRUN:
            # for the other runs of a sweep go on, and a sweeper counts this one as failed
            raise InputError("not every run of the sweep is done; why stands above") from None
        sys.exit(2)


def run_dir_of(cfg: DictConfig, overrides: list[str]) -> Path:
    """runs/<experiment>/<stage>/<fold>, the same directory that Hydra makes."""
    return Path(cfg.runs_dir) / run_name(cfg.name, overrides) / str(cfg.stage) / cfg.fold


def refuse_doubled_sweep(cfg: DictConfig, context: Mapping[str, Any]) -> None:
    """Lightning starts the further processes of a run with the words of the first, which in a sweep start all its runs.

    Args:
        cfg: of one job.
        context: Hydra's own configuration.

    Raises:
        InputError: a sweep whose runs take several processes that nobody else starts.
    """
    devices = cfg.trainer.get("devices", 1)
    several = len(devices) > 1 if isinstance(devices, ListConfig) else str(devices) != "1"
    strategy = str(cfg.trainer.get("strategy") or ("ddp" if several else "auto"))  # as Lightning chooses
    launched = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"))
    if context["mode"] == RunMode.MULTIRUN and strategy.startswith("ddp") and "spawn" not in strategy and not launched:
        raise InputError(
            "a sweep (-m) with the strategy ddp would start the whole sweep once a process; use "
            "`torchrun --nproc-per-node=N -m whqa.train -m ...`, or `whqa cv`, which starts one run at a time"
        )


if __name__ == "__main__":
    main()

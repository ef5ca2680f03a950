"""`whqa train | cv | sweep | status | summarize | compare | evidence | assess | export | data ... | info`: wrappers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whqa import __version__
from whqa.cli.assess import add_assess_command
from whqa.cli.data import add_data_commands
from whqa.cli.export import add_export_command
from whqa.cli.status import add_status_command
from whqa.errors import STOPPED, InputError, plain_messages
from whqa.files import system_trouble
from whqa.process import collect_seldom, sigterm_interrupts, sleep_while_waiting

if TYPE_CHECKING:
    from whqa.stages.slurm import Slurm

# Whose runs go on from their checkpoints.
_RESUMED = ("cv", "sweep")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with 0, 1 (a run failed) or 2 (bad arguments or input)."""
    plain_messages()
    sleep_while_waiting()
    collect_seldom()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        _train(arguments[1:])
        return
    options, extra = command_parser().parse_known_args(arguments)
    try:
        overrides = settings_of(options, extra)
        with sigterm_interrupts():
            code = options.run(options, overrides)
        sys.stdout.flush()
    except InputError as error:
        print(f"whqa {options.command}: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"whqa {options.command}: {STOPPED if options.command in _RESUMED else 'stopped'}", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # whoever reads the output (head) has seen enough; the interpreter's last flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        line = system_trouble(error, getattr(options, "out", None) or "output")
        if line is None:
            raise
        print(f"whqa {options.command}: {line}", file=sys.stderr)
        code = 2
    sys.exit(code)


class _Parser(argparse.ArgumentParser):
    """One whose help goes on with lines that are made only when somebody asks for them."""

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        return super().format_help() + (f"\n{self.more()}\n" if self.more else "")


def _settings() -> str:
    from whqa.config.settings_help import settings_help

    return settings_help()


def command_parser() -> argparse.ArgumentParser:
    """Reads the words of all commands but `train`, which Hydra reads."""
    parser = _Parser(prog="whqa", description="Whole-heart segmentation quality assessment.")
    parser.add_argument("--version", action="version", version=f"whqa {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="one stage of one fold through Hydra: whqa train experiment=demo fold=0")

    _add_running_commands(commands)
    add_status_command(commands.add_parser("status", help="every run of an experiment: done, running, failed, waiting"))

    summarize = commands.add_parser("summarize", help="folds -> cases.csv, summary.json, summary.html")
    summarize.add_argument("directory", type=Path, help="runs/<experiment>")
    summarize.add_argument(
        "--reports", type=int, default=0, metavar="N", help="write reports/<case>/ of the N worst judged masks as well"
    )
    summarize.add_argument(
        "--mixed", action="store_true", help="also put folds of different settings or data together, and say so"
    )
    summarize.add_argument("--wandb", action="store_true", help="log it to W&B as well (offline, or WANDB_MODE)")
    summarize.epilog = "Example: whqa summarize runs/demo --reports 6"
    summarize.set_defaults(run=_summarize)

    comparison = commands.add_parser(
        "compare", help="finished experiments on the same folds: means, paired differences"
    )
    comparison.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="runs/<experiment>; the first leads"
    )
    comparison.add_argument("--json", action="store_true", help="for machines")
    comparison.epilog = "Example: whqa compare runs/demo runs/demo,errormap=mask_withheld"
    comparison.set_defaults(run=_compare)

    evidence = commands.add_parser("evidence", help="a finished experiment or sweep as Markdown tables and PNG figures")
    evidence.add_argument("directory", type=Path, help="runs/<experiment> or runs/<sweep>; gets a folder evidence/")
    evidence.epilog = "Example: whqa evidence runs/demo"
    evidence.set_defaults(run=_evidence)

    add_assess_command(commands.add_parser("assess", help="a scan and its mask: what is wrong, how sure, what to do"))
    add_export_command(commands.add_parser("export", help="a finished run as one file, for assess and info --model"))

    info = commands.add_parser("info", help="versions, device, experiments, networks, baselines, label schemes")
    info.add_argument("--model", type=Path, metavar="FILE", help="of `whqa export`: what it can judge, and how well")
    info.add_argument("--json", action="store_true", help="for machines")
    info.epilog = "Example: whqa info --json"
    info.set_defaults(run=_info)

    add_data_commands(commands.add_parser("data", help="check, prepare or preview scans; write the built-in phantoms"))
    return parser


def _add_running_commands(commands: Any) -> None:
    cv = commands.add_parser("cv", help="full cross-validation: whqa cv experiment=demo --jobs 2")
    _add_running_options(cv)
    cv.epilog = (
        "KEY=VALUE settings follow. The same command resumes where it stopped and ends with the summary. "
        "Example: whqa cv experiment=demo seed=1 --jobs 2"
    )
    cv.more = _settings
    cv.set_defaults(run=_cv, takes_settings=True)

    sweep = commands.add_parser("sweep", help="every combination of several values as a cross-validation, one table")
    _add_running_options(sweep)
    sweep.epilog = (
        "KEY=VALUE settings follow, some with several values: KEY=A,B, KEY=range(1,4), or sweep=FILE of conf/sweep. "
        "The same command resumes where it stopped. "
        "Example: whqa sweep experiment=demo errormap.head=binary,label --jobs 2"
    )
    sweep.more = _settings
    sweep.set_defaults(run=_sweep, takes_settings=True)


def _add_running_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs side by side (default: one a CPU, at most 4, or one more where no CPU is idle then; with "
        "trainer=gpu one a GPU)",
    )
    parser.add_argument(
        "--launcher",
        choices=("local", "slurm"),
        default="local",
        help="where runs are trained: here, or as jobs of Slurm, which hydra.launcher.partition=..., "
        ".account=..., .gpus_per_node=..., .timeout_min=... and others of conf/hydra/launcher/slurm.yaml describe",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="groups of your own, such as DIR/experiment/mine.yaml")


def settings_of(options: argparse.Namespace, extra: list[str]) -> list[str]:
    """What the parser left over, where a command takes settings.

    Raises:
        InputError: a word that is no setting, or is not taken.
    """
    command = " ".join([options.command, *filter(None, [getattr(options, "what", None)])])
    if extra and not getattr(options, "takes_settings", False):
        raise InputError(f"unknown argument {extra[0]!r}; see whqa {command} --help")
    # ~key takes a setting out
    wrong = [e for e in extra if e.startswith("-") or ("=" not in e and not e.startswith("~"))]
    if wrong:
        raise InputError(f"unknown argument {wrong[0]!r}; settings are key=value, see whqa {command} --help")
    return extra


def _train(arguments: list[str]) -> None:
    import whqa.train

    # Lightning starts the other processes of a DDP run as `python -m <module of __main__> <arguments>`.
    sys.modules["__main__"].__spec__ = whqa.train.__spec__
    sys.argv = [str(Path(whqa.train.__file__).resolve()), *arguments]
    whqa.train.main()


def _cv(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.cv import cross_validate

    words, slurm = _to_run(options, overrides)
    return cross_validate(words, options.jobs, slurm=slurm)


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.sweep.sweep_plan import plan_sweep

    words, slurm = _to_run(options, overrides)
    plan = plan_sweep(words)
    # seconds of torch, which a wrong word never costs
    from whqa.sweep.whole_sweep import cross_validate_all

    return cross_validate_all(plan, options.jobs, slurm=slurm)


def _to_run(options: argparse.Namespace, overrides: list[str]) -> tuple[list[str], Slurm | None]:
    from whqa.config.launcher import slurm_settings, without_launcher
    from whqa.config.words import search_path
    from whqa.stages.slurm import Slurm

    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: must be at least 1")
    place = [] if options.config_dir is None else [search_path(options.config_dir)]
    words = [*place, *without_launcher(overrides)]
    if options.launcher == "slurm":
        return words, Slurm(slurm_settings([*place, *overrides]))
    asked = [word for word in overrides if word not in words]
    if asked:
        raise InputError(f"{asked[0]}: says what jobs ask a cluster for; add --launcher slurm, or leave it out")
    return words, None


def _summarize(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.reports < 0:
        raise InputError(f"--reports {options.reports}: must be at least 0")
    from whqa.results.run_folds import folds_to_summarize

    folds_to_summarize(options.directory.resolve())
    from whqa.summarize import summarize_beside

    if options.wandb:
        # Lightning's loggers come along, two seconds of import
        from whqa.callbacks.summary_run import log_summary, options_of
        from whqa.config.wandb_settings import check_wandb

        check_wandb(options_of(options.directory))
    if options.reports:
        from whqa.assessment.worst_reports import write_worst_reports

        for path in write_worst_reports(options.directory, options.reports, options.mixed):
            print(path / "report.html", flush=True)
    summary = summarize_beside(options.directory, options.mixed)
    if options.wandb:
        log_summary(options.directory, summary, **options_of(options.directory))
    return 0


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.results.run_folds import folds_to_summarize

    for path in options.directories:
        folds_to_summarize(path.resolve())
    from rich.console import Console

    from whqa.compare import compare, print_comparison

    found = compare(options.directories)
    print(json.dumps(found, indent=2)) if options.json else print_comparison(found, Console())
    return 0


def _evidence(options: argparse.Namespace, overrides: list[str]) -> int:
    if not (options.directory / "sweep.json").is_file():
        from whqa.results.run_folds import folds_to_summarize

        folds_to_summarize(options.directory.resolve())
    from whqa.sweep.evidence_folder import write_evidence

    print(write_evidence(options.directory))
    return 0


def _info(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.model is not None:
        from whqa.assessment.model_file import read_metadata
        from whqa.report.model_card import model_lines

        metadata = read_metadata(options.model.expanduser())
        print(json.dumps(metadata, indent=2) if options.json else model_lines(metadata))
        return 0
    from whqa.cli.info import info, info_text

    found = info()
    print(json.dumps(found, indent=2) if options.json else info_text(found))
    return 0

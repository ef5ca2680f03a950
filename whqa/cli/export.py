"""`whqa export`: a thin wrapper around `whqa.assessment.exporting` and `whqa.assessment.onnx_files`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from whqa.cli.cache_text import readable
from whqa.errors import InputError


def add_export_command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; sets `run(options, overrides) -> exit code`."""
    parser.add_argument("directory", metavar="RUN", type=Path, help="a finished run, e.g. runs/demo")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="the model file to write")
    parser.add_argument(
        "--with-cases", action="store_true", help="keep the names of cases and patients (default: numbers)"
    )
    parser.add_argument("--license", type=Path, metavar="TEXT", help="a text file: the licence of the model")
    parser.add_argument(
        "--to-onnx",
        action="store_true",
        help="write the networks alone, as ONNX files into a new folder -o; whqa itself does not read them",
    )
    parser.epilog = (
        "the file holds weights (safetensors, no pickles), settings, the tables of unseen cases, a model card and "
        "digests; `whqa assess` and `whqa info` take it as --model. Example: whqa export runs/demo -o demo.whqa"
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.results.run_folds import folds_of_model

    if options.out.endswith(os.sep) and not options.to_onnx:
        raise InputError(f"-o {options.out}: is a folder; name the model file in it, e.g. -o {options.out}model.whqa")
    options.out = Path(options.out)
    n_folds = len(folds_of_model(options.directory)["folds"])
    # a wrong folder is met before torch is imported
    if options.to_onnx:
        return _to_onnx(options, n_folds)
    from whqa.assessment.exporting import export_run

    export_run(options.directory, options.out, options.with_cases, options.license)
    names = "names of cases and patients are in it" if options.with_cases else "names became numbers"
    print(f"{options.out}: {readable(options.out.stat().st_size)}; {names}")
    return 0


def _to_onnx(options: argparse.Namespace, n_folds: int) -> int:
    from whqa.assessment.model import load_run
    from whqa.assessment.onnx_files import require_onnx, write_onnx

    stated = [name for name in ("with_cases", "license") if getattr(options, name)]
    if stated:
        raise InputError(f"--{stated[0].replace('_', '-')}: says nothing of ONNX files; leave it or --to-onnx out")
    require_onnx()
    for path in write_onnx(load_run(options.directory, range(n_folds)), options.out):
        print(f"{path}: {readable(path.stat().st_size)}")
    return 0

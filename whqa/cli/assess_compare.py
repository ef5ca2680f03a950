"""`whqa assess --compare BEFORE AFTER`: a thin wrapper around `whqa.assessment.comparison`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from whqa.errors import InputError

# What a comparison takes; the rest is of an assessment.
_TAKEN = {"command", "run", "image", "mask", "compare", "json", "out", "minutes"}


def run_comparison(options: argparse.Namespace, usual: Mapping[str, Any]) -> int:
    """Print what got better, write it where -o is given; `usual` is what options are that nobody gave."""
    from whqa.results.correction_time import correction_time

    if options.image is not None:
        raise InputError(f"{options.image}: --compare takes two folders of `whqa assess` and no IMAGE; leave it out")
    _refuse_others(options, usual)
    time = correction_time(options.minutes)
    from whqa.assessment.comparison import COMPARISON, COMPARISON_PAGE, compare_assessments

    before, after = options.compare
    found = compare_assessments(before, after, time)
    if options.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from whqa.report.comparison_page import comparison_table

        console = Console()
        console.print(comparison_table(found))
        for words, names in (("only before", found["only_before"]), ("only after", found["only_after"])):
            if names:
                console.print(f"{words}: {', '.join(names)}", markup=False, highlight=False)
    if options.out is not None:
        from whqa.assessment.output_folder import make_folder
        from whqa.files import write_json, write_text
        from whqa.report.comparison_page import render_comparison

        make_folder(options.out)
        write_json(options.out / COMPARISON, found)
        write_text(options.out / COMPARISON_PAGE, render_comparison(found))
        if not options.json:
            print(options.out / COMPARISON_PAGE)
    return 0


def _refuse_others(options: argparse.Namespace, usual: Mapping[str, Any]) -> None:
    """No option is ignored in silence."""
    names = {"report": "no-report"}
    for name, value in vars(options).items():
        if name not in _TAKEN and value != usual.get(name):
            option = "--" + names.get(name, name).replace("_", "-")
            raise InputError(f"{option}: --compare judges nothing anew and takes no such option; leave it out")

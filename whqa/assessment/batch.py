"""Many masks, one after the other: a folder a case, a table and a page that lists the worst first.

    <out>/<case>/...           files of the contract (`whqa.assessment.writing`), then request.json: what was asked for
    <out>/assessments.csv      one row a case, in the order of the input
    <out>/index.html           the same for people

A case whose request.json asks for the same is kept, so that a stopped batch goes on where it stopped. A case that
fails leaves no files but a line in the table and on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from whqa.assessment.batch_case import AssessOptions, BatchCase
from whqa.assessment.batch_table import write_table
from whqa.assessment.inputs import InputFile
from whqa.assessment.kept_cases import kept_quality, request_record, run_record
from whqa.assessment.model import TrainedRun
from whqa.assessment.output_folder import (
    INDEX,
    REQUEST,
    TABLE,
    clear,
    folder_names,
    keep_traceback,
    make_folder,
    refuse_overwriting,
)
from whqa.assessment.pairs import Pair, Pairs
from whqa.assessment.pipeline import assess
from whqa.assessment.writing import write_assessment
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError
from whqa.files import as_named, write_json, write_text

Judge = Callable[..., Assessment]


def assess_many(
    pairs: Pairs, model: TrainedRun, out: Path, options: AssessOptions | None = None, judge: Judge = assess
) -> list[BatchCase]:
    """Judge every pair, then write the table and the page; failures are told on standard error as they come.

    Args:
        pairs: see `whqa.assessment.pairs`.
        model: a loaded run.
        out: output folder; nothing is written elsewhere.
        options: how.
        judge: makes an assessment of one pair.

    Raises:
        InputError: the output folder cannot be made, or is a file.
    """
    options = options or AssessOptions()
    make_folder(out)
    for name in (TABLE, INDEX):
        if (out / name).is_dir():
            raise InputError(f"{out / name}: is a folder, where a file is to be written; choose another -o")
    run = run_record(model)
    cases = [_failed(BatchCase(name), line) for name, line in pairs.problems]
    folders = folder_names(pair.name for pair in pairs.found)
    console = Console(file=sys.stderr)
    work = track(
        list(zip(pairs.found, folders, strict=True)),
        description="assessing",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for pair, folder in work:
        settings = replace(options, modality=pair.modality or options.modality)
        cases.append(_judged_or_kept(pair, out / folder, model, settings, judge, run))
    write_table(out / TABLE, cases, model.scheme.keys)
    from whqa.report.batch_page import render_index  # jinja2

    write_text(out / INDEX, render_index(cases, as_named(model.directory).name))
    return cases


def _judged_or_kept(
    pair: Pair, folder: Path, model: TrainedRun, options: AssessOptions, judge: Judge, run: Mapping[str, Any]
) -> BatchCase:
    case = BatchCase(pair.name, pair, folder.name, report=options.report)
    image, mask = InputFile(pair.image), InputFile(pair.mask)
    try:
        if folder.parent.resolve() not in folder.resolve().parents:
            raise InputError(f"{folder}: leads out of {folder.parent}; remove this link")
        refuse_overwriting((folder / name for name in (*options.outputs, REQUEST)), (pair.image, pair.mask))
        request = request_record(pair.name, image, mask, options, run)
        kept = kept_quality(folder, request)
        if kept is not None:
            return replace(case, quality=kept, kept=True)
        clear(folder, options.outputs)
        assessment = judge(
            image,
            mask,
            model,
            modality=options.modality,
            label_map=options.label_map,
            confidence=options.confidence,
            resample=options.resample,
            orientation=options.orientation,
            name=pair.name,
        )
        preview = folder / options.preview if options.preview else None
        write_assessment(assessment, folder, report=options.report, preview=preview)
        write_json(folder / REQUEST, request)
        return replace(case, quality=assessment.quality)
    except InputError as error:
        return _failed(case, str(error))
    except OSError as error:
        place = error.filename or folder
        return _failed(case, f"{place}: {error.strerror or error}; free some space or choose another -o")
    except Exception as error:
        # a fault of whqa or of the machine: the others still have a right to their verdict
        keep_traceback(folder)
        return _failed(case, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _failed(case: BatchCase, line: str) -> BatchCase:
    text = f"whqa assess: {case.name}: {line}"
    # names come from files, and a terminal obeys what is not printable
    print("".join(c if c.isprintable() else "?" for c in text), file=sys.stderr)
    return replace(case, error=line, report=False)

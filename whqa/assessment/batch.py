"""Many masks, several at a time: a folder a case, a table and a page that lists the worst first.

    <out>/<case>/...           files of the contract (`whqa.assessment.writing`), then request.json: what was asked for
    <out>/assessments.csv      one row a case, in the order of the input
    <out>/worklist.csv         the same in the order in which the cases need a person, with what to look at first
    <out>/index.html           the worklist for people

A case whose request.json asks for the same is kept, so that a stopped batch goes on where it stopped. A case that
fails leaves no files but a line in the table and on standard error; one that has lost its image or mask is a failure in
the table, and what an earlier call wrote of it stays.

Each case is judged with one thread, so that its numbers do not depend on how many are judged beside it; a process that
has done its case goes on with the next one, which is read while others compute.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

from whqa.assessment.batch_case import AssessOptions, BatchCase
from whqa.assessment.batch_table import write_table, write_worklist
from whqa.assessment.input_places import InputFile
from whqa.assessment.kept_cases import kept_quality, request_record, run_record, written_digests
from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.output_folder import (
    INDEX,
    REQUEST,
    TABLE,
    WORKLIST,
    WRITTEN,
    clear,
    folder_names,
    keep_traceback,
    make_folder,
    refuse_losing,
)
from whqa.assessment.pairs import Pair, Pairs
from whqa.assessment.pipeline import assess
from whqa.assessment.writing import write_assessment
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError, plain_messages
from whqa.files import printable, write_json, write_text
from whqa.parallel.many import in_processes
from whqa.process import cpus, memory_gib
from whqa.results.correction_time import CorrectionTime

Judge = Callable[..., Assessment]
# Of one case at work: a scan of 160^3 takes 0.8 GB, one of 512 x 512 x 300 some more than this.
_GIB_AT_WORK = 2.0


class _Asked(NamedTuple):
    """One case: its files, its folder, how it is to be judged."""

    pair: Pair
    folder: Path
    options: AssessOptions


def usual_jobs() -> int:
    """As many cases at a time as there are CPUs, and memory for; one where a GPU computes."""
    if torch.cuda.is_available():
        return 1
    return max(1, int(min(cpus(), memory_gib() // _GIB_AT_WORK)))


def assess_many(
    pairs: Pairs,
    model: TrainedRun,
    out: Path,
    options: AssessOptions | None = None,
    judge: Judge = assess,
    jobs: int = 1,
    time: CorrectionTime | None = None,
) -> list[BatchCase]:
    """Judge every pair, then write the tables and the page; failures are told on standard error as they come.

    Args:
        pairs: see `whqa.assessment.pairs`.
        model: a loaded run.
        out: output folder; nothing is written elsewhere.
        options: how.
        judge: makes an assessment of one pair; with several jobs a module's function.
        jobs: cases at a time, each in a process of its own; the results are the same for any number.
        time: that corrections take, for the worklist.

    Raises:
        InputError: the output folder cannot be made, or is a file; `jobs` below 1.
        KeyboardInterrupt: after the processes are stopped; what was done is kept.
    """
    options, time = options or AssessOptions(), time or CorrectionTime()
    make_folder(out)
    for name in (TABLE, WORKLIST, INDEX):
        if (out / name).is_dir():
            raise InputError(f"{out / name}: is a folder, where a file is to be written; choose another -o")
    cases = [_failed(BatchCase(name), line) for name, line in pairs.problems]
    folders = folder_names(pair.name for pair in pairs.found)
    asked = [
        _Asked(pair, out / folder, replace(options, modality=pair.modality or options.modality))
        for pair, folder in zip(pairs.found, folders, strict=True)
    ]
    alone = min(jobs, len(asked)) <= 1
    loaded = (lambda: model) if alone else partial(_loaded, model.path, model.folds)
    work = partial(_case, loaded=loaded, judge=judge, run=run_record(model))
    for one, outcome in zip(asked, in_processes(work, asked, jobs, "assessing"), strict=True):
        cases.append(_failed(_empty(one), str(outcome)) if isinstance(outcome, Exception) else outcome)
    write_table(out / TABLE, cases, model.scheme.keys)
    write_worklist(out / WORKLIST, cases, time)
    from whqa.report.batch_page import render_index  # jinja2

    write_text(out / INDEX, render_index(cases, model.name, time))
    return cases


def _is_within(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


@cache
def _loaded(path: Path, folds: tuple[int, ...]) -> TrainedRun:
    """The run in this process; what is already done needs none."""
    return load_run(path, folds)


def _empty(asked: _Asked) -> BatchCase:
    return BatchCase(asked.pair.name, asked.pair, asked.folder.name, report=asked.options.report)


def _case(asked: _Asked, loaded: Callable[[], TrainedRun], judge: Judge, run: Mapping[str, Any]) -> BatchCase:
    if multiprocessing.parent_process() is None:
        with _one_thread():
            return _judged_or_kept(asked, loaded, judge, run)
    plain_messages()
    with _one_thread(), _stopped_tidily():
        return _judged_or_kept(asked, loaded, judge, run)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stopped_tidily() -> Iterator[None]:
    """A child that is stopped removes the file that it is writing, then ends in silence."""

    def stop(signum: int, frame: FrameType | None) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _judged_or_kept(asked: _Asked, loaded: Callable[[], TrainedRun], judge: Judge, run: Mapping[str, Any]) -> BatchCase:
    pair, folder, options = asked
    case = _empty(asked)
    image, mask = InputFile(pair.image), InputFile(pair.mask)
    options = replace(options, dicom=image.is_dicom)
    softmax = None if pair.probabilities is None else InputFile(pair.probabilities)
    try:
        if not _is_within(folder, folder.parent):
            raise InputError(f"{folder}: leads out of {folder.parent}; remove this link")
        refuse_losing(folder, options.outputs, (pair.image, pair.mask, pair.probabilities))
        try:
            request = request_record(pair.name, image, mask, softmax, options, run)
        except InputError:
            clear(folder, options.outputs)
            raise
        kept = kept_quality(folder, request)
        if kept is not None:
            return replace(case, quality=kept, kept=True)
        clear(folder, options.outputs)
        assessment = judge(
            image,
            mask,
            loaded(),
            **options.of_one_case,
            **({} if softmax is None else {"probabilities": softmax}),
            name=pair.name,
        )
        preview = folder / options.preview if options.preview else None
        write_assessment(assessment, folder, report=options.report, preview=preview)
        write_json(folder / REQUEST, {**request, WRITTEN: written_digests(folder, options.outputs)})
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
    print(printable(text), file=sys.stderr, flush=True)
    return replace(case, error=line, report=False)

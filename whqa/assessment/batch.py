"""Many masks, one after the other: a folder a case, a table and a page that lists the worst first.

    <out>/<case>/...           files of the contract (`whqa.assessment.pipeline`), then request.json: what was asked for
    <out>/assessments.csv      one row a case, in the order of the input
    <out>/index.html           the same for people

A case whose request.json asks for the same is kept, so that a stopped batch goes on where it stopped. A case that
fails leaves no files but a line in the table and on standard error.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from whqa import __version__
from whqa.assessment.model import TrainedRun
from whqa.assessment.pairs import INDEX, TABLE, Pair, Pairs, folder_names
from whqa.assessment.pipeline import CORRECTED, ERROR_MAP, PROBABILITY, QUALITY, REPORT, assess, write_assessment
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError
from whqa.files import read_json, write_json, write_rows, write_text
from whqa.results.familiarity import FEATURES_FILE
from whqa.structures import LabelScheme

REQUEST = "request.json"
TRACEBACK = "error.txt"
# the only sign in a folder of a failed case that it is ours
_OWN_TRACEBACK = "whqa assess: what went wrong; the next call replaces or removes this file\n"
_REQUEST_KEYS = {"image", "mask", "name", "modality", "label_map", "confidence", "outputs", "run", "whqa"}
_QUALITY_KEYS = {"case", "verdict", "versions"}
Judge = Callable[..., Assessment]


@dataclass(frozen=True)
class Options:
    """How all cases of a batch are judged.

    Attributes:
        modality: "ct" or "mr" of cases that state none; None is the run's.
        label_map: of the masks; None is the run's scheme.
        confidence: of the intervals.
        report: whether report.html is written.
        preview: name of a picture in each case's folder, or None.
    """

    modality: str | None = None
    label_map: LabelScheme | None = None
    confidence: float = 0.9
    report: bool = True
    preview: str | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files that a case gets, but for request.json."""
        names = [PROBABILITY, ERROR_MAP, CORRECTED, QUALITY]
        return (*names, *([REPORT] if self.report else []), *([self.preview] if self.preview else []))


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        name: of the case.
        pair: its files; None where it has no pair of them.
        folder: its folder's name in the output folder.
        quality: content of quality.json; None where it failed.
        kept: whether it was there already.
        error: why it failed, one line.
        report: whether its folder has a report.
    """

    name: str
    pair: Pair | None = None
    folder: str = ""
    quality: Mapping[str, Any] | None = field(default=None, repr=False)
    kept: bool = False
    error: str | None = None
    report: bool = False


def assess_many(
    pairs: Pairs, model: TrainedRun, out: Path, options: Options | None = None, judge: Judge = assess
) -> list[Outcome]:
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
    options = options or Options()
    make_folder(out)
    for name in (TABLE, INDEX):
        if (out / name).is_dir():
            raise InputError(f"{out / name}: is a folder, where a file is to be written; choose another -o")
    run = _fingerprint(model)
    outcomes = [_failed(name, None, "", line) for name, line in pairs.problems]
    folders = folder_names(pair.name for pair in pairs.found)
    console = Console(file=sys.stderr)
    work = track(
        list(zip(pairs.found, folders, strict=True)),
        description="assessing",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    outcomes += [_one(pair, folder, model, out, options, judge, run) for pair, folder in work]
    _write_table(out / TABLE, outcomes, model)
    from whqa.report.batch_page import render_index  # jinja2

    write_text(out / INDEX, render_index(outcomes, model.directory.resolve().name))
    return outcomes


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """The input is never changed, also where it lies in the output folder.

    Raises:
        InputError: an output would take the place of an input.
    """
    given = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in given:
            raise InputError(f"{path}: is an input and would be overwritten; choose another -o")


def _one(
    pair: Pair, folder: str, model: TrainedRun, out: Path, options: Options, judge: Judge, run: Mapping[str, Any]
) -> Outcome:
    place = out / folder
    try:
        if out.resolve() not in place.resolve().parents:
            raise InputError(f"{place}: leads out of {out}; remove this link")
        refuse_overwriting((place / name for name in (*options.outputs, REQUEST)), (pair.image, pair.mask))
        asked = _request(pair, options, run)
        known = _finished(place, asked, options)
        if known is not None:
            return Outcome(pair.name, pair, folder, known, kept=True, report=options.report)
        clear(place, options)
        assessment = judge(
            pair.image,
            pair.mask,
            model,
            modality=pair.modality or options.modality,
            label_map=options.label_map,
            confidence=options.confidence,
            name=pair.name,
        )
        preview = place / options.preview if options.preview else None
        write_assessment(assessment, place, report=options.report, preview=preview)
        write_json(place / REQUEST, asked)
        return Outcome(pair.name, pair, folder, assessment.quality, report=options.report)
    except InputError as error:
        return _failed(pair.name, pair, folder, str(error))
    except Exception as error:
        # a fault of whqa or of the machine: the others still have a right to their verdict
        _keep_traceback(place)
        return _failed(pair.name, pair, folder, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _failed(name: str, pair: Pair | None, folder: str, line: str) -> Outcome:
    text = f"whqa assess: {name}: {line}"
    # names come from files, and a terminal obeys what is not printable
    print("".join(c if c.isprintable() else "?" for c in text), file=sys.stderr)
    return Outcome(name, pair, folder, error=line)


def make_folder(out: Path) -> None:
    """Make the output folder, and try to write there: minutes of work are lost where that fails only at the end.

    Raises:
        InputError: it cannot be made or written to, or is a file.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder ({error.strerror}); choose another -o") from None
    try:
        with tempfile.TemporaryFile(dir=out):
            return
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another -o") from None


def _request(pair: Pair, options: Options, run: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides the content of a case's folder."""
    scheme = options.label_map
    return {
        "image": _sha256(pair.image),
        "mask": _sha256(pair.mask),
        "name": pair.name,
        "modality": pair.modality or options.modality,
        "label_map": scheme
        and [scheme.name, dict(scheme.values), sorted(scheme.aliases.items()), sorted(scheme.ignored)],
        "confidence": options.confidence,
        "outputs": list(options.outputs),
        "run": dict(run),
        "whqa": __version__,
    }


def _fingerprint(model: TrainedRun) -> dict[str, Any]:
    """What the verdicts follow from: networks, their calibration, the run's own cases."""
    own = [path for path in sorted((model.directory / "errormap").glob(f"*/{FEATURES_FILE}")) if path.is_file()]
    return {
        "networks": {str(n.fold): n.sha256 for n in model.networks},
        "calibrations": {str(n.fold): n.module.calibration.to_dict() for n in model.networks},
        "cases": hashlib.sha256(model.cases.to_csv(index=False).encode()).hexdigest(),
        "features": [_sha256(path) for path in own],
    }


def _finished(place: Path, asked: Mapping[str, Any], options: Options) -> dict[str, Any] | None:
    """quality.json of a folder that holds exactly what is asked for, or None."""
    try:
        # through JSON and back, as the stored one went
        same = read_json(place / REQUEST) == json.loads(json.dumps(asked))
        if not same or not all((place / name).is_file() for name in options.outputs):
            return None
        quality = read_json(place / QUALITY)
    except InputError:
        return None
    return quality if _usable(quality) else None


def _usable(quality: Any) -> bool:
    """Whether the table and the page can be written of it: anybody may have edited the file since."""
    from whqa.report.batch_page import index_row  # jinja2

    try:
        outcome = Outcome(str(quality["case"]), quality=quality)
        _row(outcome)
        index_row(outcome)
        float(quality["confidence"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False
    return True


def clear(place: Path, options: Options) -> None:
    """Remove what an earlier call wrote here: a failure must not stand beside yesterday's verdict.

    Files that only bear the names of ours stay, as the folder may be the user's own.
    """
    request = _own_request(place)
    names = [REQUEST, *(name for name in request["outputs"] if name.lower().endswith(".png"))] if request else []
    if request or _own_quality(place):
        names += [*options.outputs, REPORT]
    if _own_traceback(place):
        names.append(TRACEBACK)
    for name in dict.fromkeys(names):
        (place / name).unlink(missing_ok=True)


def _own_request(place: Path) -> dict[str, Any] | None:
    """request.json if whqa wrote it, with nothing but plain names of files in this folder."""
    try:
        request = read_json(place / REQUEST)
    except InputError:
        return None
    if not isinstance(request, dict) or not request.keys() >= _REQUEST_KEYS:
        return None
    names = request["outputs"]
    return request if isinstance(names, list) and all(map(_is_plain, names)) else None


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and Path(name).name == name != ".."


def _own_quality(place: Path) -> bool:
    try:
        quality = read_json(place / QUALITY)
    except InputError:
        return False
    return isinstance(quality, dict) and quality.keys() >= _QUALITY_KEYS


def _own_traceback(place: Path) -> bool:
    try:
        with (place / TRACEBACK).open("rb") as stream:
            return stream.readline(200) == _OWN_TRACEBACK.encode()
    except OSError:
        return False


def _keep_traceback(place: Path) -> None:
    try:
        write_text(place / TRACEBACK, _OWN_TRACEBACK + traceback.format_exc())
    except OSError:
        # the disk may be what failed
        return


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _write_table(path: Path, outcomes: Iterable[Outcome], model: TrainedRun) -> None:
    columns = [
        *("name", "image", "mask", "modality", "folder", "status", "decision", "score"),
        *(f"qi_{region}{end}" for region in ("volume", "heart") for end in ("", "_low", "_high")),
        *(f"dice_{s}_{end}" for s in model.scheme.keys for end in ("expected", "low", "high")),
        *(f"volume_ml_{s}{end}" for s in model.scheme.keys for end in ("", "_corrected")),
        *("corrected", "unfamiliar", "reasons", "error"),
    ]
    write_rows(path, columns, [_row(outcome) for outcome in outcomes])


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"name": outcome.name, "folder": outcome.folder, "error": outcome.error}
    if outcome.pair:
        # absolute, because the table of the input lies elsewhere
        row |= {"image": outcome.pair.image.absolute(), "mask": outcome.pair.mask.absolute()}
        row |= {"modality": outcome.pair.modality}
    if outcome.quality is None:
        return row | {"status": "failed"}
    quality = outcome.quality
    row |= {"status": "kept" if outcome.kept else "done", "decision": quality["verdict"]["decision"]}
    row |= {"score": quality["verdict"].get("score"), "corrected": int(quality["correction"]["applied"])}
    for region, values in quality["qi"].items():
        row |= {f"qi_{region}": values["value"]} | _ends(f"qi_{region}", values["interval"])
    for key, values in quality["structures"].items():
        row |= {f"dice_{key}_expected": values["dice_expected"]} | _ends(f"dice_{key}", values["dice_interval"])
        row |= {f"volume_ml_{key}": values["volume_ml"], f"volume_ml_{key}_corrected": values["volume_ml_corrected"]}
    strange = quality["out_of_distribution"]
    return row | {"unfamiliar": len(strange), "reasons": " ".join(quality["verdict"]["reasons"])}


def _ends(name: str, interval: Any) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}

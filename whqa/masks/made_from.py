"""What a run was made from, kept in its directory, so that results of old and of new data never meet.

    runs/<experiment>/{segmenter,errormap}/<name>/made_from.json
        cases   case -> fold, and SHA-256 of "image" and of "label" or of every part, "label <structure>"
        masks   of an error-map network: who made masks, a segmenter or another program -> their digests; of a
                segmenter that started from another one: that one -> digests of the masks that it made
    runs/<experiment>/segmenter/<name>/masks.json
        "<case>/<kind>" -> SHA-256 of the mask's file, as the segmenter wrote it

All runs of an experiment see all of its cases, in training or in testing, so all of them must have seen the same.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whqa.data.cache import PreparedCase
from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import read_json, reading, write_json
from whqa.masks.opinion import index_digests
from whqa.masks.run_state import has_begun, is_complete, made_anew
from whqa.masks.store import mask_digests

MADE_FROM = "made_from.json"
_NAMED = 5

Cases = Mapping[str, Mapping[str, int | str]]
"""Case -> its fold and the digests of its files."""
Masks = Mapping[str, Mapping[str, str]]
"""Who made masks -> "<case>/<kind>" -> digest."""


@dataclass(frozen=True)
class MadeFrom:
    """The record of one run; `masks` are those that an error-map network learned from and judged, see above."""

    cases: Cases
    masks: Masks = field(default_factory=dict)


def cases_record(folds: Folds, cases: Mapping[str, PreparedCase]) -> Cases:
    """Of the cases as they are now."""
    return {
        case: {"fold": fold, **cases[case].digests} for fold in range(folds.n) for case in sorted(folds.cases(fold))
    }


def segmenter_masks(experiment_dir: Path, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Digests of the masks of those of the segmenters that have finished and keep them."""
    found: dict[str, Mapping[str, str]] = {}
    for name in names:
        directory = experiment_dir / "segmenter" / name
        digests = mask_digests(directory) if is_complete(directory) else None
        if digests is not None:
            found[name] = digests
    return found


def read_made_from(run_dir: Path) -> MadeFrom | None:
    """The record of a run; None where an older version made the run.

    Raises:
        InputError: it is damaged.
    """
    path, remedy = run_dir / MADE_FROM, made_anew(run_dir)
    if not path.is_file():
        return None
    with reading(path, "a record of what this run was made from", remedy):
        record = MadeFrom(**read_json(path, remedy))
        for known in (*record.cases.values(), *record.masks.values()):
            if not known or not all(isinstance(value, int | str) for value in known.values()):
                raise ValueError("no digests")
        return record


def mask_digest(known: Mapping[str, str], maker: str, case: str, kind: str) -> str:
    """That of one of `judged_digests`; "" where it is not known."""
    return known.get(f"{maker}/{case}/{kind}", "")


def judged_digests(run_dir: Path) -> dict[str, str]:
    """Digests of the masks of an error-map network, by "<maker>/<case>/<kind>"; none where an older version made it.

    Raises:
        InputError: the record is damaged.
    """
    record = read_made_from(run_dir)
    makers = {} if record is None else record.masks
    return {f"{maker}/{name}": digest for maker, known in makers.items() for name, digest in known.items()}


def write_made_from(run_dir: Path, record: MadeFrom) -> None:
    """Keep the record of a run that begins; one that goes on has its own, or nobody knows what it saw."""
    if not has_begun(run_dir):
        write_json(run_dir / MADE_FROM, {"cases": record.cases, "masks": record.masks})


def runs_begun(experiment_dir: Path) -> list[Path]:
    """Directories of the runs that have left results or checkpoints."""
    found = (path for stage in ("segmenter", "errormap") for path in sorted((experiment_dir / stage).glob("*")))
    return [path for path in found if has_begun(path)]


def refuse_other_cases(experiment_dir: Path, now: Cases) -> None:
    """Whether every run of the experiment that has begun was made from the cases as they are now.

    Raises:
        InputError: one was not; names the cases.
    """
    stale = _differing(_records(runs_begun(experiment_dir)), lambda record: _changes(record.cases, now))
    if stale:
        raise InputError(
            f"{experiment_dir}: {_what(stale)} since {_names(stale)} began; put the former data back, choose another "
            f"name=..., or start anew: rm -r {_quoted(experiment_dir)}"
        )


def refuse_other_masks(run_dirs: Sequence[Path], now: Masks) -> None:
    """Whether the error-map networks that have begun learned from and judged the masks that there are now.

    Raises:
        InputError: one did not; names the cases.
    """
    stale = _differing(_records(filter(has_begun, run_dirs)), lambda record: _other_masks(record.masks, now))
    if stale:
        raise InputError(
            f"{next(iter(stale))}: holds a run with other masks than there are now ({_what(stale)}); choose another "
            f"name=..., or train again: rm -r {_all_quoted(stale)}"
        )


def refuse_mixed_origins(experiment_dir: Path, folds: Sequence[Sequence[str]]) -> None:
    """Whether the runs of a finished experiment saw the same data, in these folds, and judged the masks that there are.

    Args:
        experiment_dir: runs/<experiment>.
        folds: cases of each fold, by folds.json.

    Raises:
        InputError: they did not; names the cases.
    """
    runs = _records(runs_begun(experiment_dir))
    if not runs:
        return
    # what most runs saw; those that saw other data are the fewer to train again
    seen = Counter(json.dumps(record.cases, sort_keys=True) for record in runs.values())
    common: Cases = json.loads(seen.most_common(1)[0][0])
    placed = {case: {**common.get(case, {}), "fold": k} for k, cases in enumerate(folds) for case in cases}
    masks = {maker: known for record in runs.values() for maker, known in record.masks.items()}
    masks |= segmenter_masks(experiment_dir, list(masks)) | _external_masks(experiment_dir)
    stale = _differing(runs, lambda record: [*_changes(record.cases, placed), *_other_masks(record.masks, masks)])
    if stale:
        raise InputError(
            f"{experiment_dir}: {_names(stale)} saw other data than the other runs, or than there are now "
            f"({_what(stale)}); train again: rm -r {_all_quoted(stale)} and the same `whqa cv ...`"
        )


def unknown_origin(experiment_dir: Path) -> str:
    """A line on the runs that do not say what they were made from, since an older version made them; "" without."""
    silent = [path for path in runs_begun(experiment_dir) if not (path / MADE_FROM).is_file()]
    if not silent:
        return ""
    return f"{experiment_dir}: {_names(silent)} keep no {MADE_FROM}; whether their data changed since is not known"


def _external_masks(experiment_dir: Path) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for place in (path.parent for path in (experiment_dir / "external").glob("*/cases.csv")):
        digests = index_digests(place)
        if digests:
            found[place.name] = digests
    return found


def _records(run_dirs: Iterable[Path]) -> dict[Path, MadeFrom]:
    return {path: record for path in run_dirs if (record := read_made_from(path)) is not None}


def _differing(
    runs: Mapping[Path, MadeFrom], differences: Callable[[MadeFrom], Iterable[str]]
) -> dict[Path, list[str]]:
    """The runs that have any, with them."""
    found = {path: list(differences(record)) for path, record in runs.items()}
    return {path: lines for path, lines in found.items() if lines}


def _what(stale: Mapping[Path, Sequence[str]]) -> str:
    return _some(list(dict.fromkeys(line for lines in stale.values() for line in lines)))


def _changes(before: Cases, now: Cases) -> Iterator[str]:
    if before == now:
        return
    owner = {digest: case for case, files in before.items() for digest in files.values() if isinstance(digest, str)}
    for case in sorted(before.keys() | now.keys()):
        if case not in now:
            yield f"case {case} is gone"
        elif case not in before:
            yield f"case {case} is new"
        else:
            old, new = before[case], now[case]
            for what in sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
                former = owner.get(str(new.get(what)), case)
                yield f"{what} of case {case} changed" + (f" (it was case {former}'s)" if former != case else "")


def _other_masks(before: Masks, now: Masks) -> Iterator[str]:
    for maker in sorted(before.keys() & now.keys()):
        old, new = before[maker], now[maker]
        names = sorted({name.split("/")[0] for name in old.keys() | new.keys() if old.get(name) != new.get(name)})
        if names:
            yield f"masks of {maker}: case {', '.join(names[:_NAMED])}" + _more(names)


def _some(lines: Sequence[str]) -> str:
    return ", ".join(lines[:_NAMED]) + _more(lines)


def _more(lines: Sequence[str]) -> str:
    return f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""


def _names(run_dirs: Iterable[Path]) -> str:
    return _some([f"{path.parent.name}/{path.name}" for path in run_dirs])


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _all_quoted(paths: Iterable[Path]) -> str:
    return " ".join(map(_quoted, paths))

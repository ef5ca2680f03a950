"""A finished run -> a model file, see `whqa.assessment.model_file`."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.model_file import CARD, LICENSE, digest, pack
from whqa.assessment.model_metadata import model_metadata
from whqa.assessment.trained_weights import WEIGHTS, packed_weights
from whqa.config.instantiate import plain
from whqa.config.run_config import CONFIG, read_run_config
from whqa.contract.model_json import ModelJson
from whqa.contract.summary_json import Summary
from whqa.errors import InputError
from whqa.files import atomic_path, read_json, reading
from whqa.judges.calibration import CALIBRATION
from whqa.masks.run_state import COMPLETED, made_again
from whqa.report.model_card import model_card
from whqa.results.familiarity import FEATURES_FILE
from whqa.results.held_back_gains import HELD_BACK_GAINS
from whqa.results.run_folds import folds_of_model

NO_LICENSE = (
    "No licence was stated by whoever exported this model.\n\n"
    "Ask them before you use it or pass it on; what the scans of its training may be used for can bind as well.\n"
    "whqa, the program that reads this file, is licensed under Apache-2.0; that does not extend to the model.\n"
)
# Of a run's settings: what says how it was made, and neither where on a machine nor from which patients.
_KEPT = (
    *("name", "stage", "fold", "folds", "seed"),
    *("preprocess", "augmentation", "masks", "network", "segmenter", "errormap"),
)
_KEPT_OF_DATA = ("_target_", "name", "modality", "n", "seed", "spacing_mm", "spacing_rule", "frames", "channel")
_SUMMARY = "summary.json"
_WITHHELD = "withheld"
_MIXED = "folds of different settings or data were put together"

Aliases = Mapping[str, Mapping[str, str]]
"""Column ("case", "patient") -> name in the run -> name in the file."""


def export_run(directory: Path, out: Path, with_cases: bool = False, license_file: Path | None = None) -> ModelJson:
    """Write a model file.

    Args:
        directory: runs/<experiment>, finished and summarised.
        out: the file, which must not exist.
        with_cases: keep the names of cases and patients; otherwise they become numbers, in the order of the names.
        license_file: a text that says under which licence the model is given away.

    Returns:
        The file's metadata.

    Raises:
        InputError: the run is not finished or damaged, `out` exists, or the licence cannot be read.
    """
    if out.exists():
        raise InputError(f"{out}: exists and is not overwritten; choose another -o, or remove it")
    record = folds_of_model(directory)
    licence = NO_LICENSE if license_file is None else _text(license_file)
    run = load_run(directory, range(len(record["folds"])))
    summary = _summary(directory)
    aliases = _aliases(record["patients"], with_cases)
    members = {LICENSE: licence.encode(), _SUMMARY: _json(summary), "folds.json": _json(_told(record, aliases))}
    members |= dict(_of_networks(directory, run, aliases))
    with _reading_summary(directory):
        metadata = model_metadata(run, record, summary, with_cases=with_cases, licence=licence.strip().splitlines()[0])
        members[CARD] = model_card(metadata, summary).encode()
    listed = {name: {"bytes": len(content), "sha256": digest(content)} for name, content in sorted(members.items())}
    whole = cast(ModelJson, {**metadata, "files": listed})
    with atomic_path(out) as temporary:
        pack(temporary, members, _json(whole))
    return whole


def _summary(directory: Path) -> Summary:
    found = cast(Summary, read_json(directory / _SUMMARY, _summarize(directory)))
    # how they differ is told with names of cases and paths
    return {**found, "mixed": _MIXED} if "mixed" in found else found


def _reading_summary(directory: Path) -> AbstractContextManager[None]:
    return reading(directory / _SUMMARY, "the summary of a run by this version", _summarize(directory))


def _summarize(directory: Path) -> str:
    return f"`whqa summarize {shlex.quote(str(directory))}` writes it, with the numbers of the model card"


def _text(path: Path) -> str:
    with reading(path, "a licence", "give a text file in UTF-8"):
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise ValueError("empty")
        return text


def _aliases(patients: Mapping[str, str], with_cases: bool) -> Aliases:
    named = {"case": set(patients), "patient": set(patients.values())}
    if with_cases:
        return {what: {name: name for name in names} for what, names in named.items()}
    # sums over patients in the order of their names, and with them the last digits, stay the same
    return {
        what: {name: f"{what}{i:0{len(str(len(names)))}d}" for i, name in enumerate(sorted(names), start=1)}
        for what, names in named.items()
    }


def _told(record: Mapping[str, Any], aliases: Aliases) -> dict[str, Any]:
    """folds.json with other names."""
    case, patient = aliases["case"], aliases["patient"]
    return {
        **record,
        "patients": {case[c]: patient[p] for c, p in record["patients"].items()},
        "modalities": {case[c]: modality for c, modality in record["modalities"].items()},
        "folds": [[case[c] for c in fold] for fold in record["folds"]],
    }


def _of_networks(directory: Path, run: TrainedRun, aliases: Aliases) -> Iterator[tuple[str, bytes]]:
    """Name and content of what the file holds of each fold."""
    for network in run.networks:
        place = f"errormap/{network.fold}"
        run_dir = directory / place
        yield f"{place}/{COMPLETED}", b""
        yield f"{place}/{CONFIG}", _kept_settings(run_dir)
        yield f"{place}/{WEIGHTS}", packed_weights(network.module, network.sha256)
        for name in ("cases.csv", FEATURES_FILE, HELD_BACK_GAINS):
            if (run_dir / name).is_file():
                yield f"{place}/{name}", _renamed(run_dir / name, aliases)
        if (run_dir / CALIBRATION).is_file():
            # only calibrating asks what held-back cases need
            yield f"{place}/{CALIBRATION}", _json(replace(network.module.calibration, held_back=None).to_dict())
        if network.segmenter is not None and network.segmenter_sha256 is not None:
            content = packed_weights(network.segmenter, network.segmenter_sha256)
            yield f"segmenter/{network.fold}/{WEIGHTS}", content


def _kept_settings(run_dir: Path) -> bytes:
    config = read_run_config(run_dir)
    with reading(run_dir / CONFIG, "the settings of a run", made_again(run_dir)):
        settings = plain(config)
        kept = _only(settings, _KEPT)
        kept["data"] = _only(settings["data"], _KEPT_OF_DATA)
        kept["trainer"] = _only(settings.get("trainer") or {}, ("precision",))
        for program in (kept.get("masks") or {}).get("external", {}).values():
            for key in ("root", "probabilities"):
                if program.get(key) is not None:
                    program[key] = _WITHHELD
        return OmegaConf.to_yaml(OmegaConf.create(kept)).encode()


def _only(settings: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}


def _renamed(path: Path, aliases: Aliases) -> bytes:
    """A table with other names; every other field is copied as it stands."""
    text = io.StringIO(newline="")
    with reading(path, "a table of cases", made_again(path.parent)), path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, strict=True)
        writer = csv.DictWriter(text, table.fieldnames or ())
        writer.writeheader()
        for row in table:
            writer.writerow({**row, **{what: names[row[what]] for what, names in aliases.items()}})
    return text.getvalue().encode()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()

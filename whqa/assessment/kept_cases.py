"""Which folders of an earlier call hold exactly what is asked for, so that a stopped batch goes on where it stopped.

request.json beside a verdict says what it was made from: digests of the files, the settings, the run. A folder is kept
where that is what is asked for now, and nothing in it is missing or damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whqa import __version__
from whqa.assessment.batch_case import AssessOptions, BatchCase
from whqa.assessment.batch_table import table_row
from whqa.assessment.input_places import InputFile
from whqa.assessment.model import TrainedRun
from whqa.assessment.output_folder import CORRECTED_SEG, ERROR_SEG, QUALITY, REQUEST, WRITTEN
from whqa.errors import InputError
from whqa.files import read_json, sha256
from whqa.results.correction_time import CorrectionTime


def run_record(model: TrainedRun) -> dict[str, Any]:
    """What the verdicts of a run follow from: networks, segmenters, calibration, the run's own cases."""
    return {
        "networks": {str(n.fold): n.sha256 for n in model.networks},
        "segmenters": {str(n.fold): n.segmenter_sha256 for n in model.networks},
        "calibrations": {str(n.fold): n.module.calibration.to_dict() for n in model.networks},
        "cases": hashlib.sha256(model.cases.to_csv(index=False).encode()).hexdigest(),
        "features": hashlib.sha256(json.dumps([dict(row) for row in model.features]).encode()).hexdigest(),
    }


def request_record(
    name: str,
    image: InputFile,
    mask: InputFile,
    probabilities: InputFile | None,
    options: AssessOptions,
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that decides the content of a case's folder; `run` is from `run_record`.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    scheme = options.label_map
    return {
        "image": image.sha256,
        "mask": mask.sha256,
        "probabilities": probabilities and probabilities.sha256,
        "name": name,
        "modality": options.modality,
        "label_map": scheme
        and [scheme.name, dict(scheme.values), sorted(scheme.aliases.items()), sorted(scheme.ignored)],
        "confidence": options.confidence,
        "resample": options.resample,
        "orientation": options.orientation,
        "series": options.series,
        "outputs": list(options.outputs),
        "run": dict(run),
        "whqa": __version__,
    }


def kept_quality(folder: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """quality.json of a folder that holds exactly what is asked for, or None."""
    try:
        # through JSON and back, as the stored one went
        earlier = read_json(folder / REQUEST, "assess it again")
        written = earlier.pop(WRITTEN, None) if isinstance(earlier, dict) else None
        same = earlier == json.loads(json.dumps(request))
        if not same or written != written_digests(folder, request["outputs"]) or _lacks(written, request["outputs"]):
            return None
        quality = read_json(folder / QUALITY, "assess it again")
    except InputError:
        return None
    return quality if _can_be_listed(quality) else None


def written_digests(folder: Path, outputs: Sequence[str]) -> dict[str, str]:
    """SHA-256 of those of the outputs that there are, by name."""
    return {name: sha256(folder / name) for name in outputs if (folder / name).is_file()}


def _lacks(written: Mapping[str, str], outputs: Sequence[str]) -> bool:
    """Segmentations alone may lack: a series may have no place that they could refer to."""
    return not {*outputs} - {CORRECTED_SEG, ERROR_SEG} <= written.keys()


def _can_be_listed(quality: Any) -> bool:
    """Whether the table and the page can be written of it: anybody may have edited the file since."""
    from whqa.report.batch_page import index_row  # jinja2

    try:
        case = BatchCase(str(quality["case"]), quality=quality)
        table_row(case)
        index_row(case, CorrectionTime())
        float(quality["confidence"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        return False
    return True

"""The tables of a batch, one row a case.

assessments.csv holds every number in the order of the input; worklist.csv says, the worst first, what needs a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whqa.assessment.batch_case import BatchCase
from whqa.assessment.output_folder import QUALITY, REPORT
from whqa.files import write_rows
from whqa.results.correction_time import CorrectionTime
from whqa.results.worklist import work_item, worklist_key

_WORKLIST = (
    *("place", "name", "decision", "minutes", "look", "structure", "axial", "coronal", "sagittal", "pieces", "ml"),
    *("qi_heart", "mean_dice", "worst_structure", "why", "page", "error"),
)


def write_table(path: Path, cases: Iterable[BatchCase], structures: Sequence[str]) -> None:
    """Write the table; it is a table of pairs too, so that the same cases can be judged again.

    Args:
        path: of the table.
        cases: in the order of the rows.
        structures: keys of those that the run judges; a mask may have the heart as one in their place.
    """
    cases = list(cases)
    found = (key for case in cases if case.quality is not None for key in case.quality["structures"])
    structures = list(dict.fromkeys((*structures, *found)))
    softmax = ["probabilities"] if any(case.pair and case.pair.probabilities for case in cases) else []
    columns = [
        *("name", "image", "mask", *softmax, "modality", "folder", "status", "decision", "score"),
        *(f"qi_{region}{end}" for region in ("volume", "heart") for end in ("", "_low", "_high")),
        *(f"dice_{s}_{end}" for s in structures for end in ("expected", "low", "high")),
        *(f"volume_ml_{s}{end}" for s in structures for end in ("", "_corrected")),
        *("corrected", "unfamiliar", "reasons", "error"),
    ]
    write_rows(path, columns, [table_row(case) for case in cases])


def write_worklist(path: Path, cases: Iterable[BatchCase], time: CorrectionTime) -> None:
    """Write what needs a person, the worst first, cases that could not be judged at the end.

    Args:
        path: of the table.
        cases: in any order.
        time: that corrections take.
    """
    cases = list(cases)
    judged = [(case, case.quality) for case in cases if case.quality is not None]
    judged.sort(key=lambda pair: worklist_key(pair[0].name, pair[1]))
    rows = [_work_row(case, quality, time) for case, quality in judged]
    rows += [{"name": case.name, "error": case.error} for case in cases if case.quality is None]
    write_rows(path, _WORKLIST, [{"place": place} | row for place, row in enumerate(rows, start=1)])


def _work_row(case: BatchCase, quality: Mapping[str, Any], time: CorrectionTime) -> dict[str, Any]:
    item = work_item(case.name, quality, time)
    return {
        "name": item.name,
        "decision": item.decision,
        "minutes": round(item.minutes, 1),
        "look": item.look,
        "structure": item.structure,
        **{s.plane: s.number for s in item.slices},
        "pieces": item.pieces,
        "ml": round(item.ml, 3),
        "qi_heart": item.qi_heart,
        "mean_dice": item.dice,
        "worst_structure": item.worst,
        "why": item.why,
        "page": f"{case.folder}/{REPORT if case.report else QUALITY}",
    }


def table_row(case: BatchCase) -> dict[str, Any]:
    """The row of one case, without the columns that it has no value for.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError: its quality is not what whqa writes.
    """
    row: dict[str, Any] = {"name": case.name, "folder": case.folder, "error": case.error}
    if case.pair:
        # absolute, because the table of the input lies elsewhere
        row |= {"image": case.pair.image.absolute(), "mask": case.pair.mask.absolute()}
        row |= {"modality": case.pair.modality}
        row |= {"probabilities": case.pair.probabilities.absolute()} if case.pair.probabilities else {}
    if case.quality is None:
        return row | {"status": "failed"}
    quality = case.quality
    row |= {"status": "kept" if case.kept else "done", "decision": quality["verdict"]["decision"]}
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

"""assessments.csv: what became of every case of a batch, one row each, in the order of the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from whqa.assessment.batch_case import BatchCase
from whqa.files import write_rows


def write_table(path: Path, cases: Iterable[BatchCase], structures: Sequence[str]) -> None:
    """Write the table; it is a table of pairs too, so that the same cases can be judged again.

    Args:
        path: of the table.
        cases: in the order of the rows.
        structures: keys of those that the run judges.
    """
    cases = list(cases)
    softmax = ["probabilities"] if any(case.pair and case.pair.probabilities for case in cases) else []
    columns = [
        *("name", "image", "mask", *softmax, "modality", "folder", "status", "decision", "score"),
        *(f"qi_{region}{end}" for region in ("volume", "heart") for end in ("", "_low", "_high")),
        *(f"dice_{s}_{end}" for s in structures for end in ("expected", "low", "high")),
        *(f"volume_ml_{s}{end}" for s in structures for end in ("", "_corrected")),
        *("corrected", "unfamiliar", "reasons", "error"),
    ]
    write_rows(path, columns, [table_row(case) for case in cases])


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

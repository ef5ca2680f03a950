"""A typical mask and the worst ones of an experiment, as a picture beside its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whqa.config.instantiate import plain
from whqa.config.run_cohort import cohort_of_run
from whqa.config.run_config import read_run_config
from whqa.data.case import Cohort
from whqa.data.preprocess import Preprocess, heart_of, preprocess_image, preprocess_label
from whqa.data.reading import read_case
from whqa.errors import InputError
from whqa.masks.store import mask_path, read_arrays, stored_mask
from whqa.report.cases_figure import cases_figure
from whqa.report.slices import JudgedVolume
from whqa.report.summary_figures import Image, image_of
from whqa.results.tables import RunTables
from whqa.results.worst_masks import worst_first


def cases_picture(run: Path, tables: RunTables) -> Image | str:
    """The typical and the worst delivered masks of the first method; in words why there is none.

    Args:
        run: runs/<experiment>, finished.
        tables: of it.
    """
    rows = typical_and_worst(worst_first(tables))
    try:
        cohort = cohort_of_run(run)
        settings = Preprocess(**plain(read_run_config(run / "errormap" / "0").preprocess))
        shown = {_words(what, row): _judged(run, cohort, settings, row) for what, row in rows.items()}
    except InputError as error:
        return f"No pictures of cases: {error}"
    if not shown:
        return "No pictures of cases: no error map was held against a mask with errors."
    figure = cases_figure(shown, cohort.scheme.colours, cohort.scheme.titles)
    return image_of(figure, "; ".join(words.replace("\n", ", ") for words in shown))


def typical_and_worst(rows: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """Of rows, worst QI first: what is typical -> the row with the median error Dice, and the worst ones."""
    by_dice = rows.dropna(subset="error_dice").sort_values(["error_dice", "case", "mask_kind"])
    if by_dice.empty:
        return {}
    chosen = {
        "typical": by_dice.iloc[len(by_dice) // 2],
        "lowest error Dice": by_dice.iloc[0],
        "QI farthest from Acc": rows.iloc[0],
    }
    return {what: {str(key): value for key, value in row.items()} for what, row in chosen.items()}


def _words(what: str, row: Mapping[str, Any]) -> str:
    return (
        f"{what}\n{row['case']}, {row['mask_kind']}\nerror Dice {row['error_dice']:.2f}, mean Dice "
        f"{row['mean_dice']:.2f}\nheart: QI {row['qi_heart']:.3f}, Acc {row['acc_heart']:.3f}"
    )


def _judged(run: Path, cohort: Cohort, settings: Preprocess, row: Mapping[str, Any]) -> JudgedVolume:
    case = cohort[str(row["case"])]
    image, reference = read_case(cohort, case)
    assert reference is not None
    heart = heart_of(reference, cohort.scheme.keys) if settings.centre == "heart" else None
    array, geometry = preprocess_image(image, case.modality, settings, heart)
    label = preprocess_label(reference, geometry)
    kind = str(row["mask_kind"])
    mask = read_arrays(stored_mask(run, str(row["segmenter"]), case.id, kind), "mask")[0]
    verdict = mask_path(run / "errormap" / str(row["fold"]), case.id, kind)
    probability, error_map = read_arrays(verdict, "error_probability", "error_map")
    if not mask.shape == label.shape == error_map.shape:
        raise InputError(f"{case.image}: lies on another grid than when {run.name} was trained; was the file replaced?")
    wrong = mask != label
    return JudgedVolume(array, mask, wrong, probability / np.float32(255), error_map.astype(bool), geometry.spacing)

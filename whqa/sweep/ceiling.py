"""The ceiling that annotator noise sets, where the truth is known: of phantoms.

A phantom's label is what an annotator draws, the truth with noise. A judge that knew the truth would call wrong the
voxels in which a mask differs from it, P = [M != truth], expect the Dice with it, and correct every mask to it. Held
against the labels, as all methods are, it is still wrong by the annotator's noise. No method that learns about tissue
and anatomy alone can be expected to do better; one that learns the annotator's habits can.

Its rows lie in `noise_free.csv` beside cases.csv, so that they are made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from whqa.config.instantiate import plain
from whqa.config.run_config import CONFIG, read_run_config
from whqa.data.formats.volume_files import Volume
from whqa.data.phantom import phantom_cohort, phantom_of_case
from whqa.data.preprocess import Preprocess, heart_of, preprocess_image, preprocess_label
from whqa.errors import InputError
from whqa.files import ONLY_EMPTY_IS_MISSING, write_rows
from whqa.masks.store import read_arrays, stored_mask
from whqa.metrics.error_detection import error_dice_by_structure
from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.verdict_row import judge
from whqa.quality import ErrorPrediction, JudgedCase
from whqa.results.tables import TEXT_COLUMNS
from whqa.structures import MMWHS

NOISE_FREE = "noise_free"
ROWS = f"{NOISE_FREE}.csv"
_KEY = ["case", "mask_kind"]


def noise_free_rows(run: Path, first: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of the judge that knows the truth, as in cases.csv; None where no truth is known.

    Args:
        run: runs/<experiment>, finished.
        first: its rows of one method, whose masks are judged.

    Raises:
        InputError: a mask is missing, or the phantoms are not those that the experiment was made of.
    """
    config = run / "errormap" / "0"
    cfg = read_run_config(config) if (config / CONFIG).is_file() else None
    if cfg is None or cfg.data.get("_target_") != f"{phantom_cohort.__module__.rpartition('.')[0]}.phantom_cohort":
        return None
    kept = _kept(run / ROWS, first)
    if kept is not None:
        return kept
    rows: list[dict[str, Any]] = []
    for case, masks in first.groupby("case", sort=False):
        label, truth, spacing = _drawn_and_true(str(case), cfg)
        known = ({str(name): value for name, value in row.items()} for row in masks.to_dict("records"))
        rows += [_row(run, row, label, truth, spacing) for row in known]
    write_rows(run / ROWS, list(rows[0]), rows)
    return pd.DataFrame(rows)


def _kept(path: Path, first: pd.DataFrame) -> pd.DataFrame | None:
    """What an earlier call wrote, where it is about the same masks."""
    if not path.is_file():
        return None
    found = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), **ONLY_EMPTY_IS_MISSING)
    columns = [*_KEY, "acc_volume"]
    if not set(first) <= set(found) or len(found) != len(first):
        return None
    mine, theirs = (table[columns].sort_values(_KEY).reset_index(drop=True) for table in (first, found))
    same = mine[_KEY].equals(theirs[_KEY]) and np.allclose(mine["acc_volume"], theirs["acc_volume"], atol=1e-8)
    return found if same else None


def _drawn_and_true(case: str, cfg: DictConfig) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
    """Label and truth of a phantom on the experiment's grid, uint8 (D, H, W), and mm per voxel."""
    data, settings = plain(cfg.data), Preprocess(**plain(cfg.preprocess))
    phantom = phantom_of_case(case, data["seed"], data["spacing_mm"])
    arrays: list[np.ndarray] = [phantom.image.astype(np.float32)]
    arrays += [MMWHS.to_indices(values, case) for values in (phantom.label, phantom.truth)]
    image, label, truth = (Volume(array, phantom.affine, Path(case), in_memory=True) for array in arrays)
    heart = heart_of(label, MMWHS.keys) if settings.centre == "heart" else None
    _, geometry = preprocess_image(image, "ct" if case.startswith("ct") else "mr", settings, heart)
    drawn, true = (torch.from_numpy(preprocess_label(volume, geometry)) for volume in (label, truth))
    return drawn, true, geometry.spacing


def _row(
    run: Path, known: Mapping[str, Any], label: Tensor, truth: Tensor, spacing: tuple[float, float, float]
) -> dict[str, Any]:
    """The row of one mask: what `known` of another method's says of the mask, with this judge's numbers."""
    path = stored_mask(run, str(known["segmenter"]), known["case"], known["mask_kind"])
    mask = torch.from_numpy(read_arrays(path, "mask")[0])
    if mask.shape != label.shape:
        raise _other_phantoms(run)
    case = JudgedCase(known["case"], known["mask_kind"], torch.zeros(mask.shape), mask, label, None, spacing)
    wrong = mask != truth
    numbers = judge(case, ErrorPrediction(wrong.float(), wrong))
    if not np.isclose(numbers["acc_volume"], known["acc_volume"], atol=1e-8):
        raise _other_phantoms(run)
    of_method = {name for name in known if name.startswith(("error_dice_", "place_certainty", "seconds"))}
    row = {**known, "method": NOISE_FREE} | dict.fromkeys(of_method, float("nan")) | numbers
    n = MMWHS.n_classes
    structures = {
        "error_dice_{}": error_dice_by_structure(wrong, mask, label, n),
        "dice_{}_predicted": segmentation_dice(mask, truth, n),
        "dice_{}_corrected": segmentation_dice(truth, label, n),
    }
    for name, values in structures.items():
        row |= {name.format(key): float(v) for key, v in zip(MMWHS.keys, values, strict=True)}
    return row


def _other_phantoms(run: Path) -> InputError:
    return InputError(
        f"{run}: the phantoms that its config.yaml names are not those that its masks were judged by; another version "
        "of whqa made them"
    )

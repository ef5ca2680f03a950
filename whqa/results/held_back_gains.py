"""held_back_gains.csv: what each rule of correction would do to the training masks that an error-map network held back.

A fold holds back few patients. Who judges a new case asks the networks of all folds, and so may choose by the patients
of all: each of these masks was judged by a network that had not seen its case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from whqa.files import reading, write_rows
from whqa.judges.correction import RULES, MaskGains
from whqa.masks.run_state import made_again
from whqa.metrics.arrays import FloatArray
from whqa.results.text_table import read_text_table

HELD_BACK_GAINS = "held_back_gains.csv"
_MASK = ("case", "patient", "mask_kind", "stratum")
_RULE = ("probability", "gain")
_WHAT = "a table of what corrections do to held-back masks"


def write_gains(path: Path, masks: Iterable[MaskGains], structures: Sequence[str]) -> None:
    """A row for each mask and rule: change in Dice of each structure, and the share of voxels that changed."""
    columns = _columns(structures)
    rows = [
        dict(zip((*_MASK, *_RULE), (m.case, m.patient, m.kind, m.stratum, rule.probability, rule.gain), strict=True))
        | dict(zip(columns, map(float, of_rule), strict=True))
        for m in masks
        for rule, of_rule in zip(RULES, m.gains, strict=True)
    ]
    write_rows(path, (*_MASK, *_RULE, *columns), rows)


def read_gains(run_dirs: Iterable[Path], structures: Sequence[str]) -> tuple[MaskGains, ...]:
    """The masks of all networks; none of one that held no case back, has no label head or is of an older version.

    Raises:
        InputError: a table is damaged, or of other rules.
    """
    return tuple(mask for run_dir in run_dirs for mask in _masks(run_dir, _columns(structures)))


def _masks(run_dir: Path, columns: Sequence[str]) -> list[MaskGains]:
    path, remedy = run_dir / HELD_BACK_GAINS, made_again(run_dir)
    if not path.is_file():
        return []
    table = read_text_table(path, _WHAT, remedy)
    with reading(path, _WHAT, remedy):
        rules, of_rules = _numbers(table.columns, _RULE), _numbers(table.columns, columns)
        known = np.array([(rule.probability, rule.gain) for rule in RULES])
        if not (np.isfinite(of_rules).all() and np.array_equal(rules, np.tile(known, (table.n // len(RULES), 1)))):
            raise ValueError("not the rules that there are")
        names = [table.columns[name][:: len(RULES)] for name in _MASK]
        of_masks = of_rules.reshape(-1, len(RULES), len(columns))
        return [
            MaskGains(case, patient, kind, quality, gains)
            for case, patient, kind, quality, gains in zip(*names, of_masks, strict=True)
        ]


def _numbers(columns: dict[str, list[str]], names: Sequence[str]) -> FloatArray:
    return np.array([columns[name] for name in names], np.float64).T


def _columns(structures: Sequence[str]) -> tuple[str, ...]:
    return (*(f"dice_{key}_change" for key in structures), "changed_share")

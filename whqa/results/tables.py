"""The case tables of all folds, read, checked and joined: nothing missing, nothing twice, nothing in a foreign fold."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whqa.errors import InputError
from whqa.files import reading
from whqa.masks.made_from import refuse_mixed_origins, runs_begun
from whqa.masks.plan import MASK_KINDS, family, is_delivered
from whqa.masks.run_state import COMPLETED, is_complete, made_again, refuse_damaged
from whqa.masks.store import read_index
from whqa.results.run_folds import folds_to_summarize

TEXT_COLUMNS = ("case", "patient", "mask_kind", "method", "modality", "segmenter")
METHOD_ORDER = (
    "errormap",
    "constant",
    "boundary",
    "entropy",
    "opinion",
    "tta",
    "ensemble",
    "dice_regressor",
    "joint",
    "reverse",
)
ABLATIONS = ("mask_shuffled", "image_shuffled")
"""Methods that are the network itself with less to go by, see `whqa.callbacks.shuffled`: no rivals."""
CONTRACT_COLUMNS = (
    *("case", "fold", "mask_kind", "method", "error_dice", "error_auprc"),
    *("acc_volume", "qi_volume", "acc_heart", "qi_heart"),
)
MADE_FAMILIES = ("augmented", "mixed", "corrupted", "novel")
"""Mask kinds with a number ("corrupted1", ...) that are made from references and final masks, each family apart."""
MAP_COLUMNS = ("predicted_voxels", "hit_voxels")
"""What every row of a method with an error map has; a method without one has neither."""
COUNT_COLUMNS = ("error_voxels", *MAP_COLUMNS)
CONSTANT_COLUMNS = ("constant_volume", "constant_heart", "constant_volume_kind", "constant_heart_kind")


@dataclass(frozen=True)
class RunTables:
    """What a cross-validated experiment left on disk.

    Attributes:
        judged: one row per (case, mask kind, method), numbers as floats, `patient` filled in from folds.json.
        text: the same rows and columns as the folds wrote them, so that joining loses no digit.
        segmented: one row per (case, mask kind) of the single-fold segmenters; empty where only masks of other
            programs were judged.
        folds: the content of folds.json.
    """

    judged: pd.DataFrame
    text: pd.DataFrame
    segmented: pd.DataFrame
    folds: dict[str, Any]

    @property
    def structures(self) -> tuple[str, ...]:
        """Structure keys in index order."""
        return tuple(self.folds["cohort"]["structures"])

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of the tables: the network, the baselines that every table carries, the rest."""
        return in_order(self.judged["method"].unique(), METHOD_ORDER)

    @property
    def of_first_method(self) -> pd.DataFrame:
        """Its rows of `judged`: the network's."""
        return self.judged[self.judged["method"] == self.methods[0]]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Mask kinds, final first."""
        return in_order(self.judged["mask_kind"].unique(), MASK_KINDS)

    @property
    def external(self) -> tuple[str, ...]:
        """Those of them that other programs made."""
        return tuple(kind for kind in self.kinds if kind not in MASK_KINDS)

    @property
    def families(self) -> tuple[str, ...]:
        """Those of `MADE_FAMILIES` that have masks."""
        found = {family(kind) for kind in self.kinds}
        return tuple(name for name in MADE_FAMILIES if name in found)

    @property
    def views(self) -> tuple[str, ...]:
        """What `view` takes: final masks, those of each other program, made ones, all kinds."""
        return ("final", *self.external, *self.families, "all")


def in_order(names: Iterable[str], order: Sequence[str]) -> tuple[str, ...]:
    """`names` with those of `order` first and the rest by name."""
    return tuple(sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n)))


def read_run(run_dir: Path, mixed: bool = False) -> RunTables:
    """Read and check folds.json and the case tables of every fold below `run_dir`.

    Args:
        run_dir: runs/<experiment>.
        mixed: also where runs saw other data than each other.

    Raises:
        InputError: a fold is missing or unfinished, a case is judged twice, missing or in a foreign fold, the folds
            differ in methods or mask kinds, or a table does not hold what it must.
    """
    folds = folds_to_summarize(run_dir)
    refuse_damaged(runs_begun(run_dir))
    stages = _stages(run_dir, len(folds["folds"]))
    _refuse_missing(run_dir, stages, len(folds["folds"]))
    _refuse_surplus(run_dir / "errormap", len(folds["folds"]))
    if not mixed:
        refuse_mixed_origins(run_dir, folds["folds"])
    structures = folds["cohort"]["structures"]
    dice = [f"dice_{key}" for key in structures]
    needed = [*CONTRACT_COLUMNS, *dice, *COUNT_COLUMNS, *CONSTANT_COLUMNS]
    text = _join(run_dir / "errormap", folds, needed, ("case", "mask_kind", "method"))
    text = _sorted(text, dice)
    judged = _numbers(text, run_dir / "errormap")
    _refuse_empty(judged, [*CONTRACT_COLUMNS[6:], "error_voxels", *CONSTANT_COLUMNS], run_dir / "errormap")
    _refuse_empty(judged[with_map(judged)], MAP_COLUMNS, run_dir / "errormap")
    judged["patient"] = judged["case"].map(folds["patients"])
    needed = ["case", "fold", "mask_kind", *dice]
    if "segmenter" not in stages:
        return RunTables(judged, text, pd.DataFrame(columns=[*needed, "patient"]), folds)
    segmented = _numbers(_join(run_dir / "segmenter", folds, needed, ("case", "mask_kind")), run_dir / "segmenter")
    segmented["patient"] = segmented["case"].map(folds["patients"])
    return RunTables(judged, text, segmented, folds)


def _stages(run_dir: Path, n_folds: int) -> tuple[str, ...]:
    """Both stages, or the second alone where only masks of other programs, and those made of them, were judged."""
    makers: dict[str, set[str]] = {}
    for path in (run_dir / "errormap" / str(k) / "cases.csv" for k in range(n_folds)):
        if path.is_file():
            with reading(path, "CSV", made_again(path.parent)), path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    makers.setdefault(str(row.get("mask_kind")), set()).add(str(row.get("segmenter")))
    programs = makers.keys() - set(MASK_KINDS)
    own = set().union(*(makers[kind] for kind in makers.keys() & set(MASK_KINDS)))
    return ("errormap",) if programs and own <= programs else ("segmenter", "errormap")


def _refuse_missing(run_dir: Path, stages: Sequence[str], n_folds: int) -> None:
    runs = [run_dir / stage / str(k) for stage in stages for k in range(n_folds)]
    missing = {run: " (not completed)" if run.is_dir() else "" for run in runs if not is_complete(run)}
    lacking = [run for run in runs if is_complete(run) and not (run / "cases.csv").is_file()]
    missing |= dict.fromkeys(lacking, " (no cases.csv)")
    if missing:
        names = ", ".join(f"{run.parent.name}/{run.name}{missing[run]}" for run in runs if run in missing)
        stamps = " ".join(shlex.quote(str(run / COMPLETED)) for run in lacking)
        first = f"rm {stamps}, and " if lacking else ""
        raise InputError(
            f"{run_dir}: missing fold(s) {names}; {first}the same `whqa cv ...` again makes what is missing"
        )


def _refuse_surplus(stage: Path, n_folds: int) -> None:
    known = {str(k) for k in range(n_folds)}
    surplus = sorted(p.parent.name for p in stage.glob("*/cases.csv") if p.parent.name not in known)
    if surplus:
        raise InputError(
            f"{stage}: fold(s) {', '.join(surplus)} do not belong to the {n_folds} folds of folds.json; remove them"
        )


def _join(stage: Path, folds: dict[str, Any], needed: Sequence[str], key: tuple[str, ...]) -> pd.DataFrame:
    """Tables of all folds below `stage` as text, after the checks."""
    foreign_allowed = stage.name == "segmenter" and folds["plan"] == "in_sample"
    tables = []
    for k in range(len(folds["folds"])):
        table = _read_table(stage / str(k) / "cases.csv", needed).assign(_directory=str(k))
        # In-sample segmenters also write rows of the cases that they were trained on; only unseen ones count.
        tables.append(table[table["fold"] == str(k)] if foreign_allowed else table)
    joined = pd.concat(tables, ignore_index=True).fillna("")
    _refuse_twice(stage, joined, key)
    _refuse_foreign(stage, joined, folds)
    _refuse_holes(stage, joined, folds, key, _external_cases(stage))
    return joined.drop(columns="_directory")


def _read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    with reading(path, "CSV", made_again(path.parent)):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = [column for column in needed if column not in table]
    if lacking:
        raise InputError(f"{path}: lacks column(s) {', '.join(lacking)}; {made_again(path.parent)}")
    return table


def _refuse_twice(stage: Path, table: pd.DataFrame, key: tuple[str, ...]) -> None:
    twice = table[table.duplicated(list(key), keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    same = twice[(twice[list(key)] == first[list(key)]).all(axis=1)]
    where = " and ".join(f"fold {name}" for name in same["_directory"])
    what = ", ".join(f"{column} {first[column]}" for column in key[1:])
    raise InputError(
        f"{stage}: case {first['case']} ({what}) is judged twice, in {where}; "
        f"remove the one that does not belong there and run the same `whqa cv ...` again"
    )


def _refuse_foreign(stage: Path, table: pd.DataFrame, folds: dict[str, Any]) -> None:
    home = {case: str(k) for k, fold in enumerate(folds["folds"]) for case in fold}
    for case, fold, directory in table[["case", "fold", "_directory"]].drop_duplicates().itertuples(index=False):
        if case not in home:
            raise InputError(f"{stage}/{directory}/cases.csv: case {case} is not in folds.json; retrain that fold")
        if not home[case] == directory == fold:
            raise InputError(
                f"{stage}/{directory}/cases.csv: case {case} belongs to fold {home[case]} by folds.json "
                f"(its row says {fold}); it may have been trained on. Retrain that fold"
            )


def _external_cases(stage: Path) -> dict[str, set[str]]:
    """Other program -> cases that it made masks of, which need not be all (`masks.external.<name>.partial`)."""
    places = (path.parent for path in (stage.parent / "external").glob("*/cases.csv"))
    return {place.name: {row["case"] for row in read_index(place)} for place in places}


def _refuse_holes(
    stage: Path,
    table: pd.DataFrame,
    folds: dict[str, Any],
    key: tuple[str, ...],
    external: Mapping[str, Collection[str]],
) -> None:
    """Every case must have a row for every combination of mask kind (and method) that occurs anywhere.

    Of another program's masks it must where it has one.
    """
    rest = list(key[1:])
    combinations = set(table[rest].itertuples(index=False, name=None))
    if not any(is_delivered(kind) for kind, *_ in combinations):
        raise InputError(f"{stage}: no row has mask_kind final; retrain with the final masks")
    present = set(table[list(key)].itertuples(index=False, name=None))
    for k, fold in enumerate(folds["folds"]):
        for case in fold:
            wanted = [c for c in combinations if case in external.get(c[0], (case,))]
            lacking = sorted(c for c in wanted if (case, *c) not in present)
            if lacking:
                what = "every row" if len(lacking) == len(wanted) else " / ".join(lacking[0])
                raise InputError(
                    f"{stage}/{k}/cases.csv: case {case} lacks {what}, which other cases have; "
                    f"{made_again(stage / str(k))}"
                )


def with_map(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is of a method that predicts an error map, (n,) bool."""
    return rows["error_dice"].notna().groupby(rows["method"]).transform("any")


def _refuse_empty(table: pd.DataFrame, columns: Sequence[str], stage: Path) -> None:
    for column in columns:
        empty = table[table[column].isna()]
        if len(empty):
            row = empty.iloc[0]
            raise InputError(
                f"{stage}/{row['fold']}/cases.csv: case {row['case']} ({row['mask_kind']}, {row['method']}) has no "
                f"{column}; retrain that fold"
            )


def _sorted(text: pd.DataFrame, dice: Sequence[str]) -> pd.DataFrame:
    """Rows by case, fold, mask kind, method; columns in the order of the contract."""
    labels = [f"{name}_{what}" for what in ("predicted", "corrected") for name in dice]
    first = [*CONTRACT_COLUMNS, *dice, *(name for name in labels if name in text)]
    kinds = in_order(text["mask_kind"].unique(), MASK_KINDS)
    methods = in_order(text["method"].unique(), METHOD_ORDER)
    order = pd.DataFrame(
        {
            "case": text["case"],
            "fold": text["fold"].astype(int),
            "mask_kind": text["mask_kind"].map(kinds.index),
            "method": text["method"].map(methods.index),
        }
    ).sort_values(["case", "fold", "mask_kind", "method"], kind="stable")
    columns = [*first, *(c for c in text.columns if c not in first)]
    return text.loc[order.index, columns].reset_index(drop=True)


def _numbers(text: pd.DataFrame, stage: Path) -> pd.DataFrame:
    """Text -> floats (fold: int) wherever a column is not a name; empty fields are NaN."""
    table = text.copy()
    for column in [c for c in text.columns if c not in TEXT_COLUMNS]:
        try:
            values = pd.Series([float(v or "nan") for v in text[column]], index=text.index)
        except ValueError as error:
            # Columns beyond the contract may hold words.
            if column.startswith(("dice_", "hd95_", *CONTRACT_COLUMNS[4:], *COUNT_COLUMNS, *CONSTANT_COLUMNS)):
                raise InputError(f"{stage}/*/cases.csv: column {column}: {error}; retrain that fold") from None
            continue
        if np.isinf(values).any():
            raise InputError(f"{stage}/*/cases.csv: column {column} holds an infinite value; retrain that fold")
        table[column] = values.astype(int) if column == "fold" else values
    return table


def view(judged: pd.DataFrame, masks: str) -> pd.DataFrame:
    """The rows of one part of a table: "all" mask kinds, or those of one kind or of one of `MADE_FAMILIES`.

    Adds `constant_*` columns that fit the part: the training mean of Acc over masks of the kind where only these are
    judged, over all kinds otherwise. The constant baseline's QI is that mean.
    """
    kinds = judged["mask_kind"].map(family) if masks in MADE_FAMILIES else judged["mask_kind"]
    rows = judged.copy() if masks == "all" else judged[kinds == masks].copy()
    for region in ("volume", "heart"):
        if masks != "all":
            rows[f"constant_{region}"] = rows[f"constant_{region}_kind"]
        constant = rows["method"] == "constant"
        rows.loc[constant, f"qi_{region}"] = rows.loc[constant, f"constant_{region}"]
    return rows

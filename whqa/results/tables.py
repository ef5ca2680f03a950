"""The case tables of all folds, read, checked and joined: nothing missing, nothing twice, nothing in a foreign fold."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whqa.errors import InputError
from whqa.masks.made_from import refuse_mixed_origins, runs_begun
from whqa.masks.plan import MASK_KINDS, family, is_delivered
from whqa.masks.run_state import COMPLETED, is_complete, made_again, refuse_damaged
from whqa.masks.store import read_index
from whqa.results.run_folds import folds_to_summarize
from whqa.results.text_table import TextTable, joined_text, read_text_table

TEXT_COLUMNS = ("case", "patient", "mask_kind", "method", "modality", "segmenter")
METHOD_ORDER = (
    "errormap",
    "constant",
    "boundary",
    "entropy",
    "opinion",
    "tta",
    "ensemble",
    "ensemble_by_doubt",
    "dice_regressor",
    "joint",
    "reverse",
)
ABLATIONS = ("mask_shuffled", "image_shuffled")
"""Methods that are the network itself with less to go by, see `whqa.callbacks.shuffled`: no rivals."""
KEY_COLUMNS = ("case", "fold", "mask_kind", "method", "segmenter")
"""What says which mask a row is of, and who judged it."""
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


def read_run(
    run_dir: Path,
    mixed: bool = False,
    columns: Collection[str] | None = None,
    segmenter_columns: Collection[str] | None = None,
) -> RunTables:
    """Read and check folds.json and the case tables of every fold below `run_dir`.

    Args:
        run_dir: runs/<experiment>.
        mixed: also where runs saw other data than each other.
        columns: of what was judged, these and `KEY_COLUMNS` alone, to be read and to be checked; None for all.
        segmenter_columns: the same of the segmenters' tables.

    Raises:
        InputError: a fold is missing or unfinished, a case is judged twice, missing or in a foreign fold, the folds
            differ in methods or mask kinds, or a table does not hold what it must.
    """
    folds = folds_to_summarize(run_dir)
    refuse_damaged(runs_begun(run_dir))
    n_folds = len(folds["folds"])

    of_errormap = _read_tables(run_dir / "errormap", n_folds, columns)
    stages = _stages(of_errormap.values())
    _refuse_missing(run_dir, stages, n_folds)
    _refuse_surplus(run_dir / "errormap", n_folds)
    if not mixed:
        refuse_mixed_origins(run_dir, folds["folds"])
    structures = folds["cohort"]["structures"]
    dice = [f"dice_{key}" for key in structures]
    needed = [*CONTRACT_COLUMNS, *dice, *COUNT_COLUMNS, *CONSTANT_COLUMNS]
    text = _join(run_dir / "errormap", of_errormap, folds, needed, ("case", "mask_kind", "method"))
    text = _sorted(text, dice)
    judged = _numbers(text, run_dir / "errormap")
    _refuse_empty(judged, [*CONTRACT_COLUMNS[6:], "error_voxels", *CONSTANT_COLUMNS], run_dir / "errormap")
    if columns is None:
        _refuse_empty(judged[with_map(judged)], MAP_COLUMNS, run_dir / "errormap")
    judged["patient"] = judged["case"].map(folds["patients"])
    needed = ["case", "fold", "mask_kind", *dice]
    if "segmenter" not in stages:
        return RunTables(judged, text, pd.DataFrame(columns=[*needed, "patient"]), folds)
    of_segmenter = _read_tables(run_dir / "segmenter", n_folds, segmenter_columns)
    joined = _join(run_dir / "segmenter", of_segmenter, folds, needed, ("case", "mask_kind"))
    segmented = _numbers(joined, run_dir / "segmenter")
    segmented["patient"] = segmented["case"].map(folds["patients"])
    return RunTables(judged, text, segmented, folds)


def _stages(of_errormap: Iterable[TextTable]) -> tuple[str, ...]:
    """Both stages, or the second alone where only masks of other programs, and those made of them, were judged."""
    makers: dict[str, set[str]] = {}
    for table in of_errormap:
        kinds, names = (table.columns.get(name) or ["None"] * table.n for name in ("mask_kind", "segmenter"))
        for kind, name in set(zip(kinds, names, strict=True)):
            makers.setdefault(kind, set()).add(name)
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


def _join(
    stage: Path, tables: Mapping[int, TextTable], folds: dict[str, Any], needed: Sequence[str], key: tuple[str, ...]
) -> pd.DataFrame:
    """Tables of all folds below `stage` as text, after the checks."""
    foreign_allowed = stage.name == "segmenter" and folds["plan"] == "in_sample"
    for k, table in tables.items():
        if lacking := [column for column in needed if column not in table.header]:
            path = stage / str(k) / "cases.csv"
            raise InputError(f"{path}: lacks column(s) {', '.join(lacking)}; {made_again(path.parent)}")
    # In-sample segmenters also write rows of the cases that they were trained on; only unseen ones count.
    known = {k: table.where("fold", str(k)) if foreign_allowed else table for k, table in tables.items()}
    joined = joined_text(known.values())
    directories = [str(k) for k, table in known.items() for _ in range(table.n)]
    _refuse_twice(stage, joined, directories, key)
    _refuse_foreign(stage, joined, directories, folds)
    _refuse_holes(stage, joined, folds, key, _external_cases(stage))
    return joined


def _read_tables(stage: Path, n_folds: int, columns: Collection[str] | None) -> dict[int, TextTable]:
    def wanted(name: str) -> bool:
        return columns is None or name in KEY_COLUMNS or name in columns

    paths = {k: stage / str(k) / "cases.csv" for k in range(n_folds)}
    known = {k: path for k, path in paths.items() if path.is_file()}
    return {k: read_text_table(path, "CSV", made_again(path.parent), wanted) for k, path in known.items()}


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[column].tolist() for column in columns), strict=True))


def _refuse_twice(stage: Path, table: pd.DataFrame, directories: Sequence[str], key: tuple[str, ...]) -> None:
    rows = _rows(table, key)
    if len(set(rows)) == len(rows):
        return
    times = Counter(rows)
    first = next(row for row in rows if times[row] > 1)
    where = " and ".join(f"fold {name}" for row, name in zip(rows, directories, strict=True) if row == first)
    what = ", ".join(f"{column} {value}" for column, value in zip(key[1:], first[1:], strict=True))
    raise InputError(
        f"{stage}: case {first[0]} ({what}) is judged twice, in {where}; "
        f"remove the one that does not belong there and run the same `whqa cv ...` again"
    )


def _refuse_foreign(stage: Path, table: pd.DataFrame, directories: Sequence[str], folds: dict[str, Any]) -> None:
    home = {case: str(k) for k, fold in enumerate(folds["folds"]) for case in fold}
    for case, fold, directory in dict.fromkeys(
        zip(table["case"].tolist(), table["fold"].tolist(), directories, strict=True)
    ):
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
    combinations = set(_rows(table, rest))
    if not any(is_delivered(kind) for kind, *_ in combinations):
        raise InputError(f"{stage}: no row has mask_kind final; retrain with the final masks")
    present = set(_rows(table, key))
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
    for column in filter(table.columns.__contains__, columns):
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
    first = [name for name in (*CONTRACT_COLUMNS, *dice, *labels) if name in text]
    kinds, methods = (
        {name: i for i, name in enumerate(in_order(set(text[column]), order))}
        for column, order in (("mask_kind", MASK_KINDS), ("method", METHOD_ORDER))
    )
    keys = [
        (case, int(fold), kinds[kind], methods[method])
        for case, fold, kind, method in _rows(text, ["case", "fold", "mask_kind", "method"])
    ]
    columns = [*first, *(c for c in text.columns if c not in first)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return text[columns].take(order).reset_index(drop=True)


def _numbers(text: pd.DataFrame, stage: Path) -> pd.DataFrame:
    """Text -> floats (fold: int) wherever a column is not a name; empty fields are NaN."""
    table = {column: text[column] for column in text}
    for column in [c for c in text.columns if c not in TEXT_COLUMNS]:
        try:
            values = np.array([float(v or "nan") for v in text[column].tolist()])
        except ValueError as error:
            # Columns beyond the contract may hold words.
            if column.startswith(("dice_", "hd95_", *CONTRACT_COLUMNS[4:], *COUNT_COLUMNS, *CONSTANT_COLUMNS)):
                raise InputError(f"{stage}/*/cases.csv: column {column}: {error}; retrain that fold") from None
            continue
        if np.isinf(values).any():
            raise InputError(f"{stage}/*/cases.csv: column {column} holds an infinite value; retrain that fold")
        table[column] = pd.Series(values.astype(int) if column == "fold" else values, index=text.index)
    return pd.DataFrame(table)


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

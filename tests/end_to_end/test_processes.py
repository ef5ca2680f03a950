"""Several runs in one process, and one run in several processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]
Read = Callable[[Path], list[dict[str, str]]]


def test_a_sweep_makes_the_directories_that_single_runs_make(
    phantoms: Path, segmented: Path, tmp_path: Path, train: Train, tiny: Tiny, rows_of: Read
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    assert train("-m", *tiny(tmp_path), "stage=segmenter", "fold=0,1") == 0
    for fold in "01":
        swept, single = (root / "runs" / "tiny" / "segmenter" / fold for root in (tmp_path, segmented))
        assert (swept / "COMPLETED").exists()
        assert rows_of(swept / "cases.csv") == rows_of(single / "cases.csv")
        assert rows_of(swept / "metrics.csv") == rows_of(single / "metrics.csv")
    assert not (tmp_path / "runs" / "tiny" / "segmenter" / "2").exists()
    assert {p.name for p in (tmp_path / "runs").iterdir()} <= {"tiny", ".cache", ".sweeps"}


def test_two_processes_judge_as_one_does(judged: Path, tmp_path: Path, tiny: Tiny, rows_of: Read) -> None:
    """An odd number of masks on two processes: Lightning's sampler judges one of them twice, which must not count."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    folds = json.loads((tmp_path / "runs" / "tiny" / "folds.json").read_text())["folds"]
    # one mask of one case is left out, so that an odd number is judged
    table = tmp_path / "runs" / "tiny" / "segmenter" / "0" / "cases.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(x for x in lines if not (x.startswith(folds[0][0]) and ",side1," in x)))
    (table.parent / "COMPLETED").write_text("")
    before = [r for r in rows_of(run_dir / "cases.csv") if (r["case"], r["mask_kind"]) != (folds[0][0], "side1")]
    assert len({(r["case"], r["mask_kind"]) for r in before}) % 2 == 1
    known = rows_of(run_dir / "features.csv")
    assert [(r["case"], r["mask_kind"]) for r in known] == [(c, k) for k in ("final", "reference") for c in folds[0]]
    for name in ("cases.csv", "features.csv"):
        (run_dir / name).unlink()
    words = ["trainer=ddp_sim", "stage=errormap", "fold=0", "fit=false"]
    done = subprocess.run(
        [sys.executable, "-m", "whqa.train", *tiny(tmp_path), *words],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rows_of(run_dir / "features.csv") == known
    after = rows_of(run_dir / "cases.csv")
    assert [_key(r) for r in after] == [_key(r) for r in before]
    for one, two in zip(before, after, strict=True):
        for column in one.keys() - {"seconds"}:
            assert one[column] == two[column] or float(two[column]) == pytest.approx(float(one[column]), rel=1e-5)


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[k] for k in ("case", "fold", "mask_kind", "method", "patient", "segmenter"))

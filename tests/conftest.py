"""A study so small that a stage takes a second or two, run once a session through the real entry point."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples everywhere, and no verdict on the speed of a busy machine.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

Train = Callable[..., int]

# 32-true: the same numbers on CPUs with and without bf16.
TINY = (
    "experiment=demo",
    "name=tiny",
    "masks=out_of_fold",
    "data.n=6",
    "data.spacing_mm=6",
    "preprocess.spacing=[8,8,8]",
    "network.width=4",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "+trainer.enable_progress_bar=false",
    "segmenter.early=0.5",
    "segmenter.validation_fraction=0.3",
    "errormap.overlays=1",
    *(
        f"{stage}.{setting}"
        for stage in ("segmenter", "errormap")
        for setting in (
            "learning_rate=0.02",
            "steps=24",
            "steps_per_epoch=12",
            "patch=[16,16,16]",
            "validate_every=1",
            "batch_size=2",
        )
    ),
)


@pytest.fixture(autouse=True)
def hearing() -> Iterator[None]:
    """An interrupted command ignores Ctrl-C from then on, as does Lightning; whoever runs the tests shall not."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


RUN_KINDS = ("final", "side1", "side2", "side3", "side4", "early")
RUN_METHODS = ("errormap", "constant", "boundary", "entropy")
RUN_STRUCTURES = ("lv", "rv", "myo")


@pytest.fixture(scope="session")
def dicom_files() -> ModuleType:
    """What writes DICOM files, `tests/dicom_files.py`; skips where the extra is not installed."""
    pytest.importorskip("highdicom", reason="the extra whqa[dicom] is not installed")
    spec = spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B writes to disk alone, whatever the environment says, and has ended its run when the test ends."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_API_KEY", "WANDB_DIR", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.finish()


@pytest.fixture(scope="session")
def offline_run() -> Callable[[Path], Any]:
    """Reads the file of an offline run of W&B, see `tests/offline_runs.py`."""
    pytest.importorskip("wandb")
    return runpy.run_path(str(Path(__file__).with_name("offline_runs.py")))["offline_run"]


@pytest.fixture(scope="session")
def train() -> Train:
    """`whqa train ...` in this process; returns its exit code."""
    import whqa.train

    def run(*overrides: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["whqa train", *overrides])
            patch.setenv("HYDRA_FULL_ERROR", "1")
            try:
                whqa.train.main()
            except SystemExit as end:
                return int(end.code or 0)
            finally:
                # the trainer sets it for the whole process
                torch.use_deterministic_algorithms(False)
        return 0

    return run


@pytest.fixture(scope="session")
def tiny() -> Callable[[Path], list[str]]:
    """Overrides of the tiny study below a folder."""
    return lambda root: [*TINY, f"runs_dir={root / 'runs'}", f"data_dir={root / 'data'}"]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data/ holds the tiny study's phantoms; not to be changed."""
    from whqa.data.phantom import write_phantoms

    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root / "data" / "phantom-ct-6-6mm-seed0", 6, "ct", 0, 6)
    return root


@pytest.fixture(scope="session")
def mixed_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two CT and two MR phantoms; not to be changed."""
    from whqa.data.phantom import write_phantoms

    root = tmp_path_factory.mktemp("mixed_phantoms")
    write_phantoms(root, 4, "both", 5, 6)
    return root


@pytest.fixture(scope="session")
def segmented(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Path, train: Train, tiny: Callable[[Path], list[str]]
) -> Path:
    """The tiny study with its three segmenters complete; not to be changed."""
    root = tmp_path_factory.mktemp("segmented")
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    for fold in range(3):
        assert train(*tiny(root), "stage=segmenter", f"fold={fold}") == 0
    return root


@pytest.fixture(scope="session")
def judged(
    tmp_path_factory: pytest.TempPathFactory, segmented: Path, train: Train, tiny: Callable[[Path], list[str]]
) -> Path:
    """The same with the error-map network of fold 0 as well; not to be changed."""
    root = tmp_path_factory.mktemp("judged")
    shutil.copytree(segmented, root, dirs_exist_ok=True)
    assert train(*tiny(root), "stage=errormap", "fold=0") == 0
    return root


@pytest.fixture(scope="session")
def study(
    tmp_path_factory: pytest.TempPathFactory, judged: Path, train: Train, tiny: Callable[[Path], list[str]]
) -> Path:
    """The tiny study with all folds of both stages; not to be changed."""
    root = tmp_path_factory.mktemp("study")
    shutil.copytree(judged, root, dirs_exist_ok=True)
    for fold in (1, 2):
        assert train(*tiny(root), "stage=errormap", f"fold={fold}") == 0
    return root


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    """Reads a CSV file."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


def _write_run(
    run: Path,
    n_cases: int = 12,
    n_folds: int = 3,
    kinds=RUN_KINDS,
    hostile: str = "",
    labels: bool = False,
    regressor: bool = False,
) -> Path:
    """A finished run: two cases of patient p0, structured random numbers, no network involved.

    `regressor` adds rows of a method without an error map.
    """
    rng = np.random.default_rng(3)
    cases = [f"{1001 + i}" for i in range(n_cases)]
    if hostile:
        cases[4] = hostile
    patients = {case: f"p{max(0, i - 1)}" for i, case in enumerate(cases)}
    # patient p0 is cases 0 and 1, so both belong to fold 0
    folds = [[c for i, c in enumerate(cases) if max(0, i - 1) % n_folds == k] for k in range(n_folds)]
    (run / "errormap").mkdir(parents=True)
    cohort = {"name": "phantom", "structures": list(RUN_STRUCTURES), "cases": n_cases}
    modalities = dict.fromkeys(cases, "ct")
    content = {"cohort": cohort, "plan": "nested", "seed": 0, "patients": patients, "modalities": modalities}
    (run / "folds.json").write_text(json.dumps(content | {"folds": folds}))
    made_from = {c: {"fold": k, "image": f"{c}i", "label": f"{c}l"} for k, fold in enumerate(folds) for c in fold}
    for k, fold in enumerate(folds):
        judged, segmented = [], []
        for case in fold:
            for kind in kinds:
                quality = (0.97 if kind == "final" else 0.9) - 0.1 * rng.random()
                dice = {f"dice_{key}": float(np.clip(quality - 0.35 * rng.random(), 0, 1)) for key in RUN_STRUCTURES}
                hd95 = {f"hd95_{key}": 10 * rng.random() if kind == "final" else "" for key in RUN_STRUCTURES}
                segmented.append({"case": case, "patient": patients[case], "fold": k, "mask_kind": kind} | dice | hd95)
                judged += [_run_row(rng, case, k, kind, m, quality, dice) for m in RUN_METHODS]
        if regressor:
            judged += [_without_map(row) for row in judged if row["method"] == "boundary"]
        if labels:
            judged = [_with_labels(i, row) for i, row in enumerate(judged)]
        for stage, rows in (("errormap", judged), ("segmenter", segmented)):
            directory = run / stage / str(k)
            directory.mkdir(parents=True)
            shuffled = pd.DataFrame(rows).sample(frac=1, random_state=k)
            shuffled.to_csv(directory / "cases.csv", index=False, lineterminator="\r\n")
            masks = {str(k): {f"{case}/{kind}": f"{case} {kind}" for case in fold for kind in kinds}}
            origin = {"cases": made_from, "masks": masks if stage == "errormap" else {}}
            (directory / "made_from.json").write_text(json.dumps(origin))
            (directory / "COMPLETED").touch()
    pair = run / "segmenter" / "0-1"
    pair.mkdir()
    (pair / "cases.csv").write_text("case\n")
    return run


def _run_row(rng, case, fold, kind, method, quality, dice):
    acc, noise = 0.9 + 0.1 * quality, {"errormap": 0.002, "boundary": 0.01, "entropy": 0.005, "constant": 0.0}[method]
    true, predicted = int(rng.integers(500, 900)), int(rng.integers(400, 1000))
    constant, constant_kind = 0.981 + fold / 1000, 0.99 + fold / 1000
    return {
        "case": case,
        "fold": fold,
        "mask_kind": kind,
        "method": method,
        "error_dice": rng.random(),
        "error_auprc": rng.random() if rng.random() > 0.1 else "",
        "acc_volume": acc,
        "qi_volume": constant if method == "constant" else acc + (0.02 if not case.isdigit() else noise * rng.normal()),
        "acc_heart": quality,
        "qi_heart": constant - 0.1 if method == "constant" else quality + 5 * noise * rng.standard_normal(),
        **dice,
        "patient": "ignored",
        "modality": "ct",
        "qi_soft_volume": acc + noise * rng.standard_normal(),
        "qi_soft_heart": quality + noise * rng.standard_normal(),
        "voxels": 20_000,
        "error_voxels": true,
        "predicted_voxels": predicted,
        "hit_voxels": int(rng.integers(0, min(true, predicted))),
        "true_places": true % 4,
        "found_places": predicted % (true % 4 + 1),
        "false_places": predicted % 3,
        **_sizes(true),
        "constant_volume": constant,
        "constant_heart": constant - 0.1,
        "constant_volume_kind": constant_kind,
        "constant_heart_kind": constant_kind - 0.1,
        "seconds": rng.random(),
        "segmenter": str(fold),
    }


def _sizes(true: int) -> dict[str, int]:
    """Most wrong voxels are thin, some masks lack a structure."""
    voxels = {"blob": true // 3, "missing": 100 * (true % 2)}
    voxels["thin"] = true - sum(voxels.values())
    row = {}
    for size in voxels:
        places = voxels[size] % 4
        row |= {f"{size}_voxels": voxels[size], f"{size}_hit_voxels": voxels[size] // 2}
        row |= {f"{size}_places": places, f"found_{size}_places": places // 2}
    return row


def _without_map(row: dict) -> dict:
    """The row of a method that regresses quality."""
    unknown = (
        *("error_dice", "error_auprc", "qi_soft_volume", "qi_soft_heart", "predicted_voxels", "hit_voxels"),
        *("true_places", "found_places", "false_places", *_sizes(0)),
    )
    return row | dict.fromkeys(unknown, "") | {"method": "dice_regressor"}


def _with_labels(seed: int, row: dict) -> dict:
    """What tables of a label head have besides."""
    rng = np.random.default_rng(seed)
    own, regressed = row["method"] == "errormap", row["method"] == "dice_regressor"
    row = row | {f"error_dice_{key}": "" if regressed else rng.random() for key in RUN_STRUCTURES}
    for key in RUN_STRUCTURES:
        dice = row[f"dice_{key}"]
        predicted = float(np.clip(dice + 0.05 * rng.normal(), 0, 1))
        row[f"dice_{key}_predicted"] = predicted if own or regressed else ""
        row[f"dice_{key}_corrected"] = float(np.clip(dice + 0.05 + 0.05 * rng.normal(), 0, 1)) if own else ""
    return row


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Makes a finished run of random numbers; see `_write_run`."""
    return _write_run


@pytest.fixture(scope="session")
def unlike_contract() -> Callable[[Any, str], list[str]]:
    """(content of a file, name of a schema in `whqa.contract`) -> where and why the content breaks the contract."""
    import jsonschema

    def check(content: Any, schema: str) -> list[str]:
        known = json.loads((files("whqa.contract") / schema).read_text(encoding="utf-8"))
        # through JSON, as whoever reads the file gets it
        found = jsonschema.Draft202012Validator(known).iter_errors(json.loads(json.dumps(content)))
        return [f"{error.json_path}: {error.message}" for error in found]

    return check


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Summaries without pictures: drawing is tested with the page, elsewhere it only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whqa.report.style.png", lambda *_, **__: b"")
        yield

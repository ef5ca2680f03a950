"""W&B without a network: what reaches a run, what lies in an offline run's file, and what happens without wandb."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from whqa.callbacks.mirror import within_run
from whqa.callbacks.tracking import TrackRun, fixed_items
from whqa.callbacks.wandb_run import finished_run, run_id, wandb_logger
from whqa.cli.commands import main
from whqa.config.words import compose_config
from whqa.errors import InputError
from whqa.modules.errormap import RawVerdict
from whqa.quality import ErrorPrediction
from whqa.stages import from_config
from whqa.structures import ACDC

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_wandb")
SHAPE = (6, 5, 4)


class FakeRun:
    """Remembers what is logged."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def keys(self) -> list[set[str]]:
        return [set(entry) - {"trainer/global_step"} for entry in self.logged]


def fake_trainer(run: FakeRun, **items: list[tuple[str, str]]) -> Any:
    stepped = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7))
    return SimpleNamespace(
        loggers=[WandbLogger(experiment=run)],
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        is_global_zero=True,
        datamodule=SimpleNamespace(**items),
        fit_loop=stepped,
    )


def volume(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (1, *SHAPE)))


def batch(index: int, case: str, kind: str = "") -> dict[str, Any]:
    image = torch.from_numpy(np.random.default_rng(index).random((1, 1, *SHAPE), dtype=np.float32))
    found = {"image": image, "label": volume(index), "spacing": torch.tensor([[1.0, 1.0, 1.0]])}
    if kind:
        found["mask"] = volume(100 + index)
    return found | {"index": torch.tensor([index]), "case": [case], "kind": [kind]}


def pixels(layer: Any) -> np.ndarray:
    return np.asarray(layer._val["mask_data"])


# ids and settings


def test_an_id_follows_from_the_run_and_nothing_else() -> None:
    assert run_id("demo", "segmenter", "0-1") == run_id("demo", "segmenter", "0-1")
    names = [
        ("demo", "segmenter", "0"),
        ("demo", "segmenter", "1"),
        ("demo", "errormap", "0"),
        ("d=1", "segmenter", "0"),
    ]
    names += [
        ("d_1", "segmenter", "0"),
        ("d,1", "segmenter", "0"),
        ("x" * 300, "segmenter", "0"),
        ("x" * 301, "a", "0"),
    ]
    ids = [run_id(*name) for name in names]
    assert len(set(ids)) == len(names)
    assert max(map(len, ids)) <= 64
    for one in ids:
        assert wandb.Settings(run_id=one).run_id == one
        assert "/" not in one


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"WANDB_MODE.*offline, online"):
        wandb_logger(tmp_path / "demo" / "segmenter" / "0", "segmenter", mode="offlin")


# several jobs in one process


def job(root: Path, fold: int) -> tuple[DictConfig, Path]:
    words = ["experiment=demo", "logger=wandb", f"runs_dir={root}", f"fold={fold}", "stage=segmenter"]
    return compose_config([*words, "+logger.wandb.tags=[tiny]"]), root / "demo" / "segmenter" / str(fold)


def test_every_job_of_a_process_has_its_own_run_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_run: Callable[[Path], Any]
) -> None:
    def made(cfg: Any, study: Any, run_dir: Path) -> Any:
        return SimpleNamespace(directory=run_dir, module=SimpleNamespace(total_steps=0))

    def work(run: Any, fit: bool) -> None:
        run_dir = run.directory
        logger = wandb_logger(str(run_dir), "segmenter", mode="offline", tags=["tiny"])
        logger.log_metrics({"number": 10 + int(run_dir.name)}, step=3)
        if run_dir.name == "1":
            raise ValueError("the job fails")

    monkeypatch.setattr(from_config, "make_study", lambda cfg, directory: SimpleNamespace(made_from={}))
    monkeypatch.setattr(from_config, "masks_now", lambda study, imported: {})
    monkeypatch.setattr(from_config, "make_segmenter", made)
    monkeypatch.setattr(from_config, "run_segmenter", work)
    from_config.run_stage(*job(tmp_path, 0))
    assert wandb.run is None
    with pytest.raises(ValueError, match="the job fails"):
        from_config.run_stage(*job(tmp_path, 1))
    assert wandb.run is None
    for fold, code in ((0, 0), (1, 1)):
        found = offline_run(tmp_path / "demo" / "segmenter" / str(fold))
        assert found.begun.run_group == "demo"
        assert found.begun.job_type == "segmenter"
        assert found.begun.display_name == f"segmenter/{fold}"
        assert found.begun.run_id == run_id("demo", "segmenter", str(fold))
        assert found.begun.project == "whqa"
        assert list(found.begun.tags) == ["tiny"]
        assert found.config["segmenter"]["steps"] == job(tmp_path, fold)[0].segmenter.steps
        assert [row["number"] for row in found.rows] == [10 + fold]
        assert found.ends == [code]


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "demo" / "segmenter" / "0"
    with finished_run():
        wandb_logger(run_dir, "segmenter", mode="disabled").log_metrics({"number": 1.0}, step=1)
    assert not any(p for p in run_dir.rglob("*") if p.is_file())


# pictures and tables


def test_the_same_cases_under_the_same_keys_every_epoch() -> None:
    run, callback = FakeRun(), TrackRun(Path("nowhere"), ACDC, n=2)
    items = [("a", ""), ("b", ""), ("c", "")]
    trainer: Any = fake_trainer(run, val_items=items)
    for epoch in range(2):
        for index, (case, _) in enumerate(items):
            outputs = {"final": (volume(50 + 10 * epoch + index)[0].to(torch.uint8), None)}
            callback.on_validation_batch_end(trainer, pl.LightningModule(), outputs, batch(index, case), index)
        callback.on_validation_epoch_end(trainer, pl.LightningModule())
    assert run.keys() == [{"val/overlay/1", "val/overlay/2"}] * 2
    assert [entry["trainer/global_step"] for entry in run.logged] == [7, 7]
    first, second = (entry["val/overlay/1"] for entry in run.logged)
    assert first._caption == second._caption == "a, final mask"
    np.testing.assert_array_equal(np.asarray(first._image), np.asarray(second._image))
    np.testing.assert_array_equal(pixels(first._masks["reference"]), pixels(second._masks["reference"]))
    assert (pixels(first._masks["mask"]) != pixels(second._masks["mask"])).any()
    wrong = pixels(first._masks["mask"]) != pixels(first._masks["reference"])
    np.testing.assert_array_equal(pixels(first._masks["true error"]), wrong * 4)
    assert set(first._masks) == {"mask", "reference", "true error"}
    assert first._masks["mask"]._val["class_labels"] == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    assert first._masks["true error"]._val["class_labels"] == {4: "true error"}


def test_pictures_show_three_planes_through_one_voxel_the_right_way_round() -> None:
    from whqa.report.shown import side_by_side

    layer = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    at = (4, 1, 2)
    grey, flat = side_by_side(layer, {"numbers": layer}, at, (1.0, 1.0, 2.0))
    axial = layer[:, :, 2].T[::-1, ::-1]
    coronal = np.repeat(layer[:, 1, :].T[::-1, ::-1], 2, axis=0)
    sagittal = np.repeat(layer[4].T[::-1], 2, axis=0)
    assert grey.shape == flat["numbers"].shape == (8, 6 + 6 + 5)
    np.testing.assert_array_equal(flat["numbers"][:5, :6], axial)
    np.testing.assert_array_equal(flat["numbers"][:, 6:12], coronal)
    np.testing.assert_array_equal(flat["numbers"][:, 12:], sagittal)
    assert not flat["numbers"][5:, :6].any()
    assert grey.dtype == np.uint8


def test_stage_two_shows_the_predicted_error_in_validation_and_test() -> None:
    run, callback = FakeRun(), TrackRun(Path("nowhere"), ACDC, n=3)
    items = [("a", "side1"), ("a", "final"), ("b", "side1"), ("b", "final")]
    trainer: Any = fake_trainer(run, val_items=items, test_items=items)
    module = pl.LightningModule()
    for index, item in enumerate(items):
        logit = volume(70 + index)[0].float() - 1.5
        callback.on_validation_batch_end(trainer, module, RawVerdict(logit, None), batch(index, *item), index)
    callback.on_validation_epoch_end(trainer, module)
    trainer.state.fn = TrainerFn.VALIDATING
    raw = RawVerdict(volume(70)[0].float(), None)
    callback.on_validation_batch_end(trainer, module, raw, batch(1, *items[1]), 0)
    callback.on_validation_epoch_end(trainer, module)
    for index, item in enumerate(items):
        logit = volume(70 + index)[0].float() - 1.5
        callback.on_test_batch_end(trainer, module, ErrorPrediction(logit.sigmoid(), logit > 0), batch(index, *item), 0)
    callback.on_test_epoch_end(trainer, module)
    assert run.keys() == [{"val/overlay/1", "val/overlay/2"}, {"test/overlay/1", "test/overlay/2"}]
    shown, tested = run.logged[0]["val/overlay/2"], run.logged[1]["test/overlay/2"]
    assert shown._caption == "b, final mask"
    assert set(shown._masks) == {"mask", "reference", "true error", "predicted error"}
    for name in shown._masks:
        np.testing.assert_array_equal(pixels(shown._masks[name]), pixels(tested._masks[name]))
    assert set(np.unique(pixels(shown._masks["predicted error"]))) == {0, 5}


def test_final_masks_are_shown_where_there_are_any() -> None:
    assert fixed_items([("a", "side1"), ("a", "final"), ("b", "final"), ("b", "early"), ("c", "final")], 2) == [1, 2]
    assert fixed_items([("a", "side1"), ("a", "early")], 2) == [0]
    assert fixed_items([], 3) == []


def test_a_wandb_logger_is_the_only_reason_to_do_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    trainer: Any = fake_trainer(FakeRun(), val_items=[("a", "")], test_items=[("a", "")])
    trainer.loggers = []
    callback = TrackRun(tmp_path, ACDC)
    callback.on_validation_batch_end(trainer, pl.LightningModule(), None, batch(0, "a"), 0)
    callback.on_validation_epoch_end(trainer, pl.LightningModule())
    callback.on_test_end(trainer, pl.LightningModule())


def test_ranks_other_than_zero_log_nothing(tmp_path: Path) -> None:
    run = FakeRun()
    trainer: Any = fake_trainer(run, test_items=[("a", "")])
    trainer.is_global_zero = False
    callback = TrackRun(tmp_path, ACDC)
    outputs = {"final": (volume(1)[0], None)}
    callback.on_test_batch_end(trainer, pl.LightningModule(), outputs, batch(0, "a"), 0)
    callback.on_test_epoch_end(trainer, pl.LightningModule())
    callback.on_test_end(trainer, pl.LightningModule())
    assert run.logged == []


# end to end


def test_a_segmenter_shows_its_final_masks(
    tmp_path: Path,
    phantoms: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    offline_run: Callable[[Path], Any],
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), "stage=segmenter", "fold=0", "logger=wandb") == 0
    found = offline_run(tmp_path / "runs" / "tiny" / "segmenter" / "0")
    media = {key.removesuffix("/_type") for row in found.rows for key in row if key.endswith("/_type")}
    assert {"test/overlay/1", "test/cases"} <= media


def test_a_picture_that_cannot_be_made_costs_no_training(tmp_path: Path) -> None:
    run = FakeRun()
    trainer: Any = fake_trainer(run, test_items=[("a", "")])
    callback = TrackRun(tmp_path, ACDC)
    with within_run():
        with pytest.warns(UserWarning, match="W&B: 'final'; the run goes on"):
            callback.on_test_batch_end(trainer, pl.LightningModule(), {"another": None}, batch(0, "a"), 0)
        callback.on_test_epoch_end(trainer, pl.LightningModule())
    assert run.logged == []


def test_a_real_run_mirrors_its_csv_files(
    tmp_path: Path,
    segmented: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    rows_of: Callable[[Path], list[dict[str, str]]],
    offline_run: Callable[[Path], Any],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), "stage=errormap", "fold=0", "logger=wandb") == 0
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    found = offline_run(run_dir)
    assert found.begun.run_id == run_id("tiny", "errormap", "0")
    assert found.config["stage"] == "errormap"
    for row in rows_of(run_dir / "metrics.csv"):
        numbers = {k: float(v) for k, v in row.items() if v and k not in ("step", "epoch")}
        for key, value in numbers.items():
            mirrored = [r[key] for r in found.rows if key in r and r["trainer/global_step"] == int(row["step"])]
            assert mirrored
            assert mirrored[-1] == pytest.approx(value, rel=1e-6)
    media = {key.removesuffix("/_type") for row in found.rows for key in row if key.endswith("/_type")}
    assert {"test/overlay/1", "test/overlay/2", "test/cases", "test/qi_accuracy_volume"} <= media
    steps = {
        name: [r["trainer/global_step"] for r in found.rows if any(k.startswith(name) for k in r)]
        for name in ("val/overlay/1/", "val/error_dice")
    }
    # the last numbers are those of the calibration's two loops, which need no pictures
    assert steps["val/overlay/1/"] == sorted(set(steps["val/error_dice"]))[:-1]
    assert len(steps["val/overlay/1/"]) == 2
    (table,) = run_dir.glob("wandb/offline-run-*/files/media/table/test/cases_*.table.json")
    logged = json.loads(table.read_text())
    written = rows_of(run_dir / "cases.csv")
    assert logged["columns"] == list(written[0])
    assert len(logged["data"]) == len(written)
    for values, row in zip(logged["data"], written, strict=True):
        assert float(values[logged["columns"].index("qi_heart")]) == float(row["qi_heart"])
        assert values[logged["columns"].index("case")] == row["case"]


# without wandb


def test_without_wandb_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'whqa\[wandb\]'"):
        wandb_logger(tmp_path / "demo" / "segmenter" / "0", "segmenter")
    with pytest.raises(SystemExit) as end:
        main(["cv", "experiment=demo", "logger=wandb", f"runs_dir={tmp_path}", f"data_dir={tmp_path}"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("whqa cv: wandb is not installed; pip install 'whqa[wandb]'")
    assert list(tmp_path.iterdir()) == []


def test_nothing_imports_wandb_unasked() -> None:
    code = (
        "import sys, whqa.cli.commands, whqa.cv, whqa.stages.from_config, whqa.summarize, whqa.callbacks.wandb_run\n"
        "with whqa.callbacks.wandb_run.finished_run(): pass\n"
        "sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

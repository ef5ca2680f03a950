"""Bad input on the command line: exit code 2, one line that names the file and the cause, and nothing half-written."""

from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

import whqa.train
from whqa.config.words import compose_config
from whqa.errors import InputError
from whqa.process import locked
from whqa.results.validation_table import validated
from whqa.stages import from_config

CASE = "ct_train_1003"


@pytest.fixture
def own(tmp_path: Path, phantoms: Path) -> Path:
    """A copy of the phantoms that a test may spoil."""
    shutil.copytree(phantoms / "data" / "phantom-ct-6-6mm-seed0", tmp_path / "cases")
    return tmp_path


@pytest.fixture
def refused(
    own: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Runs a command that must be refused; returns its one line after checking that nothing lies around."""

    def run(*words: str) -> str:
        before = _files(own / "cases")
        settings = [w for w in tiny(own) if not w.startswith(("data.", "experiment="))]
        code = train(*settings, "folds=3", "data=mmwhs", f"data.root={own / 'cases'}", *words)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert err.startswith("whqa train: ")
        assert err.count("\n") == 1, err
        assert "done" not in out
        assert not list(own.rglob("COMPLETED"))
        assert not list(own.rglob(".*.*.*")), "a temporary file was left behind"
        assert _files(own / "cases") == before
        assert not list(own.rglob("*.ckpt"))
        return err

    return run


def _files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*")}


def _spoil(own: Path, part: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    path = own / "cases" / f"{CASE}_{part}.nii.gz"
    image = nib.load(path)
    array = change(np.asanyarray(image.dataobj).astype(np.float32))
    nib.save(nib.Nifti1Image(array, image.affine), path)
    return path


def test_a_data_folder_that_does_not_exist(refused: Callable[..., str]) -> None:
    assert "/no/such/folder: data folder does not exist" in refused("data.root=/no/such/folder")


def test_an_empty_data_folder(refused: Callable[..., str], own: Path) -> None:
    (own / "empty").mkdir()
    assert f"{own / 'empty'}" in refused(f"data.root={own / 'empty'}")


def test_a_data_folder_that_was_never_stated(refused: Callable[..., str]) -> None:
    assert "data.root" in refused("data=folder", "data.root=???")


def test_fewer_cases_than_folds(refused: Callable[..., str]) -> None:
    line = refused("folds=7")
    assert "6 labelled patient(s) are fewer than 7 folds" in line


def test_grids_that_differ(refused: Callable[..., str], own: Path) -> None:
    path = _spoil(own, "label", lambda a: a)
    label = nib.load(path)
    finer = label.affine @ np.diag([0.9, 0.9, 0.9, 1.0])
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj), finer), path)
    line = refused()
    assert str(path) in line
    assert f"{CASE}_image.nii.gz" in line


def test_an_image_with_nan(refused: Callable[..., str], own: Path) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[3, 3, 3] = np.nan
        return array

    path = _spoil(own, "image", spoil)
    line = refused()
    assert str(path) in line
    assert "NaN" in line or "nan" in line


def test_a_truncated_file(refused: Callable[..., str], own: Path) -> None:
    path = own / "cases" / f"{CASE}_image.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refused()


def test_a_truncated_volume_inside_a_sound_gzip(refused: Callable[..., str], own: Path) -> None:
    path = own / "cases" / f"{CASE}_image.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1000]))
    assert str(path) in refused()


@pytest.mark.parametrize(
    "word",
    [
        *("fold=7", "segmenter.steps=5", "network.strides=[[2,2]]", "network._target_=whqa.nowhere.Net"),
        *("trainer.precision=7", "trainer.devices=0", "trainer.accelerator=abacus", "errormap.baselines=[luck]"),
        *("network.width=0", "folds=1", "preprocess.ct_window=[400,-100]", "data.root=null", "masks.kinds=[]"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_scan_is_read(
    word: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(*args: object) -> None:
        raise AssertionError("scans are read")

    monkeypatch.setattr("whqa.stages.from_config.make_study", reading)
    line = refused(word)
    assert word.split("=")[0].split(".")[0] in line
    assert not line.rstrip().endswith(":"), "the cause is left out"
    assert line.count("\n") == 1


def test_an_unknown_label_value(refused: Callable[..., str], own: Path) -> None:
    path = _spoil(own, "label", lambda a: np.where(a == 500, 77, a))
    line = refused()
    assert str(path) in line
    assert "[77]" in line
    assert not list(own.rglob("folds.json")), "without the bad case the folds would be others"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["fold=3"], "fold=3: must be one of 0..2"),
        (["fold=x"], "fold=x"),
        (["fold=0-1"], "mask plan 'out_of_fold' has the segmenters 0, 1, 2"),
        (["stage=errormap", "fold=0-1"], "fold=0-1"),
        (["stage=errormap"], "needs the segmenters 0, 1, 2"),
        (["masks.plan=nestd"], "'nestd': must be one of out_of_fold, nested, in_sample"),
        (["masks=nested", "folds=2"], "'nested' needs at least 3 folds"),
        (["segmenter.steps=5"], "segmenter.steps=5 is not a multiple of segmenter.steps_per_epoch=12"),
        (["callbacks.checkpoint.every_n_epochs=5"], "every_n_epochs=5: the last of segmenter's"),
        (["segmenter.patch=[16,16]"], "patch=[16, 16]"),
        (["segmenter.patch=[0,16,16]"], "patch=[0, 16, 16]"),
        (["segmenter.batch_size=0"], "batch_size=0"),
        (["segmenter.validation_fraction=1.5"], "validation_fraction=1.5"),
        (["preprocess.centre=hart"], "preprocess.centre=hart: must be one of"),
        (["preprocess.spacing=[-1,1,1]"], "must be 3 numbers, each between"),
        (["data.modality=pet"], "pet"),
        (["data.modality=mr"], "mr"),
        (["network.width=many"], "network.width=many: must be a whole number"),
        (["network.strides=3"], "network.strides=3: must be a list"),
        (["network.strides=[[2,2]]"], "network.strides=[[2, 2]]: must be a list of triples"),
        (["+network.depht=3"], "depht"),
        (["+data.rute=3"], "rute"),
        (["trainer.precision=7"], "trainer.precision=7: must be one of 32-true, 32, bf16-mixed"),
        (["masks.kinds=[finl]", "stage=errormap"], "masks.kinds: no kind 'finl'"),
        (["fit=false"], "no such checkpoint"),
        (["fold=00"], "write fold=0"),
        (["masks=nested", "fold=1-0"], "write fold=0-1"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_settings_that_cannot_be(refused: Callable[..., str], words: list[str], cause: str) -> None:
    assert cause in refused(*words)


@pytest.mark.parametrize(
    ("key", "whole", "cut"),
    [
        ("limit_val_batches", [None, 1.0], [0, 1, 0.5]),
        ("overfit_batches", [None, 0, 0.0], [1, 0.5]),
        ("fast_dev_run", [None, False], [True, 2]),
        ("max_steps", [None, -1], [0, 5]),
        ("max_time", [None], ["00:00:10:00"]),
    ],
)
def test_which_settings_of_the_trainer_cut_a_run_short(key: str, whole: list[object], cut: list[object]) -> None:
    of_key = from_config.SHORTENING_KEYS[key]
    assert all(from_config._is_one_of(value, of_key) for value in whole)
    assert not any(from_config._is_one_of(value, of_key) for value in cut)


@pytest.mark.parametrize("words", [["fold=1-0"], ["fold=0-1"], ["stage=errormap", "fold=0-1"], ["fold=9"]])
def test_a_run_that_there_is_not_leaves_no_file(
    words: list[str], train: Callable[..., int], tiny: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    assert train(*tiny(tmp_path), *words) == 2
    # Hydra makes an empty folder
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def test_a_sweep_over_processes_is_refused_with_the_right_command(
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [w for w in tiny(tmp_path) if not w.startswith("trainer.precision")]
    assert train("-m", *words, "trainer=ddp_sim", "fold=0,1") == 2
    err = capsys.readouterr().err
    assert "torchrun --nproc-per-node=N -m whqa.train -m" in err
    assert "whqa cv" in err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(("devices", "refused"), [("2", True), ("[0,1]", True), ("[1]", False), ("1", False)])
def test_several_devices_are_several_processes(devices: str, refused: bool) -> None:
    config = compose_config(["trainer=gpu", f"trainer.devices={devices}"])
    with pytest.raises(InputError, match="torchrun") if refused else nullcontext():
        whqa.train.refuse_doubled_sweep(config, {"mode": whqa.train.RunMode.MULTIRUN})


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "3"}, False),
    ],
)
def test_one_process_of_a_run_locks_its_directory_whoever_started_them(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists() == first


@pytest.mark.parametrize(("rank", "written"), [("0", True), ("1", False)])
def test_a_further_process_writes_no_settings_that_the_first_has_yet_to_check(
    rank: str, written: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchrun starts them at once; Lightning, which starts them later, never shows this."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(from_config, "make_study", lambda *_: SimpleNamespace(made_from={}))
    made = SimpleNamespace(module=SimpleNamespace(total_steps=0))
    for name, found in (("masks_now", {}), ("make_segmenter", made), ("run_segmenter", None)):
        monkeypatch.setattr(from_config, name, lambda *_, found=found: found)
    words = ["experiment=demo", "stage=segmenter", f"runs_dir={tmp_path}"]
    from_config.run_stage(compose_config(words), tmp_path / "demo" / "segmenter" / "0")
    assert (tmp_path / "demo" / "segmenter" / "0" / "config.yaml").exists() == written


@pytest.mark.parametrize("launcher", ["TORCHELASTIC_RUN_ID", "SLURM_NTASKS"])
def test_a_sweep_over_processes_that_somebody_else_starts_is_allowed(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(launcher, "1")
    whqa.train.refuse_doubled_sweep(compose_config(["trainer=ddp_sim"]), {"mode": whqa.train.RunMode.MULTIRUN})


def test_the_directory_is_the_one_that_hydra_makes(tmp_path: Path) -> None:
    words = ["experiment=demo", "stage=errormap", "fold=2", "seed=3", f"runs_dir={tmp_path}"]
    expected = tmp_path / "demo,seed=3" / "errormap" / "2"
    assert whqa.train.run_dir_of(compose_config(words), words) == expected


def test_the_printed_configuration_is_whole(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("experiment=demo", "--cfg", "job") == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert printed.errormap.steps == compose_config(["experiment=demo"]).errormap.steps
    assert sys.argv[0] != "whqa train"
    assert not list(tmp_path.iterdir())


class Reported(Callback):
    """What Hydra hears of its jobs, as a sweeper does."""

    values: ClassVar[list[object]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        """Remember a job's result."""
        self.values.append(job_return.return_value)


@pytest.mark.parametrize(("stage", "figure"), [("segmenter", 0.75), ("errormap", 0.25)])
def test_a_sweeper_hears_of_held_back_training_cases_and_no_number_of_the_test(
    stage: str,
    figure: float,
    train: Callable[..., int],
    phantoms: Path,
    tiny: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "runs" / "sweep" / stage / "0"
    run_dir.mkdir(parents=True)
    (run_dir / "COMPLETED").touch()
    (run_dir / "cases.csv").write_text("case,error_dice,dice_lv,dice_rv\na,0.9,0.9,0.9\n")
    (run_dir / "validation.csv").write_text(
        "case,fold,mask_kind,patient,segmenter,error_dice,dice_lv,dice_rv\n"
        "b,1,final,b,1,0.125,0.5,1.0\nc,1,final,c,1,0.375,0.75,\n"
    )
    monkeypatch.setattr(Reported, "values", [])
    shutil.copytree(phantoms / "data", tmp_path / "data")
    words = [*tiny(tmp_path), "name=sweep", f"stage={stage}"]
    OmegaConf.save(compose_config(words), run_dir / "config.yaml", resolve=True)
    assert train(*words, f"+hydra.callbacks.reported._target_={__name__}.Reported") == 0
    assert Reported.values == [figure]


def test_without_validation_there_is_nothing_to_maximise(tmp_path: Path) -> None:
    assert validated([tmp_path / "segmenter" / "0"]) is None


@pytest.mark.parametrize("by_lightning", [False, True])
def test_ctrl_c_ends_a_run_with_130_and_one_line(
    by_lightning: bool,
    train: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def interrupted(*args: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if by_lightning:  # as its trainer does during a fit
                sys.exit(1)
            raise

    monkeypatch.setattr("whqa.stages.from_config.run_stage", interrupted)
    assert train("experiment=demo", f"runs_dir={tmp_path}") == 130
    assert capsys.readouterr().err == "whqa train: stopped; the same command continues from the last checkpoint\n"

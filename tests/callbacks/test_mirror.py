"""W&B is a mirror: whatever fails there, the run goes on, and one line says so."""

from __future__ import annotations

import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from pytorch_lightning.loggers import WandbLogger

from whqa.callbacks import mirror
from whqa.callbacks.mirror import usable_mode
from whqa.callbacks.summary_run import log_summary
from whqa.callbacks.wandb_run import finished_run, wandb_logger
from whqa.config.words import check_overrides
from whqa.errors import InputError

wandb = pytest.importorskip("wandb")
PLACES = ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
SERVER = "http://127.0.0.1:9"  # where nobody listens


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_PROJECT", "WANDB_API_KEY", "WANDB_DIR", *PLACES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.finish()


class Refusing:
    """Raises whatever is done with it."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(28, "No space left on device", f"/somewhere/{time.monotonic_ns()}")


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise wandb.Error("the server is on fire\nfor three reasons")


def settings_of_wandb(monkeypatch: pytest.MonkeyPatch, server: str = SERVER, key: str | None = "k" * 40) -> None:
    found = SimpleNamespace(base_url=server, api_key=key, identity_token_file=None)
    monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=found))


# failing at any moment


def test_a_training_ends_well_whatever_wandb_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    segmented: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patch:

        def init(**settings: Any) -> Refusing:
            begun = Refusing()
            patch.setattr(wandb, "run", begun)
            return begun

        patch.setattr(wandb, "run", None)
        for name in ("Image", "Table", "finish"):
            patch.setattr(wandb, name, refuse)
        # what the words are checked with
        patch.setattr("whqa.config.wandb_settings.options_of_init", lambda: ("project", "mode"))
        patch.setattr(wandb, "init", init)
        with pytest.warns(UserWarning, match="^W&B: ") as told:
            assert train(*tiny(tmp_path), "stage=errormap", "fold=0", "logger=wandb") == 0
    assert len([w for w in told if "W&B" in str(w.message)]) == 1
    run_dir = tmp_path / "runs" / "tiny" / "errormap" / "0"
    assert (run_dir / "COMPLETED").exists()
    assert (run_dir / "metrics.csv").read_text().count("\n") > 2


def log_everything(logger: WandbLogger) -> None:
    with finished_run():
        for step in range(3):
            logger.log_metrics({"number": 1.0}, step)
        logger.log_hyperparams({"a": 1})
        logger.finalize("success")


def test_a_run_that_cannot_begin_is_tried_offline_and_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def init(**settings: Any) -> Any:
        tried.append(settings["mode"])
        return refuse()

    monkeypatch.setattr(mirror, "usable_mode", lambda mode: mode)
    monkeypatch.setattr("whqa.callbacks.wandb_run.usable_mode", lambda mode: mode)
    logger = wandb_logger(tmp_path / "demo" / "segmenter" / "0", "segmenter", mode="online")
    monkeypatch.setattr(wandb, "init", init)
    with pytest.warns(UserWarning, match="W&B: the server is on fire; the run goes on") as told:
        log_everything(logger)
    assert tried == ["online", "offline"]
    assert len(told) == 1


def test_lightning_keeps_the_arguments_of_init_where_the_mirror_changes_the_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **settings: begun.append(settings))
    logger = WandbLogger(save_dir=str(tmp_path), mode="online")
    logger._wandb_init["mode"] = "offline"
    assert logger.experiment is None
    assert begun[0]["mode"] == "offline"


def test_the_summary_run_costs_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = {"cohort": {}, "plan": "nested", "environment": {}, "methods": {}, "segmentation": {}}
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.warns(UserWarning, match="W&B: the server is on fire") as told:
        log_summary(tmp_path, summary)
    assert len(told) == 1


# where it writes


def test_everything_of_wandb_lies_below_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, run_dir = tmp_path / "home", tmp_path / "demo" / "segmenter" / "0"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with finished_run():
        logger = wandb_logger(run_dir, "segmenter")
        assert Path(wandb.env.get_data_dir()).is_relative_to(run_dir)
        assert wandb.env.get_cache_dir().is_relative_to(run_dir)
        assert Path(wandb.env.get_artifact_dir()).is_relative_to(run_dir)
        logger.log_metrics({"table": wandb.Table(columns=["a"], data=[[1]])}, step=1)
    assert list(home.iterdir()) == []
    assert not set(PLACES) & set(os.environ)


def test_a_home_directory_that_is_none_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    run_dir = tmp_path / "demo" / "segmenter" / "0"
    with warnings.catch_warnings(), finished_run():
        warnings.simplefilter("error")
        logger = wandb_logger(run_dir, "segmenter")
        logger.log_metrics({"table": wandb.Table(columns=["a"], data=[[1]])}, step=1)
    assert list(run_dir.glob("wandb/offline-run-*/files/media/table/table_*.json"))


def test_places_that_the_environment_names_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "mine"))
    with finished_run():
        wandb_logger(tmp_path / "demo" / "segmenter" / "0", "segmenter")
        assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "mine")
    assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "mine")


# online


def test_without_a_key_the_run_goes_on_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_of_wandb(monkeypatch, key=None)
    with finished_run(), pytest.warns(UserWarning, match=r"W&B: no key for http.*wandb login.*offline"):
        assert usable_mode("online") == "offline"


def test_without_a_network_the_run_goes_on_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_of_wandb(monkeypatch)
    with finished_run(), pytest.warns(UserWarning, match=r"W&B: http.* does not answer; going on offline"):
        assert usable_mode("shared") == "offline"


def test_nobody_waits_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "REACH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings_of_wandb(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with finished_run(), pytest.warns(UserWarning, match="does not answer"):
            assert usable_mode("online") == "offline"


def test_an_answer_of_any_kind_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    settings_of_wandb(monkeypatch)
    monkeypatch.setattr(requests, "head", lambda url, timeout: SimpleNamespace(status_code=404))
    assert usable_mode("online") == "online"


def test_modes_without_a_server_ask_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "setup", refuse)
    assert [usable_mode(mode) for mode in ("offline", "disabled")] == ["offline", "disabled"]


# words


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "+logger.wandb.projct=x",
            "no key 'logger.wandb.projct' in the configuration; did you mean 'logger.wandb.project'?",
        ),
        ("+logger.wandb.zzz=x", "wandb.init takes no such argument"),
        ("+logger.wandb.id=x", "whqa sets it itself"),
        ("logger.wandb.mode=offlin", "must be one of offline, online"),
    ],
)
def test_a_wrong_word_ends_before_anything_starts(word: str, said: str) -> None:
    with pytest.raises(InputError) as told:
        check_overrides(["experiment=demo", "logger=wandb", word])
    assert said in str(told.value)


def test_right_words_pass() -> None:
    check_overrides(
        ["logger=wandb", "+logger.wandb.entity=lab", "+logger.wandb.tags=[a]", "+logger.wandb.log_model=true"]
    )


# the experiment's settings


def test_the_summary_run_has_the_settings_of_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}

    def init(**settings: Any) -> Any:
        begun.update(settings)
        return refuse()

    monkeypatch.setattr(wandb, "init", init)
    config = {"stage": "errormap", "fold": "0", "runs_dir": "/x", "errormap": {"learning_rate": 0.25}, "seed": 3}
    config |= {"data": {"n": 6}, "preprocess": {"centre": "heart"}, "network": {"width": 4}}
    (tmp_path / "errormap" / "0").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), tmp_path / "errormap" / "0" / "config.yaml")
    summary = {"cohort": {"name": "c"}, "plan": "nested", "environment": {}, "methods": {}, "segmentation": {}}
    with pytest.warns(UserWarning, match="W&B"):
        log_summary(tmp_path, summary)
    assert begun["config"]["errormap"] == {"learning_rate": 0.25}
    assert begun["config"]["seed"] == 3
    assert begun["config"]["plan"] == "nested"
    assert not {"stage", "fold", "runs_dir"} & begun["config"].keys()

"""Mistyped words end at once with one line that names the nearest right one."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
import pytorch_lightning
from omegaconf import DictConfig

from whqa.config.mistakes import SET_BY_WHQA, trainer_parameters
from whqa.config.words import check_overrides, compose_config, external_settings, search_path
from whqa.errors import InputError
from whqa.masks.external_settings import ExternalSettings

MISTAKES = [
    ("segmenter.learning_rat=1e-3", "segmenter.learning_rate"),
    ("segmentr.steps=3", "segmenter.steps"),
    ("learning_rate=1e-3", ".learning_rate"),
    ("flods=3", "folds"),
    ("+flods=3", "folds"),
    ("+segmenter.stepz=3", "segmenter.steps"),
    ("network.widht=4", "network.width"),
    ("experiment=dmeo", "demo"),
    ("network=voxresnt", "voxresnet"),
    ("masks=nestd", "nested"),
    ("masks=out-of-fold", "out_of_fold"),
    ("data=fantom", "phantom"),
    ("trainer=cpus", "cpu"),
    ("debug=overfitt", "overfit"),
    ("sweep=learning_rat", "learning_rate"),
    ("stage=errormaps", "errormap"),
    ("netwrok=voxresnet", "network"),
    ("+masks.external.nnunet.rot=/p", "masks.external.nnunet.root"),
    ("+masks.external.nnunet.unsen=true", "masks.external.nnunet.unseen"),
    ("masks.external.nnunet.root=/p", "+masks.external.nnunet.root="),
    ("trainer.max_epoch=3", "'trainer.max_epochs'? whqa sets it itself; the length of a training is segmenter.steps"),
    ("trainer.gradient_clip=1", "trainer.gradient_clip_val"),
    ("+trainer.gradient_clip=1", "trainer.gradient_clip_val"),
    ("trainer.gradient_clip_val=1", "+trainer.gradient_clip_val=..."),
    ("trainer.devises=2", "trainer.devices"),
]
WRONG_VALUES = [
    ("data.name=${oc.env:NO_SUCH_VARIABLE}", "data.name=${oc.env:NO_SUCH_VARIABLE}: "),
    ("segmenter.steps=${oc.env:NO_SUCH_VARIABLE}", "segmenter.steps=${oc.env:NO_SUCH_VARIABLE}: "),
    ("errormap.patch=[8,8,'${oc.env:NO_SUCH_VARIABLE}']", "errormap.patch.2=${oc.env:NO_SUCH_VARIABLE}: "),
    ("runs_dir=${nowhere}", "runs_dir=${nowhere}: "),
    ("hydra.run.dir=elsewhere", "choose runs_dir=... and name=..."),
    ("hydra.job.chdir=true", "choose runs_dir=... and name=..."),
    ("+trainer.max_epochs=3", "trainer.max_epochs: whqa sets it itself; the length of a training is segmenter.steps"),
    ("seed=0,1", "seed=0,1: takes one value; `whqa sweep`"),
    ("hydra.job.name=${oc.env:NO_SUCH_VARIABLE}", "hydra.job.name: "),
    ("hydra.verbose=${nowhere}", "hydra.verbose: "),
    ("hydra.sweep.subdir=elsewhere", "choose runs_dir=... and name=..."),
    ("segmenter.learning_rate=0", "segmenter.learning_rate=0.0: must be between 1e-12 and 10"),
    ("segmenter.learning_rate=inf", "segmenter.learning_rate=inf: must be between 1e-12 and 10"),
    ("segmenter.freeze_norm=nan", "segmenter.freeze_norm=nan: must be between 0 and 1"),
    ("seed=4294967296", "seed=4294967296: must be between 0 and 4294967295"),
    ("name=", "name=: must be the name of a folder"),
    ("name=../elsewhere", "name=../elsewhere: must be the name of a folder"),
    ("name=.cache", "name=.cache: must be the name of a folder"),
    ("runs_dir=", "runs_dir=: must be a folder"),
    ("~trainer", "trainer: every run needs one; leave ~trainer out"),
    ("~callbacks", "callbacks.checkpoint: runs go on, and judge, from their checkpoint"),
    ("callbacks.checkpoint=null", "callbacks.checkpoint: runs go on"),
    ("network.width=wide", "network.width=wide: must be a whole number, as 32 is"),
    ("network.strides=2", "network.strides=2: must be a list"),
    ("data.n=2.5", "data.n=2.5: must be a whole number"),
    ("data.spacing_mm=fine", "data.spacing_mm=fine: must be a number"),
    ("seed=-1", "must be between 0 and"),
    ("segmenter.steps=-50", "segmenter.steps=-50: must be at least 1"),
    ("errormap.validate_every=0", "errormap.validate_every=0: must be at least 1"),
    ("errormap.baseline_masks=0", "errormap.baseline_masks=0: must be at least 1"),
    ("segmenter.warmup=1.5", "segmenter.warmup=1.5: must be at least 0 and below 1"),
    ("seed=abc", "abc"),
    ("folds=2.5", "2.5"),
    ("segmenter.steps=many", "many"),
    ("segmenter.learning_rate=fast", "fast"),
    ("segmenter.patch=16", "16"),
    ("preprocess.spacing=[a,b,c]", "a"),
    ("fit=maybe", "maybe"),
    ("data=1", "data=1"),
    ("+masks.external.nnunet=5", "masks.external.nnunet: state the folder of its masks"),
    ("+masks.external.nnunet.unseen=true", "masks.external.nnunet: state the folder of its masks"),
    ("+masks.external.nnunet={root:/p,unseen:maybe}", "masks.external.nnunet.unseen=maybe: "),
    ("+masks.external.nnunet={root:/p,parts:x}", "masks.external.nnunet.parts=x: "),
]


@pytest.mark.parametrize(("word", "right"), MISTAKES)
def test_a_mistyped_word_is_met_with_the_right_one(word: str, right: str) -> None:
    with pytest.raises(InputError) as error:
        compose_config([word])
    text = str(error.value)
    key, value = word.lstrip("+").split("=")
    assert "\n" not in text
    assert key in text or f"{key} {value!r}" in text
    assert right in text, text


@pytest.mark.parametrize(("word", "names"), WRONG_VALUES)
def test_a_value_of_the_wrong_type_is_refused(word: str, names: str) -> None:
    with pytest.raises(InputError) as error:
        compose_config([word])
    text = str(error.value)
    assert "\n" not in text
    assert names in text, text


def test_settings_of_another_programs_masks_get_their_type_and_defaults() -> None:
    words = [
        "data_dir=/d",
        "+masks.external.nnunet.root='${data_dir}/preds, v2'",
        "+masks.external.nnunet.unseen=true",
        "+masks.external.total={root:/t,pattern:'*',parts:{lv:a.nii.gz}}",
        "+masks.external.person={root:/p,scheme:{lv:1,rv:2}}",
    ]
    assert external_settings(compose_config(words).masks) == {
        "nnunet": ExternalSettings("/d/preds, v2", unseen=True),
        "total": ExternalSettings("/t", "*", parts={"lv": "a.nii.gz"}),
        "person": ExternalSettings("/p", scheme={"lv": 1, "rv": 2}),
    }


@pytest.mark.parametrize("word", ["a b", "=3", "seed", "segmenter.patch=[16,16"])
def test_what_is_no_override_is_refused_in_one_line(word: str) -> None:
    with pytest.raises(InputError) as error:
        check_overrides([word])
    assert "\n" not in str(error.value)


def test_every_choice_of_a_sweep_is_checked() -> None:
    check_overrides(["-m", "fold=0,1", "segmenter.learning_rate=1e-3,2e-3"])
    check_overrides(["-m", "network=voxresnet,dynunet", "segmenter.steps=range(1,4)"])
    with pytest.raises(InputError, match="dynunt"):
        check_overrides(["-m", "network=voxresnet,dynunt"])


def test_a_sweep_of_many_choices_is_checked_one_by_one_not_as_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    composed, compose = [], hydra.compose

    def count(name: str, overrides: list[str]) -> DictConfig:
        composed.append(tuple(overrides))
        return compose(name, overrides)

    monkeypatch.setattr("whqa.config.words.compose", count)
    check_overrides(["-m", "fold=0,1,2", "seed=0,1,2,3"])
    assert len(composed) == 1 + 2 + 3


@pytest.mark.parametrize("arguments", [["--help"], ["--hydra-help"], ["--version"], ["--cfg", "job", "seed=1"]])
def test_options_of_hydra_pass(arguments: list[str]) -> None:
    check_overrides(arguments)


def test_words_after_an_option_with_a_value_are_checked() -> None:
    with pytest.raises(InputError, match="seeed"):
        check_overrides(["--cfg", "job", "seeed=1"])


@pytest.mark.parametrize("word", ["segmenter.learning_rat=1e-3", "seed=abc", "experiment=dmeo", "network=voxresnt"])
def test_train_ends_with_2_and_one_line(
    word: str, train: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train(f"runs_dir={tmp_path / 'runs'}", word) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("whqa train: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_installed_module_ends_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whqa.train", "experiment=dmeo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "'demo'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", [r"data.name=(\d+)", "data.name=a:b;{", "data.name=(a", "data.name=a'b"])
def test_special_characters_are_met_with_quotes(word: str) -> None:
    for check in (compose_config, check_overrides):
        with pytest.raises(InputError) as error:
            check([word])
        said, _, advised = str(error.value).rpartition(": ")
        assert said.endswith("; put the value in quotes inside the quotes")
        if set(word) & set("'\\"):
            assert advised == r"""'patient="(\d+)"'"""
        else:
            (quoted,) = shlex.split(advised)
            assert compose_config([quoted]).data.name == word.partition("=")[2]


def test_a_path_with_blanks_is_advised_as_it_was_given() -> None:
    with pytest.raises(InputError) as error:
        compose_config(["cache_dir=c ü 2/"])
    (quoted,) = shlex.split(str(error.value).rpartition(": ")[2])
    assert compose_config([quoted]).cache_dir == "c ü 2/"


@pytest.mark.parametrize("word", ["xyzzy=3", "trainer.xyzzy=3", "segmenter.qqq=1", "+errormap.hjkl=2"])
def test_no_word_is_offered_where_none_is_near(word: str) -> None:
    with pytest.raises(InputError) as error:
        compose_config([word])
    assert str(error.value) == f"no key {word.lstrip('+').split('=')[0]!r} in the configuration."


def test_keys_of_the_chosen_option_are_offered() -> None:
    with pytest.raises(InputError, match=r"did you mean 'data\.image'"):
        compose_config(["data=folder", "data.root=x", "data.imge=a"])


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("network=glob(*)", {"dynunet", "segresnet", "voxresnet"}),
        ("network=glob(v*)", {"voxresnet"}),
        ("seed=choice(1,2)", {1, 2}),
        ("seed=tag(some, choice(1,2))", {1, 2}),
        ("seed=range(1,4)", {1, 2, 3}),
        ("seed=sort(3,1)", {1, 3}),
    ],
)
def test_hydra_enumerates_what_stands_for_several_values(
    word: str, choices: set[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, compose = set(), hydra.compose

    def record(name: str, overrides: list[str]) -> DictConfig:
        config = compose(name, overrides)
        seen.add(config.network._target_.split(".")[-1].lower() if "network" in word else config.seed)
        return config

    monkeypatch.setattr("whqa.config.words.compose", record)
    check_overrides(["-m", word])
    assert seen == choices


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["seed=0,1"], "seed=0,1: stands for several values; -m trains with each of them"),
        (["sweep=head"], "sweep=head: stands for several values; -m trains with each of them"),
        (["-m", "network=glob(x*)"], "stands for no value at all"),
        (["-m", "network=glob(*)", "seed=-1,2"], "seed=-1: must be between 0 and"),
        (["-m", "segmenter.learning_rate=interval(.001,.01)"], "add hydra/sweeper=optuna"),
        (["--config-dir", "/no/such/folder", "seed=1"], "--config-dir /no/such/folder: no such folder"),
    ],
)
def test_a_sweep_s_mistakes_are_named(arguments: list[str], cause: str) -> None:
    with pytest.raises(InputError) as error:
        check_overrides(arguments)
    assert cause in str(error.value)
    assert "\n" not in str(error.value)


def test_groups_of_one_s_own_folder_are_checked_as_well(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\nseed: 7\n")
    check_overrides([f"--config-dir={tmp_path}", "experiment=mine"])
    assert compose_config([search_path(tmp_path), "experiment=mine"]).seed == 7
    with pytest.raises(InputError, match="'mine'"):
        check_overrides(["--config-dir", str(tmp_path), "experiment=mien"])


def test_the_trainer_s_parameters_are_found_without_importing_it() -> None:
    """Lightning keeps them in trainer/trainer.py: where that moves, this fails, and no parameter is offered."""
    parameters = inspect.signature(pytorch_lightning.Trainer.__init__).parameters
    assert set(trainer_parameters()) == {name for name in parameters if name != "self"}
    assert set(SET_BY_WHQA) <= set(parameters)


def test_lightning_may_say_where_the_further_processes_of_a_run_are(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["experiment=demo", 'hydra.run.dir="runs/demo/errormap/0"', "hydra.output_subdir=null"]
    with pytest.raises(InputError, match="choose runs_dir"):
        check_overrides(words)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_overrides(words)

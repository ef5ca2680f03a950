"""Mistyped words end at once with one line that names the nearest right one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.config.words import check_overrides, compose_config, external_settings
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
]
WRONG_VALUES = [
    ("network.width=wide", "network.width=wide: must be a whole number, as 32 is"),
    ("network.strides=2", "network.strides=2: must be a list"),
    ("data.n=2.5", "data.n=2.5: must be a whole number"),
    ("data.spacing_mm=fine", "data.spacing_mm=fine: must be a number"),
    ("seed=-1", "must be between 0 and"),
    ("segmenter.steps=-50", "segmenter.steps=-50: must be at least 1"),
    ("errormap.validate_every=0", "errormap.validate_every=0: must be at least 1"),
    ("errormap.baseline_masks=0", "errormap.baseline_masks=0: must be at least 1"),
    ("segmenter.warmup=1.5", "segmenter.warmup=1.5: must be between 0 and 1"),
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
    composed = []
    monkeypatch.setattr("whqa.config.words.compose_config", lambda words: composed.append(tuple(words)))
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
        assert str(error.value).endswith(r"""; put the value in quotes inside the quotes: 'patient="(\d+)"'""")

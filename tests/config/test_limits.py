"""Every key of the configuration meets values that it cannot have: one line names key, value and what it may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from whqa.config.instantiate import make
from whqa.config.words import compose_config
from whqa.errors import InputError

GROUPS = ("data", "preprocess", "augmentation", "masks", "network", "segmenter", "errormap", "trainer", "callbacks")
STRANGE = ("-1", "nan", "null", "[]")
# Values of these that are right: null for "all", "as it is" or Lightning's own default, a free choice of words.
RIGHT = {
    # phantoms say it themselves, before they are made
    "data.modality": set(STRANGE),
    "data.spacing_mm": {"-1", "nan"},
    "preprocess.crop_mm": {"null"},
    "augmentation.flip": {"[]"},
    # said before any scan is read
    "masks.plan": {"-1", "nan"},
    "masks.kinds": {"null", "[]"},
    "errormap.inputs": {"null"},
    "errormap.baselines": {"[]"},
    "errormap.train_kinds": {"null", "[]"},
    "errormap.test_kinds": {"null", "[]"},
    "errormap.shuffled": {"[]"},
    # a number is a truth to OmegaConf
    "segmenter.channels_last": {"-1"},
    "errormap.channels_last": {"-1"},
    "errormap.deep_mask": {"-1", "null"},
    "errormap.opinion_views": {"-1", "null"},
    "errormap.opinion_ensemble": {"-1"},
    "errormap.warm_start": {"-1"},
    "segmenter.from_pairs": {"-1"},
    "segmenter.fused": {"-1"},
    "errormap.fused": {"-1"},
    "segmenter.num_workers": {"null"},
    "errormap.num_workers": {"null"},
    # the trainer says it itself, before any scan is read
    "trainer.accelerator": {"null"},
    "trainer.devices": set(STRANGE),
    "trainer.precision": {"null"},
    "trainer.deterministic": {"null"},
    "trainer.log_every_n_steps": {"null"},
    "trainer.num_sanity_val_steps": {"-1", "null"},
    "trainer.enable_model_summary": {"null"},
    "trainer.plugins": {"null", "[]"},
    # as does the object that is made
    "network.strides": {"[]"},
    "callbacks.checkpoint.every_n_epochs": {"null"},
    "callbacks.learning_rate.logging_interval": set(STRANGE),
}


def keys(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


ALL = list(keys(OmegaConf.to_container(compose_config(["experiment=demo"]))))


def tried(key: str, value: str) -> str | None:
    """What is said of a value, or None where it is taken."""
    try:
        compose_config(["experiment=demo", f"{key}={value}"])
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_refuses_what_it_cannot_be(group: str) -> None:
    wrong = []
    for key in (key for key in ALL if f"{key}.".startswith(f"{group}.")):
        said = {value: tried(key, value) for value in STRANGE}
        taken = {value for value, text in said.items() if text is None}
        if taken != RIGHT.get(key, set()):
            wrong.append(f"{key} takes {sorted(taken)}")
        wrong += [f"{key}: {text}" for text in said.values() if text and (key not in text or "\n" in text)]
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["network.width=0"], "network.width=0: must be between 1 and 4096"),
        (["network.width=null"], "network.width=null: must be a whole number, as 16 is"),
        (
            ["preprocess.ct_window=[400,-100]"],
            "[400.0, -100.0]: must be 2 numbers, each between -1000000 and 1000000, the first below the second",
        ),
        (["preprocess.spacing=[0,1,1]"], "[0.0, 1.0, 1.0]: must be 3 numbers, each between 0.001 and 1000000, or null"),
        (["preprocess.mr_percentiles=[99,1]"], "must be 2 numbers, each between 0 and 100, the first below the second"),
        (["preprocess.centre=lung"], "preprocess.centre=lung: must be one of image, tissue, heart"),
        (["augmentation.scale=0.99"], "augmentation.scale=0.99: must be between 0 and 0.9"),
        (["segmenter.warmup=1"], "segmenter.warmup=1.0: must be at least 0 and below 1"),
        (["network.width=1000000000"], "network.width=1000000000: must be between 1 and 4096"),
        (["errormap.batch_size=1000000000"], "errormap.batch_size=1000000000: must be between 1 and 4096"),
        (["folds=1000000000"], "folds=1000000000: must be between 2 and 1000"),
        (["trainer.devices=1000000000"], "trainer.devices=1000000000: must be at most 256"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: must be one of 32-true, 32, bf16-mixed"),
        (["network.strides=[1,2]"], "network.strides=[1, 2]: must be a list of triples of whole numbers from 1 on"),
        (["network.strides=[[2,2,2.5]]"], "must be a list of triples of whole numbers from 1 on, such as [[2,2,1],"),
        (["trainer.accelerator=[]"], "trainer.accelerator=[]: must be a word, such as cpu or gpu"),
        (["data.n=-4"], "data.n=-4: must be at least 1"),
        (["folds=1"], "folds=1: must be between 2 and 1000"),
        (["segmenter.learning_rate=.nan"], "segmenter.learning_rate=.nan: must be a number between 1e-12 and 10"),
        (["segmenter.learning_rate=null"], "10; leave it out for the default"),
        (["segmenter.patch=[16,16]"], "segmenter.patch=[16, 16]: must be 3 numbers, each at least 1"),
        (
            ["errormap.inputs=[]"],
            "must be a list of some of image, mask, distances, opinion, or null for image, mask, opinion",
        ),
        (["errormap.mask_dropout=1"], "errormap.mask_dropout=1.0: must be at least 0 and below 1"),
        (["errormap.opinion_dropout=-0.1"], "errormap.opinion_dropout=-0.1: must be at least 0 and below 1"),
        (["errormap.balance=x"], "errormap.balance=x: must be one of final, quality, none"),
        (["trainer.deterministic=abc"], "trainer.deterministic=abc: must be one of true, false, warn"),
        (["+trainer.benchmark=3"], "trainer.benchmark=3: must be one of true, false"),
        (["+trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1: must be at least 0"),
        (["network._target_=abc"], "network._target_=abc: must be the dotted name of a class or function"),
        (
            ["callbacks.learning_rate=0"],
            "must be a mapping with callbacks.learning_rate._target_; ~callbacks.learning_rate takes it out",
        ),
        (["callbacks.checkpoint.save_top_k=0"], "callbacks.checkpoint.save_top_k=0: must be 1, as the file that a run"),
        (
            ["+callbacks.checkpoint.monitor=val/error_dice"],
            "monitor=val/error_dice: must be null, as the file that",
        ),
        (["+callbacks.checkpoint.save_weights_only=true"], "save_weights_only=true: must be false, as the file that"),
        (["data.name=0"], "data.name=0: must be a name; quotes inside the quotes make it one: 'data.name=\"0\"'"),
    ],
)
def test_the_line_says_what_the_value_may_be(words: list[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        compose_config(["experiment=demo", *words])
    assert said in str(error.value)


@pytest.mark.parametrize("value", ["null", "[]", "0", "[0,1]", "true"])
@pytest.mark.parametrize("group", ["callbacks", "network", "trainer", "data", "masks", "logger", "stage", "segmenter"])
def test_a_group_wants_one_of_its_options(group: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"^{group}=.*: choose one of [\w, ]+, or leave it out$"):
        compose_config([f"{group}={value}"])


def test_what_takes_a_part_out_works() -> None:
    assert "learning_rate" not in compose_config(["~callbacks.learning_rate"]).callbacks
    assert compose_config(['data.name="0"']).data.name == "0"


def test_what_asks_for_more_memory_than_there_is_says_so() -> None:
    config = OmegaConf.create({"network": {"_target_": "torch.empty", "size": [10**15]}})
    with pytest.raises(InputError, match=r"^network: needs more memory than this machine has; choose a smaller one$"):
        make(config.network)


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
def test_no_setting_starts_more_processes_than_a_machine_bears(stage: str) -> None:
    with pytest.raises(InputError, match=rf"^{stage}\.num_workers=1000000000: must be between 0 and 256"):
        compose_config(["experiment=demo", f"{stage}.num_workers=1000000000"])
    compose_config(["experiment=demo", f"{stage}.num_workers=256"])

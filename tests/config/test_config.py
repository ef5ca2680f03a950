"""Every configuration file composes, says how it is used, and makes what it promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from whqa.config.instantiate import config_dir, differences, make, of_run
from whqa.config.run_config import refuse_mixed_settings
from whqa.config.run_name import run_name
from whqa.config.speed import cpu_precision
from whqa.config.words import check_overrides, compose_config
from whqa.data.preprocess import Preprocess
from whqa.errors import InputError
from whqa.loading.augmentation import Augmentation
from whqa.masks.plan import MaskPlan

GROUPS = sorted(p for p in config_dir().glob("*/*.yaml") if p.parent.name != "hydra")
PROMISING = [p for p in GROUPS if p.parent.name in ("experiment", "debug", "sweep")]


def _id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _words(path: Path) -> list[str]:
    """The overrides of the command that the first comment names."""
    first = next(line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line)
    command = re.search(r"`?(whqa \w+|make \w+)\b([^`(]*)", first)
    assert command, f"{path}: the first comment names no command: {first}"
    verb, rest = command.groups()
    words = [w for w in shlex.split(rest.split("   ")[0].split(":  ")[0].rstrip(": ")) if "=" in w]
    if not verb.startswith("make"):
        return words
    made = dict(w.split("=", 1) for w in words)
    return [f"experiment={made.get('EXP', 'demo')}", *shlex.split(made.get("ARGS", ""))]


@pytest.mark.parametrize("path", GROUPS, ids=_id)
def test_every_option_of_every_group_composes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    stated = ["data.root=x"] if path.stem in ("folder", "nnunet", "decathlon") else []
    cfg = compose_config([f"{path.parent.name}={path.stem}", *stated])
    OmegaConf.resolve(cfg)
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize("path", PROMISING, ids=_id)
def test_the_first_comment_names_a_command_that_composes(path: Path) -> None:
    words = _words(path)
    assert any(path.stem in w for w in words), f"{path}: its command does not use it: {words}"
    check_overrides(["-m", *words] if path.parent.name == "sweep" else words)


@pytest.mark.parametrize("path", [p for p in GROUPS if p.parent.name == "experiment"], ids=_id)
def test_an_experiment_is_consistent(path: Path) -> None:
    cfg = compose_config([f"experiment={path.stem}"])
    assert cfg.name == path.stem
    assert cfg.masks.plan == "nested" or path.stem == "demo"
    MaskPlan(cfg.masks.plan, cfg.folds)
    Preprocess(**OmegaConf.to_container(cfg.preprocess))
    Augmentation(**OmegaConf.to_container(cfg.augmentation))
    for stage in (cfg.segmenter, cfg.errormap):
        assert stage.steps % stage.steps_per_epoch == 0
        assert stage.steps // stage.steps_per_epoch >= stage.validate_every or not stage.validation_fraction
        assert all(n > 0 for n in stage.patch)
    assert cfg.errormap.validation_fraction > 0, "the error maps' calibration needs held-back training cases"


@pytest.mark.parametrize(
    ("words", "inputs"),
    [
        ([], None),
        (["errormap=no_opinion"], ["image", "mask"]),
        (["errormap=mask_withheld"], ["image"]),
        (["experiment=phantom", "errormap=mask_withheld"], ["image"]),
        (["errormap.inputs=[image,opinion]"], ["image", "opinion"]),
    ],
)
def test_an_ablation_withholds_what_it_says_and_changes_nothing_else(
    words: list[str], inputs: list[str] | None
) -> None:
    found = compose_config(words)
    assert (found.errormap.inputs and [str(name) for name in found.errormap.inputs]) == inputs
    whole = compose_config([word for word in words if not word.startswith("errormap")])
    found.errormap.inputs = whole.errormap.inputs
    assert found == whole


def test_an_input_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"errormap\.inputs"):
        compose_config(["errormap.inputs=[image,masks]"])


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
@pytest.mark.parametrize("path", [p for p in GROUPS if p.parent.name == "network"], ids=_id)
def test_a_network_is_made_for_both_stages(path: Path, stage: str) -> None:
    cfg = compose_config([f"network={path.stem}"])
    if "width" in cfg.network:
        cfg.network.width = 8
    channels = {"segmenter": (1, 8), "errormap": (9, 1)}[stage]
    network = instantiate(cfg.network, in_channels=channels[0], out_channels=channels[1], _convert_="all").eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, channels[0], 16, 16, 16))
    assert len(outputs) == 1 + network.n_sides
    assert {tuple(o.shape) for o in outputs} == {(1, channels[1], 16, 16, 16)}


def test_the_networks_of_the_configuration_differ_in_size_only_with_width() -> None:
    cfg = compose_config(["network=voxresnet"])
    network = instantiate(cfg.network, in_channels=1, out_channels=8, _convert_="all")
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.93e6, rel=0.01)


def test_the_logger_and_callbacks_of_a_run_can_be_made(tmp_path: Path) -> None:
    cfg = compose_config([])
    made = instantiate(cfg.callbacks.checkpoint, dirpath=str(tmp_path))
    assert made.dirpath == str(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "demo"),
        (["experiment=demo"], "demo"),
        (["experiment=demo", "stage=errormap", "fold=2", "fit=false"], "demo"),
        (["trainer=gpu", "trainer.devices=2", "+trainer.limit_train_batches=3", "logger=wandb"], "demo"),
        (["hydra/launcher=joblib", "hydra.sweep.dir=x", "callbacks@x=y", "data.root=/d"], "demo"),
        (["seed=1"], "demo,seed=1"),
        (["seed=1", "data.n=9"], "demo,data.n=9,seed=1"),
        (["data.n=9", "seed=1"], "demo,data.n=9,seed=1"),
        (["network=dynunet", "masks=nested"], "demo,masks=nested,network=dynunet"),
        (["+data.patient='(\\d+)'"], "demo,data.patient=_d+_"),
        (["segmenter.patch=[8,8,8]"], "demo,segmenter.patch=_8,8,8_"),
        (["~network.width"], "demo,~network.width"),
        (["errormap=mask_withheld"], "demo,errormap=mask_withheld"),
        (
            ["+masks.external.nnunet.root=/p/q", "masks.kinds=[nnunet]"],
            "demo,masks.external.nnunet,masks.kinds=_nnunet_",
        ),
    ],
)
def test_a_run_is_named_by_what_makes_it_another_experiment(overrides: list[str], name: str) -> None:
    assert run_name("demo", overrides) == name


def test_a_name_stands_alone() -> None:
    assert run_name("mine", ["name=mine", "seed=1", "data.n=9"]) == "mine"


def test_of_a_key_that_is_given_twice_the_last_counts() -> None:
    assert run_name("demo", ["seed=1", "data.n=9", "seed=2"]) == run_name("demo", ["data.n=9", "seed=2"])


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_name_is_cut_and_still_its_own(letter: str) -> None:
    names = {run_name("demo", [f"+data.label={letter * 150}{end}", "seed=1"]) for end in ("a", "b", letter * 200)}
    assert len(names) == 3
    assert all(name.startswith("demo,data.label=" + letter) and len(name.encode()) <= 220 for name in names)


def test_names_are_safe_file_names() -> None:
    assert "/" not in run_name("demo", ["+data.label=labels/*.nii.gz"])


def test_differences_name_what_changes_the_science_only() -> None:
    base = compose_config(["experiment=demo"])
    same = compose_config(
        [
            "experiment=demo",
            "name=renamed",
            "trainer=gpu",
            "runs_dir=/x",
            "data_dir=/y",
            "fit=false",
            "segmenter.num_workers=3",
        ]
    )
    assert differences(base, same) == []
    other = compose_config(["experiment=demo", "segmenter.learning_rate=1e-4", "network.width=4", "seed=3"])
    assert differences(base, other) == ["network.width", "seed", "segmenter.learning_rate"]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["+trainer.gradient_clip_val=0.1"], ["trainer.gradient_clip_val"]),
        (["+callbacks.average._target_=torch.nn.Identity"], ["callbacks.average._target_"]),
        (["trainer.log_every_n_steps=3", "callbacks.learning_rate.logging_interval=step"], []),
    ],
)
def test_settings_of_lightning_that_decide_the_weights_make_another_run(words: list[str], changed: list[str]) -> None:
    base, other = compose_config(["experiment=demo"]), compose_config(["experiment=demo", *words])
    assert differences(base, other) == differences(other, base) == changed
    name = run_name("demo", ["experiment=demo", *words])
    assert (name != "demo") == bool(changed)


def test_a_run_that_is_older_than_the_mean_of_opinions_heard_one() -> None:
    for plan, changed in (("nested", ["errormap.opinion_ensemble"]), ("out_of_fold", [])):
        now = compose_config(["experiment=demo", f"masks={plan}", "stage=errormap"])
        saved = OmegaConf.create(OmegaConf.to_yaml(now, resolve=True))
        del saved.errormap["opinion_ensemble"]
        assert differences(saved, now) == changed
        now.errormap.opinion_ensemble = False
        assert differences(saved, now) == []


def test_a_list_that_grows_is_a_difference() -> None:
    stage = "stage=errormap"
    base, other = compose_config([stage]), compose_config([stage, "errormap.baselines=[constant]"])
    assert differences(base, other) == ["errormap.baselines"]


def test_a_setting_that_a_run_is_older_than_does_not_disown_it() -> None:
    saved = OmegaConf.create(OmegaConf.to_yaml(compose_config(["experiment=demo"]), resolve=True))
    now = compose_config(["experiment=demo", "segmenter.warmup=0.5"])
    del saved.segmenter["warmup"]
    assert differences(saved, now) == []
    del saved.data["n"]
    assert differences(saved, now) == ["data.n"]


def test_other_programs_masks_make_another_run_but_not_where_they_lie() -> None:
    place = "+masks.external.nnunet"
    none, some, moved, said = (
        compose_config(["stage=errormap", *words])
        for words in (
            [],
            [f"{place}.root=/p"],
            [f"{place}.root=/q"],
            [f"{place}.root=/p", f"{place}.unseen=true"],
        )
    )
    assert differences(none, some) == differences(some, none) == ["masks.external.nnunet.root"]
    assert differences(some, moved) == []
    assert differences(some, said) == ["masks.external.nnunet.unseen"]
    before = OmegaConf.create(OmegaConf.to_yaml(none, resolve=True))
    del before.masks["external"]  # a run of a version that had no such masks
    assert differences(before, none) == []
    assert differences(before, some) == ["masks.external.nnunet.root"]


def test_a_segmenter_does_not_depend_on_the_second_stage() -> None:
    words = ["errormap.steps=7", "masks.kinds=[final]", "+masks.external.nnunet.root=/p"]
    base, other = compose_config([]), compose_config(words)
    assert differences(base, other) == []


def test_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for bf16, amx, expected in ((True, False, "bf16-mixed"), (False, True, "bf16-mixed"), (False, False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=bf16: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=amx: value)
        assert cpu_precision() == expected


def test_the_configuration_says_nothing_of_any_machine() -> None:
    for path in config_dir().rglob("*.yaml"):
        assert not re.search(r"\.\./|/home/|/work/|/tmp/", path.read_text()), path


@pytest.mark.parametrize("trainer", ["gpu", "ddp"])
def test_a_machine_without_a_gpu_gets_the_words_that_help(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    config = compose_config([f"trainer={trainer}"])
    with pytest.raises(InputError, match=r"^trainer: PyTorch finds no GPU .*; leave the choice of a trainer out"):
        make(config.trainer)


@pytest.mark.parametrize(
    ("spoilt", "line"), [("fold: '1'", "fold: '0'"), ("seed: 0", "seed: 1"), ("stage: errormap", "stage: segmenter")]
)
def test_runs_of_one_text_but_for_their_places_are_of_one_experiment(tmp_path: Path, spoilt: str, line: str) -> None:
    cfg = compose_config(["experiment=demo"])
    runs = [tmp_path / stage / fold for stage in ("segmenter", "errormap") for fold in ("0", "1", "0-1")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(of_run(cfg, run.parent.name, run.name), resolve=True))
    refuse_mixed_settings(runs)
    path = tmp_path / "errormap" / "1" / "config.yaml"
    assert f"\n{spoilt}\n" in path.read_text()
    path.write_text(path.read_text().replace(f"\n{spoilt}\n", f"\n{line}\n"))
    with pytest.raises(InputError, match=spoilt.split(":")[0]):
        refuse_mixed_settings(runs)


def test_settings_of_another_source_are_named_with_what_takes_them_out() -> None:
    words = ["experiment=demo", "data=acdc", "data.root=/data/acdc"]
    with pytest.raises(InputError, match=r"^data\.n, data\.spacing_mm: not of read_acdc, ") as caught:
        make(compose_config(words).data)
    remedy = str(caught.value).rpartition("take it out: ")[2].split()
    with pytest.raises(InputError, match="/data/acdc"):
        make(compose_config([*words, *remedy]).data)


def test_what_the_system_refuses_is_said_as_it_says_it() -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        make(OmegaConf.create({"_target_": "os.listdir", "path": "/there/is/none"}))

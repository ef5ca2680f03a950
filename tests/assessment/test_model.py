"""A run is loaded whole, or refused with one line; nothing in it is run as code."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from whqa.assessment.model import load_run
from whqa.errors import InputError
from whqa.files import sha256
from whqa.judges.calibration import Calibration, read_calibration
from whqa.masks.run_state import stamp
from whqa.modules.errormap import ErrorMapModule, in_channels, mask_channels, out_channels
from whqa.networks.voxresnet import VoxResNet
from whqa.structures import MMWHS


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    """A copy of the tiny study's run with fold 0, to be spoiled."""
    (source,) = (judged / "runs").glob("*/errormap")
    target = tmp_path / "runs" / source.parent.name
    (target / "errormap").mkdir(parents=True)
    shutil.copy(source.parent / "folds.json", target)
    for stage in ("errormap", "segmenter"):
        shutil.copytree(source.parent / stage / "0", target / stage / "0", ignore=shutil.ignore_patterns("masks"))
        # as older versions wrote it: it knows no digests of the files that the tests spoil
        (target / stage / "0" / "COMPLETED").write_text("")
    return target


def test_a_run_is_what_was_trained(run: Path) -> None:
    found = load_run(run)
    assert found.folds == (0,)
    assert found.head == "label"
    assert found.scheme == MMWHS
    assert found.modalities == ("ct",)
    assert found.preprocess.spacing == (8.0, 8.0, 8.0)
    module = found.networks[0].module
    assert not module.training
    saved = torch.load(run / "errormap/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, values in module.state_dict().items():
        torch.testing.assert_close(values, saved[name])
    assert module.calibration == read_calibration(run / "errormap/0/calibration.json", "")
    assert found.networks[0].sha256 == sha256(run / "errormap/0/checkpoints/last.ckpt")


def test_the_second_opinion_is_that_of_the_folds_own_segmenter(run: Path) -> None:
    (network,) = load_run(run).networks
    assert network.module.hears_opinion
    assert network.segmenter is not None
    assert not network.segmenter.training
    saved = torch.load(run / "segmenter/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, values in network.segmenter.state_dict().items():
        torch.testing.assert_close(values, saved[name])


def test_without_its_segmenter_a_run_is_refused_in_one_line(run: Path) -> None:
    path = run / "segmenter/0/checkpoints/last.ckpt"
    path.write_bytes(b"nonsense")
    for message in ("not readable as a checkpoint", "no such file"):
        with pytest.raises(
            InputError, match=f"{message}.*; start this run anew: rm -r .*stage=segmenter fold=0"
        ) as caught:
            load_run(run)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        path.unlink(missing_ok=True)


def test_a_segmenter_that_is_not_as_its_run_wrote_it_is_refused(run: Path) -> None:
    path = run / "segmenter/0/checkpoints/last.ckpt"
    stamp(run / "segmenter/0")
    load_run(run)
    saved = torch.load(path, weights_only=True)
    torch.save(saved | {"epoch": 99}, path)
    with pytest.raises(InputError, match=r"segmenter/0/checkpoints/last\.ckpt: not as this run wrote it"):
        load_run(run)


def test_a_network_that_hears_no_opinion_needs_no_segmenter(run: Path) -> None:
    path = run / "errormap/0/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)
    inputs = ["image", "mask"]
    channels = in_channels(inputs, 8), out_channels("label", inputs, 8)
    network = VoxResNet(*channels, width=4)
    network.join(*mask_channels(inputs, 8))
    module = ErrorMapModule(network, n_classes=8, inputs=inputs, head="label", total_steps=1)
    hyper = saved["hyper_parameters"] | {"inputs": inputs}
    torch.save(saved | {"state_dict": module.state_dict(), "hyper_parameters": hyper}, path)
    shutil.rmtree(run / "segmenter")
    (network,) = load_run(run).networks
    assert network.segmenter is None
    assert network.module.seen == ("image", "mask")


def test_a_run_of_an_older_version_is_refused_in_one_line(run: Path) -> None:
    path = run / "errormap/0/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)
    del saved["hyper_parameters"]["inputs"]
    torch.save(saved, path)
    with pytest.raises(
        InputError, match=r"last\.ckpt: trained by an older version.*; start this run anew: rm "
    ) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def test_a_run_without_calibration_is_loaded(run: Path) -> None:
    (run / "errormap/0/calibration.json").unlink()
    path = run / "errormap/0/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["errormap"]["validation_fraction"] = 0
    path.write_text(yaml.safe_dump(config))
    assert load_run(run).networks[0].module.calibration == Calibration()


def test_a_run_without_a_stored_scheme_is_known_by_its_structures(run: Path) -> None:
    record = json.loads((run / "folds.json").read_text())
    assert record.pop("scheme")["values"] == dict(MMWHS.values)
    (run / "folds.json").write_text(json.dumps(record))
    assert load_run(run).scheme == MMWHS


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run directory; `make demo`.*on your own data"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"fold 2 is not complete; the same `whqa cv "):
        load_run(run, [2])
    (run / "errormap/0/checkpoints/last.ckpt").unlink()
    with pytest.raises(InputError, match=r"last\.ckpt: no such file; start this run anew: rm -r"):
        load_run(run)
    (run / "errormap/0/COMPLETED").unlink()
    with pytest.raises(InputError, match="every fold is not complete"):
        load_run(run)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_a_checkpoint_cannot_run_code(run: Path, tmp_path: Path) -> None:
    path, proof = run / "errormap/0/checkpoints/last.ckpt", tmp_path / "it ran"
    whole = torch.load(path, weights_only=True)
    torch.save({**whole, "extra": _Attack(proof)}, path)
    torch.load(path, weights_only=False)
    assert proof.exists(), "the attack works where it is not prevented"
    proof.unlink()
    with pytest.raises(InputError, match=r"last\.ckpt: holds more than tensors and is not loaded"):
        load_run(run)
    path.write_bytes(pickle.dumps(_Attack(proof)))
    with pytest.raises(InputError, match=r"last\.ckpt: "):
        load_run(run)
    assert not proof.exists()


@pytest.mark.parametrize(
    "network",
    [
        {"_target_": "os.system", "command": "touch {proof}"},
        {
            "_target_": "whqa.networks.voxresnet.VoxResNet",
            "width": {"_target_": "os.system", "command": "touch {proof}"},
        },
        {"_target_": "whqa.networks.voxresnet.VoxResNet", "width": "${oc.env:HOME}"},
        {"_target_": "whqa.networks.voxresnet.VoxResNet", "_partial_": True},
        {"width": 4},
    ],
)
def test_a_configuration_cannot_run_code(run: Path, tmp_path: Path, network: dict[str, object]) -> None:
    path, proof = run / "errormap/0/config.yaml", tmp_path / "it ran"
    config = yaml.safe_load(path.read_text())
    config["network"] = json.loads(json.dumps(network).replace("{proof}", str(proof)))
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"config\.yaml: .*it is not run"):
        load_run(run)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("folds.json", "[]", "not readable as a file of folds"),
        ("folds.json", "{", "not readable as JSON"),
        ("errormap/0/config.yaml", "a: [", "not readable"),
        ("errormap/0/config.yaml", "a: !!python/object/apply:os.getpid []", "not readable"),
        ("errormap/0/config.yaml", "a: 5", "not readable as the settings of a run"),
        ("errormap/0/calibration.json", '{"slope": 1}', "not readable as a calibration"),
        ("errormap/0/calibration.json", '{"scale": NaN}', "not readable as a calibration"),
        ("errormap/0/calibration.json", '{"scale": 1e400}', "not readable as a calibration"),
        ("errormap/0/checkpoints/last.ckpt", "", "not readable as a checkpoint"),
        ("errormap/0/cases.csv", "a,b\n1,2\n", "not readable as a case table"),
    ],
)
def test_damaged_files_are_refused_in_one_line(run: Path, name: str, content: str, message: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_run(run)
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(run: Path) -> None:
    path = run / "errormap/0/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["network"]["width"] = 6
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"last\.ckpt: not readable as a checkpoint of this network"):
        load_run(run)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("errormap", None, "not readable as the settings of a run"),
        ("trainer", None, None),
        ("trainer", "fast", None),
        ("network.width", -1, "not readable as a checkpoint of this network"),
        ("preprocess.spacing", ["a", "b", "c"], "settings of the preprocessing"),
    ],
)
def test_odd_configurations(run: Path, key: str, value: object, message: str | None) -> None:
    path = run / "errormap/0/config.yaml"
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    place = config
    for name in parents:
        place = place[name]
    place[last] = value
    path.write_text(yaml.safe_dump(config))
    if message is None:
        assert not load_run(run).networks[0].bf16
        return
    with pytest.raises(InputError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["patient", "mask_kind", "qi_heart"])
def test_a_case_table_without_its_columns_is_refused(run: Path, column: str) -> None:
    path = run / "errormap/0/cases.csv"
    pd.read_csv(path, dtype=str).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"cases\.csv: not readable as a case table"):
        load_run(run)

"""The networks of a run, written as ONNX, say in ONNX Runtime what they say in PyTorch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from whqa.assessment import TrainedRun
from whqa.assessment.onnx_files import write_onnx
from whqa.cli.commands import main
from whqa.errors import InputError


@pytest.fixture(scope="module")
def folder(run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="the extra whqa[onnx] is not installed")
    out = tmp_path_factory.mktemp("onnx") / "networks"
    write_onnx(run, out)
    return out


def test_onnx_runtime_gives_the_numbers_of_pytorch_at_any_size(run: TrainedRun, folder: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (fold,) = run.networks
    assert fold.segmenter is not None
    modules = {"segmenter": fold.segmenter, "errormap": fold.module}
    assert sorted(path.name for path in folder.iterdir()) == [f"{kind}_0.onnx" for kind in sorted(modules)]
    for kind, module in modules.items():
        session = runtime.InferenceSession(folder / f"{kind}_0.onnx", providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        for size in ((16, 24, 32), (24, 16, 16)):
            inputs = torch.randn(1, given.shape[1], *size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                wanted = module.network(inputs)[0].numpy()
            (found,) = session.run(None, {given.name: inputs.numpy()})
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_file_says_what_its_channels_are(run: TrainedRun, folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "errormap_0.onnx")
    told = {one.key: one.value for one in model.metadata_props}
    assert told["whqa.run"] == run.name
    assert json.loads(told["whqa.labels"]) == ["background", *run.scheme.keys]
    assert json.loads(told["whqa.spacing_mm"]) == list(run.preprocess.spacing)
    assert json.loads(told["whqa.inputs"]) == list(run.networks[0].module.seen)


def test_an_existing_folder_is_left_alone(run: TrainedRun, folder: Path) -> None:
    with pytest.raises(InputError, match="exists and is not overwritten"):
        write_onnx(run, folder)


@pytest.mark.parametrize(
    ("more", "says"), [([], "pip install 'whqa\\[onnx\\]'"), (["--with-cases"], "--with-cases: says nothing of ONNX")]
)
def test_what_cannot_be_done_is_told_in_a_line(
    run: TrainedRun,
    more: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("whqa.assessment.onnx_files.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        main(["export", str(run.path), "-o", str(tmp_path / "out"), "--to-onnx", *more])
    assert end.value.code == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()

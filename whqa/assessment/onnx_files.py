"""The networks of a run as ONNX files, for programs without PyTorch.

They are the networks alone: bringing a scan to their grid, the channels that are made of mask and opinion, calibration
and the verdict are whqa's. Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from whqa.assessment.model import FoldNetwork, TrainedRun
from whqa.errors import InputError
from whqa.files import atomic_path

_NEEDED = ("onnx", "onnxscript")


class _Final(nn.Module):
    """A network without its side outputs, which only training needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs_BCDHW: Tensor) -> Tensor:
        """Inputs (1, C, D, H, W) -> logits (1, C', D, H, W)."""
        logits: Tensor = self.network(inputs_BCDHW)[0]
        return logits


def require_onnx() -> None:
    """Refuse where what writes ONNX is not installed.

    Raises:
        InputError: it is not.
    """
    if not all(map(find_spec, _NEEDED)):
        raise InputError("--to-onnx needs an extra of whqa: pip install 'whqa[onnx]'")


def write_onnx(run: TrainedRun, out: Path) -> list[Path]:
    """Write `errormap_<fold>.onnx` and, where the run has segmenters, `segmenter_<fold>.onnx`.

    Each maps `inputs`, float32 (1, C, D, H, W), to `logits`, (1, C', D, H, W); D, H and W may be any multiples of the
    network's total stride. The properties of the model say what the channels are.

    Args:
        run: a trained run.
        out: a folder, which must not exist.

    Raises:
        InputError: the extra is not installed, `out` exists, or a network cannot be written as ONNX.
    """
    require_onnx()
    if out.exists():
        raise InputError(f"{out}: exists and is not overwritten; choose another -o, or remove it")
    out.mkdir(parents=True)
    return [_written(run, network, kind, out) for network in run.networks for kind in _kinds(network)]


def _kinds(network: FoldNetwork) -> tuple[str, ...]:
    return ("errormap",) if network.segmenter is None else ("segmenter", "errormap")


def _written(run: TrainedRun, fold: FoldNetwork, kind: str, out: Path) -> Path:
    path = out / f"{kind}_{fold.fold}.onnx"
    module = fold.module if kind == "errormap" or fold.segmenter is None else fold.segmenter
    inputs = list(fold.module.seen) if kind == "errormap" else ["image"]
    n_channels = next(module.network.parameters()).shape[1]
    divisor = tuple(int(n) for n in getattr(module.network, "divisor", (16, 16, 16)))
    told = {
        "whqa.run": run.name,
        "whqa.fold": str(fold.fold),
        "whqa.inputs": json.dumps(inputs),
        "whqa.labels": json.dumps(["background", *run.scheme.keys]),
        "whqa.spacing_mm": json.dumps(list(run.preprocess.spacing)),
        "whqa.multiple_of": json.dumps(divisor),
    }
    example = torch.zeros(1, n_channels, *(n * times for n, times in zip(divisor, (2, 3, 4), strict=True)))
    sizes = {axis: torch.export.Dim(name) for axis, name in ((2, "D"), (3, "H"), (4, "W"))}
    try:
        with _without_hints(), torch.no_grad():
            program = torch.onnx.export(
                _Final(module.network).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=["inputs"],
                output_names=["logits"],
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: this network cannot be written as ONNX ({reason}); leave --to-onnx out") from None
    assert program is not None
    program.model.metadata_props.update(told)
    with atomic_path(path) as temporary:
        program.save(temporary)
    return path


@contextmanager
def _without_hints() -> Iterator[None]:
    """Without lines about packages that whqa does not use, and about what PyTorch calls of its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)

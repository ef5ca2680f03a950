"""What a model file says about itself: configs/metadata.json, but for the list of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal, cast

from whqa import __version__
from whqa.assessment.model import TrainedRun
from whqa.assessment.model_file import FORMAT
from whqa.contract.entries import Entry
from whqa.contract.model_json import DataFormat, DataFormats, JudgedByModel, ModelFacts, TrainedOn
from whqa.contract.summary_json import Summary
from whqa.metrics.verdict_row import NETWORK
from whqa.results.summary_entry import at_path, shown_views

# path in summary.json below a part of the masks, words
_MEASURED = (
    ("error_dice", "error Dice"),
    ("error_auprc", "error AUPRC"),
    ("heart.pcc", "Pearson correlation of QI with Acc, heart"),
    ("heart.mae", "mean of |QI - Acc|, heart"),
    ("heart.mae_constant", "the same for a constant, the mean Acc of the training masks"),
    ("failure.aurc", "failure detection, AURC"),
    ("correction.gain", "mean Dice gained by correction"),
)
_ENTRY = ("mean", "ci95", "reason", "n")
_VERSION = f"{FORMAT}.0.0"


def model_metadata(
    run: TrainedRun, record: Mapping[str, Any], summary: Summary, *, with_cases: bool, licence: str
) -> dict[str, Any]:
    """See `whqa.contract.model_json`.

    Args:
        run: with the networks of all folds.
        record: its folds.json.
        summary: its summary.json.
        with_cases: whether names of cases and patients are kept.
        licence: first line of it.
    """
    facts: ModelFacts = {
        "format": FORMAT,
        "run": run.name,
        "trained_on": _trained_on(run, record),
        "judges": _judged(run),
        "measured": _measured(summary),
        "with_cases": with_cases,
        "license": licence,
        "environment": summary["environment"],
    }
    return {
        "name": run.name,
        "version": _VERSION,
        "changelog": {_VERSION: f"exported by whqa {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"whqa": __version__, "safetensors": version("safetensors")},
        "task": "Quality assessment of whole-heart segmentations",
        "description": "Says of a scan and its mask which voxels are wrong, how good the mask is, and what is right.",
        "intended_use": "Research. Not a medical device: it must not guide care.",
        "data_source": run.cohort,
        "data_type": "nifti",
        "references": ["Zhang & Chung, MICCAI 2019, arXiv 1907.12244"],
        "network_data_format": _formats(run),
        "whqa": facts,
    }


def _trained_on(run: TrainedRun, record: Mapping[str, Any]) -> TrainedOn:
    return {
        "cohort": run.cohort,
        "cases": len(record["patients"]),
        "patients": len(set(record["patients"].values())),
        "modalities": dict(Counter(record["modalities"].values())),
        "folds": len(record["folds"]),
        "plan": run.plan,
        "mask_kinds": [str(kind) for kind in run.cases["mask_kind"].unique()],
    }


def _judged(run: TrainedRun) -> JudgedByModel:
    hears, program = run.networks[0].module.hears_opinion, run.opinion_program
    grid = run.preprocess
    return {
        "modalities": cast(list[Literal["ct", "mr"]], list(run.modalities)),
        "structures": dict(run.scheme.values),
        "grid_mm": list(grid.spacing),
        "box_mm": None if grid.crop_mm is None else list(grid.crop_mm),
        "head": cast(Literal["binary", "label"], run.head),
        "opinion": None if not hears else "segmenters" if program is None else program.name,
        "networks": list(run.folds),
    }


def _measured(summary: Summary) -> dict[str, dict[str, Entry]]:
    numbers, held = summary["methods"][NETWORK], cast(Mapping[str, Any], summary["intervals"])
    return {
        part: {words: _entry(at_path(numbers[part], path)) for path, words in _MEASURED}
        | {
            f"share of intervals of {100 * held['confidence']:.0f} % for Acc that hold it, heart": _entry(
                at_path(held, f"{part}.acc_heart.coverage")
            )
        }
        for part in shown_views({NETWORK: numbers})
    }


def _entry(found: Mapping[str, Any]) -> Entry:
    return cast(Entry, {key: found[key] for key in _ENTRY if key in found})


def _formats(run: TrainedRun) -> DataFormats:
    modalities = " or ".join(name.upper() for name in run.modalities)
    labels = {str(i): name for i, name in enumerate(["background", *run.scheme.titles])}
    image = _format("intensity", "float32", [-1.0, 1.0], {"0": f"{modalities}, normalised"})
    mask = _format("segmentation", "int64", [0.0, float(len(labels) - 1)], labels)
    return {
        "inputs": {"image": image, "mask": mask},
        "outputs": {
            "pred": _format("probability", "float32", [0.0, 1.0], {"0": "probability that the mask's label is wrong"})
        },
    }


def _format(meaning: str, dtype: str, values: list[float], channels: dict[str, str]) -> DataFormat:
    return {
        "type": "image",
        "format": meaning,
        "num_channels": 1,
        "spatial_shape": ["*", "*", "*"],
        "dtype": dtype,
        "value_range": values,
        "is_patch_data": False,
        "channel_def": channels,
    }

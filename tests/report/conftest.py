"""A judged phantom without any network: what a report gets to see."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from whqa.assessment.work import work_to_do
from whqa.contract.quality_json import Assessment
from whqa.data.phantom import make_phantom
from whqa.structures import MMWHS

Assessed = Callable[..., Assessment]


@pytest.fixture(scope="session")
def browsers() -> ModuleType:
    """The browsers that are installed, `tests/report/browsers.py`."""
    spec = spec_from_file_location("browsers", Path(__file__).with_name("browsers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def assessed() -> Assessed:
    """Makes an `Assessment` of a phantom whose mask has the right atrium shifted; `quality` is merged in."""

    def make(
        decision: str = "review",
        name: str = "ct_train_1002",
        correct: bool = True,
        spacing: float = 4.0,
        quality: dict[str, Any] | None = None,
        **arrays: Any,
    ) -> Assessment:
        phantom = make_phantom(0, 1, "ct", spacing)
        truth = MMWHS.to_indices(phantom.label, "phantom")
        mask = _damaged(truth)
        wrong = mask != truth
        probability = (0.95 * ndimage.gaussian_filter(wrong.astype(np.float32), 4.0 / spacing)).astype(np.float32)
        corrected = np.where(probability > 0.5, truth, mask).astype(np.uint8) if correct else mask
        values: dict[str, Any] = {
            "name": name,
            "scheme": MMWHS,
            "image": phantom.image.astype(np.float32),
            "mask": mask,
            "corrected": corrected,
            "error_probability": probability,
            "error_map": probability > 0.4,
            "affine": phantom.affine,
            "opinion": truth,
            "header": None,
        }
        if {"mask", "scheme"} & set(arrays):
            values["opinion"] = None
        values |= arrays
        found = _quality(values, decision, correct) | (quality or {})
        return Assessment(**({"quality": found, "population": _population()} | values))

    return make


def _damaged(truth: np.ndarray) -> np.ndarray:
    mask = truth.copy()
    atrium = truth == 1 + MMWHS.keys.index("ra")
    mask[atrium] = 0
    mask[np.roll(atrium, 3, axis=0) & (mask == 0)] = 1 + MMWHS.keys.index("ra")
    mask[truth == 1 + MMWHS.keys.index("pa")] = 0
    return mask


def _quality(values: dict[str, Any], decision: str, correct: bool) -> dict[str, Any]:
    ml = float(abs(np.linalg.det(values["affine"][:3, :3]))) / 1000
    mask, corrected, scheme = values["mask"], values["corrected"], values["scheme"]
    structures: dict[str, Any] = {}
    for i, (key, title) in enumerate(zip(scheme.keys, scheme.titles, strict=True), start=1):
        share = float(values["error_map"][mask == i].mean()) if (mask == i).any() else None
        dice = None if share is None else 1 - share
        structures[key] = {
            "name": title,
            "dice_expected": dice,
            "dice_interval": None if dice is None else [max(0.0, dice - 0.12), min(1.0, dice + 0.05)],
            "volume_ml": float((mask == i).sum()) * ml,
            "volume_ml_corrected": float((corrected == i).sum()) * ml,
            "wrong_share": share,
            "reason": None if dice is not None else "neither in the mask nor expected in the image",
            "dice_opinion": None if share is None else 0.37 + 0.05 * i,
            "correction": _correction(bool((((mask == i) | (corrected == i)) & (mask != corrected)).any())),
        }
    changed = int((mask != corrected).sum())
    known = {"n": 24, "dice_before": 0.75, "dice_after": 0.83, "gain": 0.08, "ci95": [0.05, 0.1], "improved_share": 0.9}
    known["final"] = True
    return {
        "case": values["name"],
        "confidence": 0.9,
        "image": {
            "path": f"/data/{values['name']}_image.nii.gz",
            "sha256": "0" * 64,
            "shape": list(mask.shape),
            "spacing_mm": [2.0, 2.0, 2.0],
            "orientation": "".join(nib.aff2axcodes(values["affine"])),
        },
        "mask": {"path": f"/data/{values['name']}_mask.nii.gz", "sha256": "1" * 64},
        "model": {
            "run": "demo",
            "cohort": "phantom",
            "folds": [0, 1, 2],
            "head": "label",
            "plan": "out_of_fold",
            "checkpoints": {"0": "2" * 64, "1": "3" * 64, "2": "4" * 64},
            "modality": "ct",
        },
        "opinion": {"source": "segmenters", "program": None, "path": None, "sha256": None},
        "qi": {
            "volume": {"value": 0.981, "soft": 0.98, "interval": [0.972, 0.99], "reason": None},
            "heart": {"value": 0.912, "soft": 0.9, "interval": [0.861, 0.951], "reason": None},
        },
        "error_map": {"threshold": 0.4, "rule": "expected"},
        "structures": structures,
        "places": [],
        "work": work_to_do(values["error_probability"], mask, values.get("opinion"), keys=scheme.keys, voxel_ml=ml),
        "verdict": {
            "decision": decision,
            "reasons": ["The expected mean Dice of 0.81 is below 0.85, from which on masks are accepted."],
            "score": 0.81,
            "rule": "accept from an expected mean Dice of 0.850 on, reject below 0.600, else review",
            "accept_from": 0.85,
            "reject_below": 0.6,
            "certainty": 0.6,
            "doubt_above": 0.7,
            "risk": {
                "bad_if": "mean Dice over structures below 0.7",
                "accept": {"n": 41, "bad": 2, "rate": 2 / 41, "ci95": [0.006, 0.165]},
                "review": {"n": 20, "bad": 7, "rate": 0.35, "ci95": [0.15, 0.59]},
                "reject": {"n": 0, "bad": 0, "rate": None, "ci95": None},
            },
        },
        "out_of_distribution": [
            {
                "feature": "spacing",
                "value": 5.0,
                "low": 0.9,
                "high": 1.1,
                "message": "the spacing of 5.0 mm is outside of what the run was trained on (0.9-1.1 mm)",
            }
        ],
        "correction": {
            "applied": correct,
            "reason": "applied" if correct else "left alone: on held-back training cases no correction helped",
            "threshold": 0.5 if correct else None,
            "changed_voxels": changed,
            "changed_ml": changed * ml,
            "out_of_fold": known,
        },
        "outside": {"mask_share": 0.0},
        "warnings": ["pixdim and affine disagree; using pixdim"],
        "versions": {
            "python": "3.11.7",
            **dict.fromkeys(("torch", "pytorch_lightning", "torchmetrics", "whqa"), "2.13.0"),
            "device": "cpu",
            "platform": "Linux",
            "git": {"commit": "abc", "changed": False},
        },
        "seconds": {"read": 0.4, "predict": 3.2, "total": 4.1},
    }


def _correction(applied: bool) -> dict[str, Any]:
    if applied:
        return {"applied": True, "gain_expected": 0.12, "reason": "corrected: its Dice is expected to gain 0.12"}
    return {"applied": False, "gain_expected": None, "reason": "left alone: no other label is probable enough"}


def _population() -> tuple[dict[str, Any], ...]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        acc, dice = 1 - 0.2 * rng.random(), 1 - 0.5 * rng.random()
        qi, predicted = acc + 0.02 * rng.normal(), dice + 0.05 * rng.normal()
        rows.append(
            {
                "case": f"case{i // 4}",
                "mask_kind": ("final", "side1", "early_half", "corrupted")[i % 4],
                "acc_volume": 1 - (1 - acc) / 5,
                "qi_volume": min(1.0, 1 - (1 - qi) / 5),
                "acc_heart": acc,
                "qi_heart": min(1.0, qi),
                "mean_dice": dice,
                "mean_dice_predicted": min(1.0, predicted),
            }
        )
    return tuple(rows)

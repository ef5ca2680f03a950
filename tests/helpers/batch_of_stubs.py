"""A judge that knows its verdicts by name, with a model and pairs of tiny files for a batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from whqa.assessment.batch_case import AssessOptions
from whqa.assessment.pairs import Pair, Pairs
from whqa.contract.quality_json import Assessment
from whqa.judges.calibration import Calibration
from whqa.structures import ACDC

SHAPE = (6, 5, 4)
HOSTILE = "<img src=x onerror=alert(1)>"
OUTPUTS = {"error_probability.nii.gz", "error_map.nii.gz", "corrected_mask.nii.gz", "quality.json"}

PIECE = {"ml": 3.0, "structure": "lv", "opinion": None, "probability": 0.9, "voxel": [1, 2, 3]}


def quality(name: str, decision: str, score: float | None) -> dict[str, Any]:
    structures = {
        key: {
            "name": key,
            "dice_expected": None if score is None else score - 0.1 * i,
            "dice_interval": None if score is None else [score - 0.1 * i - 0.05, score],
            "volume_ml": 10.0 + i,
            "volume_ml_corrected": 11.0 + i,
        }
        for i, key in enumerate(ACDC.keys)
    }
    return {
        "case": name,
        "confidence": 0.9,
        "qi": {r: {"value": 0.9, "interval": [0.8, 0.95], "reason": None} for r in ("volume", "heart")},
        "structures": structures,
        "verdict": {"decision": decision, "score": score, "reasons": [f"Because of {name}."]},
        "out_of_distribution": [{"feature": "noise", "message": "The noise of the image is high."}],
        "correction": {"applied": False},
        "warnings": [],
        "image": {"shape": list(SHAPE), "orientation": "RAS"},
        "opinion": None,
        "work": {"smallest_ml": 0.1, "pieces": 1, "voxels": 9, "ml": 3.0, "largest": [PIECE], "look": PIECE["voxel"]},
    }


class Judge:
    """A judge that knows its verdicts by name, notes what it was asked, and fails where it is told to."""

    def __init__(self, **verdicts: tuple[str, float | None] | Exception) -> None:
        self.verdicts = verdicts
        self.asked: list[dict[str, Any]] = []

    def __call__(self, image: Path, mask: Path, model: Any, *, name: str, **options: Any) -> Assessment:
        self.asked.append({"name": name, "image": image, "mask": mask} | options)
        verdict = self.verdicts.get(name, ("review", 0.5))
        if isinstance(verdict, Exception):
            raise verdict
        zeros = np.zeros(SHAPE, np.uint8)
        return Assessment(
            name=name,
            scheme=ACDC,
            image=zeros.astype(np.float32),
            mask=zeros,
            corrected=zeros,
            error_probability=zeros.astype(np.float32),
            error_map=zeros.astype(bool),
            affine=np.eye(4),
            header=None,
            quality=quality(name, *verdict),
        )

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.asked]


def stub_model(
    root: Path, sha256: str = "a", opinion: str | None = None, noise: str = "0.1", **calibration: float
) -> Any:
    module = SimpleNamespace(calibration=Calibration(**calibration))
    network = SimpleNamespace(fold=0, sha256=sha256, segmenter_sha256=opinion, module=module)
    return SimpleNamespace(
        path=root / "runs" / "demo",
        name="demo",
        networks=(network,),
        scheme=ACDC,
        cases=pd.DataFrame({"qi": [0.5]}),
        features=({"noise": noise},),
    )


def pairs_in(root: Path, *names: str) -> Pairs:
    (root / "in").mkdir(exist_ok=True)
    found = []
    for i, name in enumerate(names):
        image, mask = root / "in" / f"{i}.nii", root / "in" / f"{i}_mask.nii"
        for path, value in ((image, i), (mask, 100 + i)):
            if not path.exists():
                nib.save(nib.Nifti1Image(np.full(SHAPE, value, np.uint8), np.eye(4)), path)
        found.append(Pair(name, image, mask))
    return Pairs(tuple(found))


BARE = AssessOptions(report=False)

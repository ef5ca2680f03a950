"""quality.json as it is really written keeps to its contract, whatever the mask, the network and the run are like."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from constant_rate import EVERYTHING_WRONG

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.assessment.model import FoldNetwork
from whqa.judges.calibration import CorrectionRule
from whqa.modules.errormap import ErrorMapModule, in_channels
from whqa.networks.voxresnet import VoxResNet
from whqa.structures import MMWHS

Case = tuple[Path, Path]
Unlike = Callable[[Any, str], list[str]]


@pytest.fixture
def case(phantoms: Path) -> Case:
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    return next(root.rglob("ct_train_1001_image.nii.gz")), next(root.rglob("ct_train_1001_label.nii.gz"))


def _binary(run: TrainedRun) -> TrainedRun:
    """The run as if its network had no label head."""
    inputs, n = ("image", "mask"), run.scheme.n_classes
    network = VoxResNet(in_channels(inputs, n), out_channels=1, width=4)
    module = ErrorMapModule(network, n_classes=n, inputs=inputs, head="binary", total_steps=1)
    columns = [name for name in run.cases if name.endswith(("_predicted", "_corrected"))]
    cases = run.cases.assign(**dict.fromkeys(columns, np.nan), gain=np.nan)
    return replace(run, networks=(FoldNetwork(0, module.eval(), "0" * 64),), cases=cases)


def _of_many_cases(run: TrainedRun) -> TrainedRun:
    """The run as if it had kept the numbers of twenty cases like its own, without their references."""
    rows = [row for row in run.features if row["mask_kind"] != "reference"]
    return replace(run, features=tuple({**row, "case": f"{row['case']}-{i}"} for i in range(20) for row in rows))


def _written(run: TrainedRun, image: Any, mask: Any, out: Path, **options: Any) -> dict[str, Any]:
    write_assessment(assess(image, mask, run, **options), out, report=False)
    found: dict[str, Any] = json.loads((out / "quality.json").read_text())
    return found


def test_with_and_without_intervals_from_files_and_from_memory(
    run: TrainedRun, case: Case, tmp_path: Path, unlike_contract: Unlike
) -> None:
    without = _written(run, *case, tmp_path / "a")
    assert unlike_contract(without, "quality.schema.json") == []
    assert without["qi"]["heart"]["interval"] is None
    volumes = [(np.asanyarray(nib.load(path).dataobj), nib.load(path).affine) for path in case]
    known = _written(run, *volumes, tmp_path / "b", confidence=0.5)
    assert unlike_contract(known, "quality.schema.json") == []
    assert len(known["qi"]["heart"]["interval"]) == 2
    assert known["image"]["sha256"] is None
    assert list(known["structures"]) == list(MMWHS.keys)


def test_without_label_head(run: TrainedRun, case: Case, tmp_path: Path, unlike_contract: Unlike) -> None:
    found = _written(_binary(run), *case, tmp_path)
    assert unlike_contract(found, "quality.schema.json") == []
    assert found["model"]["head"] == "binary"
    assert found["correction"]["threshold"] is None
    for structure in found["structures"].values():
        assert structure["reason"]
        assert structure["dice_opinion"] is None
        assert structure["correction"]["reason"].startswith("left alone: the run's network has no label head")


def test_a_lost_mask(run: TrainedRun, case: Case, tmp_path: Path, unlike_contract: Unlike) -> None:
    affine = nib.load(case[0]).affine
    values = np.zeros(nib.load(case[0]).shape, np.int16)
    values[5, 5, 5] = 500
    found = _written(run, case[0], (values, affine), tmp_path)
    assert unlike_contract(found, "quality.schema.json") == []
    assert found["verdict"]["decision"] == "reject"


def test_a_strange_mask_that_is_corrected(
    run: TrainedRun,
    case: Case,
    tmp_path: Path,
    correcting: Callable[..., TrainedRun],
    unlike_contract: Unlike,
) -> None:
    mask = nib.load(case[1])
    values = np.asanyarray(mask.dataobj).copy()
    values[values == MMWHS.values["ao"]] = 0
    doubtful = EVERYTHING_WRONG
    judge = _of_many_cases(correcting(run, CorrectionRule(0.0, 0.0), rate=doubtful))
    found = _written(judge, case[0], (values, mask.affine), tmp_path / "out")
    assert unlike_contract(found, "quality.schema.json") == []
    assert found["out_of_distribution"]
    assert found["correction"]["applied"]
    assert found["correction"]["changed_voxels"] > 0
    assert found["correction"]["out_of_fold"]["gain"] == pytest.approx(0.1)


def test_what_breaks_the_contract_is_seen(run: TrainedRun, case: Case, tmp_path: Path, unlike_contract: Unlike) -> None:
    found = _written(run, *case, tmp_path)
    assert len(unlike_contract(found | {"new": 1}, "quality.schema.json")) == 1
    assert len(unlike_contract(found | {"verdict": {}}, "quality.schema.json")) > 0
    found["qi"]["heart"]["value"] = 1.5
    assert len(unlike_contract(found, "quality.schema.json")) == 1

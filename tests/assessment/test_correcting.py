"""Masks are corrected structure by structure, by a rule that the run's networks chose; other organs never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from constant_rate import EVERYTHING_WRONG

from whqa.assessment import TrainedRun, assess, load_run
from whqa.assessment.correction_choice import correction_choice
from whqa.judges.calibration import CorrectionRule
from whqa.structures import MMWHS

Case = tuple[Path, tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def case(phantoms: Path) -> Case:
    """A scan and its label map with another organ beside the heart."""
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    label = nib.load(next(root.rglob("ct_train_1001_label.nii.gz")))
    values = np.asanyarray(label.dataobj).astype(np.int16)
    values[(values == 0) & (np.indices(values.shape)[0] % 2 == 0)] = 9
    return next(root.rglob("ct_train_1001_image.nii.gz")), (values, label.affine)


@pytest.fixture
def eager(run: TrainedRun, correcting: Callable[..., TrainedRun]) -> TrainedRun:
    """A run that expects all voxels to be wrong, and corrects whatever it can."""
    return correcting(run, CorrectionRule(0.0, 0.0), rate=EVERYTHING_WRONG)


SCHEME: dict[str, Any] = {**MMWHS.values, "ignore": 9}


def test_voxels_of_other_organs_are_never_corrected(eager: TrainedRun, case: Case) -> None:
    found = assess(*case, eager, label_map=SCHEME)
    values = case[1][0]
    assert found.quality["correction"]["changed_voxels"] == (found.corrected != found.mask).sum() > 0
    assert (found.corrected[values == 0] > 0).any(), "the run would give background to the heart"
    assert found.corrected_values is not None
    np.testing.assert_array_equal(found.corrected_values[values == 9], 9)
    assert not found.corrected[values == 9].any()


def test_the_record_says_of_each_structure_whether_and_why_it_was_corrected(
    run: TrainedRun, case: Case, correcting: Callable[..., TrainedRun]
) -> None:
    seen = set()
    # all voxels are expected to be wrong
    doubtful = EVERYTHING_WRONG
    for rule in (CorrectionRule(0.2, 0.0), CorrectionRule(0.3, 0.02), CorrectionRule(0.99, 0.2), None):
        found = assess(*case, correcting(run, rule, rate=doubtful), label_map=SCHEME)
        changed = found.corrected != found.mask
        whole = found.quality["correction"]
        assert whole["applied"] == (rule is not None)
        assert whole["threshold"] == (None if rule is None else rule.probability)
        for index, key in enumerate(MMWHS.keys, start=1):
            told = found.quality["structures"][key]["correction"]
            touched = bool((((found.mask == index) | (found.corrected == index)) & changed).any())
            assert told["applied"] or not touched, "what is said to be left alone is left alone"
            assert (told["gain_expected"] is None) == (not told["applied"])
            assert told["reason"].startswith("corrected: " if told["applied"] else "left alone: ")
            if rule is None:
                assert told["reason"] == whole["reason"]
            elif told["applied"]:
                assert told["gain_expected"] >= rule.gain
            seen.add(told["applied"])
    assert seen == {True, False}


def test_every_network_must_know_a_rule_and_the_most_careful_of_each_number_counts(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = tuple(replace(load_run(run.path).networks[0], fold=fold) for fold in range(2))
    both = replace(run, networks=networks)
    for rules, expected in (
        ((CorrectionRule(0.5, 0.1), CorrectionRule(0.8, 0.02)), CorrectionRule(0.8, 0.1)),
        ((CorrectionRule(0.5, 0.1), None), None),
        ((None, None), None),
    ):
        for network, rule in zip(networks, rules, strict=True):
            monkeypatch.setattr(network.module, "calibration", replace(network.module.calibration, correction=rule))
        choice = correction_choice(both)
        assert choice.rule == expected
        assert choice.reason.startswith("left alone: " if expected is None else "applied where another label has a")
    assert correction_choice(both).unless("so it is").reason.startswith("left alone: on held-back")


def test_a_mask_that_is_lost_on_the_grid_of_the_run_is_left_alone(eager: TrainedRun, case: Case) -> None:
    values = np.zeros_like(case[1][0])
    values[5, 5, 5] = 500
    correction = assess(case[0], (values, case[1][1]), eager).quality["correction"]
    assert (correction["applied"], correction["changed_voxels"]) == (False, 0)
    assert correction["reason"] == "left alone: the mask has no voxel on the grid of the run"

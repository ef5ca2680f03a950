"""Masks are corrected structure by structure, by a rule that the run's networks chose; other organs never."""

from __future__ import annotations

import math
import shutil
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
from whqa.judges.correction import RULES, MaskGains
from whqa.results.held_back_gains import HELD_BACK_GAINS, write_gains
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


def test_the_rule_follows_from_the_held_back_masks_of_all_networks(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(study / "runs" / "tiny", copy, ignore=shutil.ignore_patterns("masks", "figures"))
    first, second = (copy / "errormap" / fold for fold in "01")
    keys, gains = MMWHS.keys, np.zeros((len(RULES), MMWHS.n_classes))
    # each network alone would take the rule that gains most of its own patients; that of fold 1 harms one of fold 0
    of_first, of_second, harmful = gains.copy(), gains.copy(), gains.copy()
    of_first[4, 0] = of_second[4, 0] = 0.1
    of_second[2, 0], harmful[2, 0] = 0.3, -0.2
    masks = {
        first: [MaskGains("a", "a", "final", "bad", of_first), MaskGains("b", "b", "final", "mild", harmful)],
        second: [MaskGains("c", "c", "final", "bad", of_second), MaskGains("d", "d", "final", "mild", gains)],
    }
    for run_dir, of_run in masks.items():
        write_gains(run_dir / HELD_BACK_GAINS, of_run, keys)
        (run_dir / "COMPLETED").write_text("")
    alone = [load_run(copy, [fold]).correction for fold in (0, 1)]
    # what never changed is left alone
    assert alone == [replace(rule, of_structures=(rule.gain, *(math.inf,) * 6)) for rule in (RULES[4], RULES[2])]
    both = load_run(copy, [0, 1])
    assert (both.correction, both.n_held_back) == (alone[0], 4)
    assert correction_choice(both).reason.startswith("applied where another label has a probability of 0.65 and the ")
    careful = replace(RULES[3], of_structures=(*(0.05,) * 5, math.inf, 0.2))
    told = correction_choice(replace(both, correction=careful)).reason
    assert "is expected to gain 0.05 (ascending aorta never, pulmonary artery 0.2)" in told


def test_where_no_rule_can_be_known_the_reason_says_so(run: TrainedRun) -> None:
    assert correction_choice(replace(run, correction=None, n_held_back=3)).reason.endswith("no correction helped")
    nothing = correction_choice(replace(run, correction=None, n_held_back=0)).reason
    assert nothing.startswith("left alone: the run held no training cases back")
    assert correction_choice(replace(run, correction=RULES[0])).unless("so it is").reason == "left alone: so it is"


def test_a_mask_that_is_lost_on_the_grid_of_the_run_is_left_alone(eager: TrainedRun, case: Case) -> None:
    values = np.zeros_like(case[1][0])
    values[5, 5, 5] = 500
    correction = assess(case[0], (values, case[1][1]), eager).quality["correction"]
    assert (correction["applied"], correction["changed_voxels"]) == (False, 0)
    assert correction["reason"] == "left alone: the mask has no voxel on the grid of the run"

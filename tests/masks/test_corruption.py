"""Faults are drawn for what a mask has, recorded, and made again from their records."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whqa.errors import InputError
from whqa.masks.corruption import (
    FAULTS,
    HELD_OUT_FAULTS,
    SEEN_FAULTS,
    Fault,
    corrupt,
    draw_faults,
    write_faulty_mask,
)
from whqa.structures import ACDC, MMWHS


def test_the_same_seed_gives_the_same_faults_and_records_replay_them(even_heart: Any) -> None:
    faults = even_heart.draw(5, 3)
    assert len(faults) == 5
    assert faults == even_heart.draw(5, 3)
    assert faults != even_heart.draw(5, 4)
    replayed = [Fault(**record) for record in json.loads(json.dumps([f.to_dict() for f in faults]))]
    assert replayed == faults
    np.testing.assert_array_equal(even_heart.spoil(replayed), even_heart.spoil(faults), strict=True)


def test_another_process_makes_the_same_mask(even_heart: Any, tmp_path: Path) -> None:
    faults = even_heart.draw(len(FAULTS), 7, kinds=list(FAULTS))
    assert {f.kind for f in faults} == set(FAULTS)
    np.save(tmp_path / "mask.npy", even_heart.mask)
    (tmp_path / "faults.json").write_text(json.dumps([f.to_dict() for f in faults]))
    script = (
        "import json\nimport numpy as np\nfrom whqa.masks.corruption import Fault, corrupt\n"
        "from whqa.structures import MMWHS\n"
        "faults = [Fault(**f) for f in json.load(open('faults.json'))]\n"
        "np.save('twin.npy', corrupt(np.load('mask.npy'), (4.0, 4.0, 4.0), MMWHS.keys, faults))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "twin.npy"), even_heart.spoil(faults), strict=True)


def test_two_kinds_are_held_out_of_training(even_heart: Any) -> None:
    assert set(HELD_OUT_FAULTS) == {"coarse", "slice_shift"}
    assert sorted((*SEEN_FAULTS, *HELD_OUT_FAULTS)) == sorted(FAULTS)
    assert {f.kind for f in even_heart.draw(14, 0)} == set(SEEN_FAULTS)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 3), thick=st.booleans())
def test_faults_change_a_mask_and_invent_no_label(
    even_heart: Any, sliced_heart: Any, seed: int, n: int, thick: bool
) -> None:
    heart = sliced_heart if thick else even_heart
    before = heart.mask.copy()
    faults = heart.draw(n, seed, kinds=list(FAULTS))
    spoiled = heart.spoil(faults)
    assert len({f.kind for f in faults}) == n
    np.testing.assert_array_equal(heart.mask, before, err_msg="the mask itself must stay as it is")
    assert spoiled.dtype == np.uint8
    assert set(np.unique(spoiled)) <= set(np.unique(before))
    assert heart.error_rate(faults[:1]) > 0


@settings(max_examples=15, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), seed=st.integers(0, 1000), thick=st.sampled_from([1.0, 10.0]))
def test_tiny_volumes(shape: tuple[int, int, int], seed: int, thick: float) -> None:
    mask = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    mask.flat[0] = 1
    spacing = (1.5, 1.5, thick)
    faults = draw_faults(mask, 2, seed, spacing=spacing, structures=ACDC.keys, kinds=list(FAULTS))
    spoiled = corrupt(mask, spacing, ACDC.keys, faults)
    assert set(np.unique(spoiled)) <= {0, *np.unique(mask)}
    assert faults
    assert (corrupt(mask, spacing, ACDC.keys, faults[:1]) != mask).any()


def test_a_cohort_without_vessels_and_atria_has_none_of_their_faults(even_heart: Any) -> None:
    ventricles = replace(even_heart, mask=np.where(even_heart.mask <= 2, even_heart.mask, 0), structures=("lv", "rv"))
    for kind in ("vessel_long", "vessel_cut", "valve"):
        assert ventricles.draw(2, 0, kinds=(kind,)) == []
    sides = ventricles.draw(1, 0, kinds=("sides",), severity=(1, 1))
    np.testing.assert_array_equal(ventricles.spoil(sides), np.array([0, 2, 1], np.uint8)[ventricles.mask])


def test_error_rates_are_spread_over_decades(even_heart: Any) -> None:
    rates = [even_heart.error_rate(even_heart.draw(1, seed)) for seed in range(300)]
    lowest, quarter, middle, three_quarters, highest = np.quantile(rates, [0.02, 0.25, 0.5, 0.75, 0.98])
    assert lowest < 0.0002
    assert highest > 0.02
    assert 0.0003 < quarter < 0.001 < middle < 0.004 < three_quarters < 0.015


@pytest.mark.parametrize("kind", list(FAULTS))
def test_gross_faults_are_worse_than_mild_ones(kind: str, even_heart: Any) -> None:
    mild, middling, gross = (
        np.mean([even_heart.error_rate(even_heart.draw(1, s, kinds=(kind,), severity=(v, v))) for s in range(6)])
        for v in (0.0, 0.5, 1.0)
    )
    assert 0 < mild < middling < gross


def test_bad_input(even_heart: Any) -> None:
    with pytest.raises(InputError, match="no structure"):
        replace(even_heart, mask=np.zeros((3, 3, 3), np.uint8)).draw(1, 0)
    with pytest.raises(InputError, match="fault 'x': must be one of wobble"):
        even_heart.spoil([Fault("x", 1, 0, 1.0, (0, 0, 0))])
    with pytest.raises(InputError, match="fault 'x': must be one of wobble"):
        even_heart.draw(1, 0, kinds=("x",))


def test_a_written_mask_has_the_label_maps_grid_and_values_and_gross_faults(even_heart: Any, tmp_path: Path) -> None:
    affine = np.diag([-4.0, -4, 4, 1])
    label = MMWHS.to_values(even_heart.mask)
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "label.nii.gz")
    faults = write_faulty_mask(tmp_path / "label.nii.gz", MMWHS, 3, 0, tmp_path / "out" / "mask.nii.gz")
    written = nib.load(tmp_path / "out" / "mask.nii.gz")
    np.testing.assert_array_equal(written.affine, affine)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), MMWHS.to_values(even_heart.spoil(faults)))
    assert [Fault(**f) for f in json.loads((tmp_path / "out" / "mask.json").read_text())] == faults
    assert len({f.kind for f in faults}) == 3
    assert even_heart.error_rate(faults) > 0.003


def test_a_mask_that_somebody_edited_is_not_made_again(even_heart: Any, tmp_path: Path) -> None:
    label, mask = tmp_path / "label.nii.gz", tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(MMWHS.to_values(even_heart.mask), np.diag([4.0, 4, 4, 1])), label)
    first = write_faulty_mask(label, MMWHS, 3, 0, mask)
    assert write_faulty_mask(label, MMWHS, 3, 0, mask) == first
    shutil.copyfile(label, mask)
    with pytest.raises(InputError, match=r"mask\.nii\.gz: is another mask than these faults make; .*: mv "):
        write_faulty_mask(label, MMWHS, 3, 0, mask)
    assert mask.read_bytes() == label.read_bytes()
    mask.unlink()
    assert write_faulty_mask(label, MMWHS, 3, 0, mask) == first

"""Faults change what they say and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.errors import InputError
from whqa.masks.corruption import FAULTS, Fault, corrupt, draw_faults, write_faulty_mask
from whqa.structures import MMWHS

SPACING = (2.0, 2.0, 3.0)


def _mask() -> np.ndarray:
    mask = np.zeros((40, 40, 30), np.uint8)
    mask[8:20, 8:30, 6:24] = 1
    mask[20:32, 8:30, 6:24] = 2
    return mask


def test_the_same_seed_gives_the_same_faults_and_records_replay_them() -> None:
    faults = draw_faults(_mask(), 4, seed=3)
    assert faults == draw_faults(_mask(), 4, seed=3)
    assert faults != draw_faults(_mask(), 4, seed=4)
    assert {f.structure for f in faults} == {1, 2}
    replayed = [Fault(**f.to_dict()) for f in faults]
    np.testing.assert_array_equal(corrupt(_mask(), SPACING, replayed), corrupt(_mask(), SPACING, faults))


@pytest.mark.parametrize("kind", list(FAULTS))
def test_every_fault_changes_its_structure_alone(kind: str) -> None:
    mask = _mask()
    fault = Fault(kind, 1, 2 if kind == "swapped" else 0, 6.0, (0.5, 0.5, 0.1))
    spoiled = corrupt(mask, SPACING, [fault])
    changed = spoiled != mask
    assert changed.any()
    assert not (mask[changed] == 2).any()
    if kind in ("grown", "island"):
        assert (mask[changed] == 0).all()
        assert (spoiled[changed] == 1).all()
    else:
        assert (mask[changed] == 1).all()
        assert (spoiled[changed] == fault.other).all()


def test_sizes_are_millimetres() -> None:
    shrunk = corrupt(_mask(), SPACING, [Fault("shrunk", 1, 0, 4.0, (0.5, 0.5, 0.5))])
    kept = np.argwhere(shrunk == 1)
    # two voxels of 2 mm and one of 3 mm from each face
    np.testing.assert_array_equal(kept.min(axis=0), [10, 10, 7])
    np.testing.assert_array_equal(kept.max(axis=0), [17, 27, 22])


def test_a_swap_takes_a_neighbour() -> None:
    kinds = {f.kind: f for seed in range(20) for f in draw_faults(_mask(), 6, seed)}
    assert {kinds["swapped"].structure, kinds["swapped"].other} == {1, 2}
    assert kinds["hole"].other == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no structure"):
        draw_faults(np.zeros((3, 3, 3), np.uint8), 1, 0)
    with pytest.raises(InputError, match="fault 'x': must be one of shrunk"):
        corrupt(_mask(), SPACING, [Fault("x", 1, 0, 1.0, (0, 0, 0))])


def test_a_written_mask_has_the_label_maps_grid_and_values(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -2, 3, 1])
    label = nib.Nifti1Image(MMWHS.to_values(_mask()), affine)
    nib.save(label, tmp_path / "label.nii.gz")
    faults = write_faulty_mask(tmp_path / "label.nii.gz", MMWHS, 2, 0, tmp_path / "out" / "mask.nii.gz")
    written = nib.load(tmp_path / "out" / "mask.nii.gz")
    np.testing.assert_array_equal(written.affine, affine)
    expected = MMWHS.to_values(corrupt(_mask(), SPACING, faults))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), expected)
    assert [Fault(**f) for f in json.loads((tmp_path / "out" / "mask.json").read_text())] == faults

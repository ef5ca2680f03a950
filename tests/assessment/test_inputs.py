"""The two volumes of an assessment: read once, hashed once, and the same from a file and from memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.assessment.batch import assess_many
from whqa.assessment.batch_case import AssessOptions
from whqa.assessment.pairs import Pair, Pairs
from whqa.data.formats import stream
from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS

Case = tuple[Path, Path]


@pytest.fixture
def case(phantoms: Path) -> Case:
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    return next(root.rglob("ct_train_1001_image.nii.gz")), next(root.rglob("ct_train_1001_label.nii.gz"))


def test_each_file_is_decoded_once_and_hashed_once(
    run: TrainedRun, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()
    hashed: Counter[str] = Counter()
    open_gzip, file_digest = stream.igzip.open, hashlib.file_digest

    def counting_open(file: Any, *options: Any) -> Any:
        decoded[Path(file.name).name] += 1
        return open_gzip(file, *options)

    def counting_digest(file: Any, *options: Any) -> Any:
        hashed[Path(file.name).name] += 1
        return file_digest(file, *options)

    monkeypatch.setattr(stream.igzip, "open", counting_open)
    monkeypatch.setattr(hashlib, "file_digest", counting_digest)
    names = {path.name for path in case}
    (judged,) = assess_many(Pairs((Pair("a", *case),)), run, tmp_path / "out", AssessOptions(report=False))
    assert judged.error is None
    assert decoded == dict.fromkeys(names, 2), "once for the header, once for the voxels"
    assert {name: hashed[name] for name in names} == dict.fromkeys(names, 1)


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int32, np.int32),
        (np.uint32, np.int16),
        (np.int64, np.int16),
        (np.uint64, np.int16),
        (np.float32, np.int16),
        (np.float64, np.int16),
    ],
)
def test_a_mask_is_written_in_a_type_that_others_open_wherever_it_came_from(
    run: TrainedRun, case: Case, tmp_path: Path, stored: type, written: type
) -> None:
    label = nib.load(case[1])
    values = np.asanyarray(label.dataobj).astype(stored)
    header = label.header.copy()
    header.set_data_dtype(stored)
    nib.save(nib.Nifti1Image(values, label.affine, header), tmp_path / "mask.nii.gz")
    for number, mask in enumerate((tmp_path / "mask.nii.gz", (values, label.affine))):
        out = tmp_path / str(number)
        write_assessment(assess(case[0], mask, run), out, report=False)
        assert nib.load(out / "corrected_mask.nii.gz").get_data_dtype() == written


def test_values_that_the_mask_s_own_type_cannot_hold_get_a_larger_one(run: TrainedRun, case: Case) -> None:
    label = nib.load(case[1])
    indices = MMWHS.to_indices(np.asanyarray(label.dataobj), "label")
    numbers = {key: number for number, key in enumerate(MMWHS.keys, start=1)}
    kept = assess(case[0], (indices.astype(np.int8), label.affine), run, label_map=numbers)
    assert kept.corrected_values is not None
    assert kept.corrected_values.dtype == np.int8
    larger = {**numbers, "pa": [300, numbers["pa"]]}
    widened = assess(case[0], (indices, label.affine), run, label_map=larger)
    assert widened.corrected_values is not None
    assert widened.corrected_values.dtype == np.int16


def test_another_grid_is_refused_before_a_voxel_is_read(run: TrainedRun, case: Case, tmp_path: Path) -> None:
    label = nib.load(case[1])
    moved = label.affine.copy()
    moved[:3, 3] += 0.5 * moved[:3, 0]
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj), moved), tmp_path / "mask.nii.gz")
    damaged = tmp_path / "image.nii.gz"
    damaged.write_bytes(case[0].read_bytes()[:-300])
    with pytest.raises(InputError, match=r"mask\.nii\.gz: its grid differs .*between the image's.*; add --resample"):
        assess(damaged, tmp_path / "mask.nii.gz", run)


@pytest.mark.parametrize("rule", ["pixdim", "affine", "refuse"])
def test_an_image_in_memory_is_placed_as_its_file_is(run: TrainedRun, case: Case, tmp_path: Path, rule: Any) -> None:
    """Of which the spacing of pixdim is twice that of the affine."""
    image, label = (nib.load(path) for path in case)
    for name, volume, stored in (("image", image, np.int16), ("mask", label, np.int16)):
        raw = bytearray(nib.Nifti1Image(np.asanyarray(volume.dataobj).astype(stored), volume.affine).to_bytes())
        raw[80:92] = (2 * np.linalg.norm(volume.affine[:3, :3], axis=0)).astype("<f4").tobytes()
        (tmp_path / f"{name}.nii").write_bytes(raw)
    files = tmp_path / "image.nii", tmp_path / "mask.nii"
    theirs = replace(run, spacing_rule=rule)
    if rule == "refuse":
        for given, says in ((files, f"{files[0]}: pixdim says"), (map(nib.load, files), "^image: pixdim says")):
            with pytest.raises(InputError, match=says + ".* which the run .* refuses; .*Nifti1Image"):
                assess(*given, theirs)
        return
    by_path, in_memory = assess(*files, theirs), assess(*map(nib.load, files), theirs)
    np.testing.assert_array_equal(in_memory.affine, by_path.affine)
    assert in_memory.quality["image"]["spacing_mm"] == by_path.quality["image"]["spacing_mm"]
    assert in_memory.quality["qi"] == by_path.quality["qi"]
    told = [[w for w in found.quality["warnings"] if "contradicts itself" in w] for found in (by_path, in_memory)]
    assert len(told[0]) == len(told[1]) > 0


def test_a_folder_of_other_structures_is_refused_by_their_names(run: TrainedRun, case: Case, tmp_path: Path) -> None:
    volume = nib.load(case[1])
    other = nib.Nifti1Image((np.asanyarray(volume.dataobj) > 0).astype(np.uint8), volume.affine)
    nib.save(other, tmp_path / "heart_atrium_left.nii.gz")
    theirs = replace(run, scheme=ACDC)
    with pytest.raises(InputError, match=r"holds la, and nothing of what the run .* judges \(rv, myo, lv\)"):
        assess(case[0], tmp_path, theirs)

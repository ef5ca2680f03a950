"""TotalSegmentator: subjects, the choice of them, and structure files that are missing, empty or odd."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layout_files import put, raises, subject

from whqa.config.cohorts import recognised
from whqa.data.case import Case, Cohort
from whqa.data.reading import read_case
from whqa.data.sources.checks import checked
from whqa.data.sources.totalsegmentator import FILES, read_totalsegmentator
from whqa.errors import InputError


def test_totalsegmentator_subjects(tmp_path: Path) -> None:
    for name in ("s0000", "s0002", "s0010"):
        subject(tmp_path / "Totalsegmentator_dataset", name)
    put(tmp_path / "Totalsegmentator_dataset" / "s0003" / "ct.nii.gz")
    (tmp_path / "Totalsegmentator_dataset" / "s0004").mkdir()
    cohort = checked(read_totalsegmentator(tmp_path))
    assert [(c.id, c.has_label) for c in cohort.cases] == [
        ("s0000", True),
        ("s0002", True),
        ("s0003", False),
        ("s0010", True),
    ]
    assert tuple(cohort["s0000"].parts) == cohort.scheme.keys
    assert [c.id for c in read_totalsegmentator(tmp_path / "Totalsegmentator_dataset").cases] == [
        c.id for c in cohort.cases
    ]


def test_totalsegmentator_choice_of_subjects(tmp_path: Path) -> None:
    for name in ("s0", "s1", "s2", "s3"):
        subject(tmp_path, name)
    (tmp_path / "meta.csv").write_text(
        "image_id;age;split\ns0;80;train\ns1;81;val\ns2;;train\ns3;5;test\ns99;5;train\n", encoding="utf-8-sig"
    )
    file = tmp_path / "list.txt"
    file.write_text("# no heart\ns1\n\n  s2 \r\n")

    def ids(**settings: object) -> list[str]:
        return [c.id for c in read_totalsegmentator(tmp_path, **settings).cases]  # type: ignore[arg-type]

    assert ids(subjects=["s3", "s1"]) == ["s1", "s3"]
    assert ids(subjects="s3") == ["s3"]
    assert ids(subjects=file) == ["s1", "s2"]
    assert ids(without=str(file)) == ["s0", "s3"]
    assert ids(without=["s0"]) == ["s1", "s2", "s3"]
    assert ids(split="train") == ["s0", "s2"]
    assert ids(split="train", without=file) == ["s0"]
    for settings, message in (
        ({"subjects": ["s1", "s7", "s8"]}, "has no subject 's7' (2 of data.subjects are not there)"),
        ({"subjects": tmp_path / "no.txt"}, "no.txt: not readable (No such file or directory); data.subjects must be"),
        ({"without": tmp_path}, "not readable (Is a directory); data.without must be names, [a, b], or a text file"),
        ({"without": ["s0", "s77"]}, "data.without: cohort 'totalsegmentator' has no case 's77'; correct the name"),
        ({"subjects": []}, "no subject is left by data.subjects, data.without and data.split"),
        ({"split": "dev"}, "meta.csv: has no split 'dev'; there are test, train, val"),
    ):
        with raises(message):
            ids(**settings)
    for table in ("image_id, split\ns0 , train\ns1,val \n\ns2,train\n", "image_id ;split\n s0; train \ns2;train\ns3\n"):
        (tmp_path / "meta.csv").write_text(table)
        assert ids(split="train") == ["s0", "s2"]
    (tmp_path / "meta.csv").write_text("a,b\n1,2\n")
    with raises("meta.csv: has no columns image_id and split"):
        ids(split="train")
    (tmp_path / "meta.csv").write_text(f"image_id,split\n{'x' * 200_000},2\n")
    with raises("meta.csv: not readable as a table (field larger than field limit"):
        ids(split="train")
    (tmp_path / "meta.csv").unlink()
    with raises("meta.csv: not readable (No such file or directory); data.split needs it"):
        ids(split="train")


def test_totalsegmentator_missing_files_are_problems(tmp_path: Path) -> None:
    with raises("no TotalSegmentator subjects found; it should be a folder with s0000/ct.nii.gz"):
        read_totalsegmentator(tmp_path)
    for key in ("rv", "aorta"):
        (subject(tmp_path, "s0") / "segmentations" / f"{FILES.get(key, key)}.nii.gz").unlink()
    with raises("s0/segmentations: aorta.nii.gz is missing (6 of 7 structure files are there); copy it, or leave"):
        checked(read_totalsegmentator(tmp_path))
    for path in (tmp_path / "s0" / "segmentations").iterdir():
        path.unlink()
    with raises("heart_ventricle_left.nii.gz is missing (0 of 7 structure files are there)"):
        checked(read_totalsegmentator(tmp_path))
    put(tmp_path / "s0" / "segmentations" / "heart.nii.gz")
    with raises("version 2 of the data set has the heart as one structure, take version 1"):
        checked(read_totalsegmentator(tmp_path))
    subject(tmp_path, "s0")
    subject(tmp_path / "copy", "s0")
    with raises("ct.nii.gz: subject s0 is also at"):
        checked(read_totalsegmentator(tmp_path))


def test_a_label_map_beside_the_scan_is_another_layout(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        for file in ("ct", "label"):
            put(tmp_path / name / f"{file}.nii.gz")
    with pytest.raises(InputError, match=r"no subject has a folder segmentations.*'label=\*/label\.nii\.gz'"):
        read_totalsegmentator(tmp_path)
    with pytest.raises(InputError, match=r"state --source, .*'image=\*_image\.nii\.gz'"):
        recognised(tmp_path)


def test_totalsegmentator_scan_without_a_heart(tmp_path: Path) -> None:
    """The headers are sound, so reading the voxels says it; an abdomen shows the aorta all the same."""
    subject(tmp_path, "s0", empty=tuple(set(FILES) - {"ao"}))
    subject(tmp_path, "s1", empty=("pa", "ao", "rv"))
    cohort = checked(read_totalsegmentator(tmp_path))
    with raises("s0/ct.nii.gz: no voxel of the heart in its 7 structure files") as caught:
        read_case(cohort, cohort["s0"])
    assert caught.value.code == "no-heart"
    assert "leave the subject s0 out (data.without)" in str(caught.value)
    reference = read_case(cohort, cohort["s1"])[1]
    assert reference is not None
    # all masks are one box here, so the last of those that are not empty holds it
    assert set(np.unique(reference.array)) == {0, 1 + cohort.scheme.keys.index("myo")}


def test_parts_of_another_grid_or_scheme_are_refused(tmp_path: Path) -> None:
    subject(tmp_path, "s0")
    cohort = read_totalsegmentator(tmp_path)
    case = cohort.cases[0]
    odd = Case("s0", "s0", "ct", case.image, parts={"liver": case.parts["lv"]})
    with raises("structure 'liver' is not of the scheme 'totalsegmentator_v1'"):
        read_case(Cohort("x", (odd,), cohort.scheme), odd)
    nib.save(nib.Nifti1Image(np.ones((4, 5, 7), dtype=np.uint8), np.eye(4)), case.parts["rv"])
    with pytest.raises(
        InputError, match=r"heart_ventricle_right\.nii\.gz: its grid differs from that of .*ct\.nii\.gz"
    ):
        checked(cohort)
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 3, dtype=np.uint8), np.eye(4)), case.parts["rv"])
    with raises("heart_ventricle_right.nii.gz: unknown label value(s) [3]"):
        read_case(cohort, case)

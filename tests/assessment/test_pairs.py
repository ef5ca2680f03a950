"""Which mask goes with which image, and under which folder name a case is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whqa.assessment.pairs import Pair, folder_names, pairs_of_folders, pairs_of_table
from whqa.errors import InputError


def _touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def _found(images: Path, masks: Path) -> dict[str, tuple[str, str]]:
    return {p.name: (p.image.name, p.mask.name) for p in pairs_of_folders(images, masks).found}


@pytest.mark.parametrize(
    ("image", "mask", "name"),
    [
        ("a.nii.gz", "a.nii.gz", "a"),
        ("a_0000.nii.gz", "a.nii.gz", "a"),
        ("ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz", "ct_train_1001"),
        ("a_IMG.nii", "a_Seg.nii.gz", "a"),
        ("a.b.mha", "a.b_prediction.nrrd", "a.b"),
        ("_image.nii.gz", "_image.nii.gz", "_image"),
        ("x_label.nii.gz", "x_label.nii.gz", "x"),
    ],
)
def test_two_folders_are_matched_by_name(tmp_path: Path, image: str, mask: str, name: str) -> None:
    images, masks = _touch(tmp_path / "i", image), _touch(tmp_path / "m", mask)
    assert _found(images, masks) == {name: (image, mask)}


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a_image.nii.gz", "a_label.nii.gz"), ("a_0000.nii.gz", "a.nii.gz"), ("a.nii.gz", "a_seg.nii.gz")],
)
def test_one_folder_may_hold_both(tmp_path: Path, image: str, mask: str) -> None:
    folder = _touch(tmp_path / "f", image, mask)
    assert _found(folder, folder) == {"a": (image, mask)}


def test_references_beside_the_images_and_other_channels_are_no_images(tmp_path: Path) -> None:
    images = _touch(tmp_path / "i", "a_image.nii.gz", "a_label.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c_label.nii")
    masks = _touch(tmp_path / "m", "a.nii.gz", "b.nii.gz", "c.nii.gz", "notes.txt", ".hidden.nii.gz")
    found = pairs_of_folders(images, masks)
    assert {p.image.name for p in found.found} == {"a_image.nii.gz", "b_0000.nii.gz"}
    assert found.problems == (("c", f"{masks / 'c.nii.gz'}: no image of this name in {images}"),)


def test_what_has_no_partner_or_two_is_told(tmp_path: Path) -> None:
    images = _touch(tmp_path / "i", "a.nii.gz", "b.nii.gz", "c.nii.gz", "c.nii")
    masks = _touch(tmp_path / "m", "a.nii.gz", "c.nii.gz", "d.nii.gz")
    found = pairs_of_folders(images, masks)
    assert [p.name for p in found.found] == ["a"]
    assert dict(found.problems) == {
        "b": f"{images / 'b.nii.gz'}: no mask of this name in {masks}",
        "c": f"{images / 'c.nii'} and c.nii.gz are of one case by name; remove or rename one",
        "d": f"{masks / 'd.nii.gz'}: no image of this name in {images}",
    }


def test_a_file_is_not_its_own_mask(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "f", "a.nii.gz")
    with pytest.raises(InputError, match="no image with a mask of the same name"):
        pairs_of_folders(folder, folder)


def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_bytes('\ufeffImage;MASK ;name;Modality;age\r\nin/a_image.nii.gz;"m;1.nii";;MR;7\r\n;;;;\r\n'.encode())
    table_2 = tmp_path / "plain.csv"
    table_2.write_text("mask,image,name\n/m.nii,/i.nii,../x\n")
    assert pairs_of_table(table).found == (Pair("a", tmp_path / "in/a_image.nii.gz", tmp_path / "m;1.nii", "mr"),)
    assert pairs_of_table(table_2).found == (Pair("../x", Path("/i.nii"), Path("/m.nii")),)


def test_a_bad_row_is_a_problem_of_its_own(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("image,mask,name,modality\na.nii,b.nii,,\nc.nii,,,\n,d.nii,dd,\ne.nii,f.nii,,pet\n")
    found = pairs_of_table(table)
    assert [p.name for p in found.found] == ["a"]
    assert found.problems == (
        ("c", f"{table}: line 3 has no mask"),
        ("dd", f"{table}: line 4 has no image"),
        ("e", f"{table}: line 5: modality 'pet' must be ct or mr"),
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"image,label\na,b\n", "column 'mask' is missing; there are image, label"),
        (b"", "column 'image' is missing; there are none"),
        (b"image,mask\n", "has no rows"),
        (b"\xff\xfe\x00", "not readable as a CSV table"),
        (b'image,mask\n"' + b"x" * 200_000 + b'",b\n', "not readable as a CSV table"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=says):
        pairs_of_table(table)


def test_folder_names_are_plain() -> None:
    names = ["case 7", "../x", "/etc/passwd", "..", "", "<img src=x>", "Herz_ü", "index.html", "A", "a", "a"]
    assert folder_names(names) == [
        *("case_7", "x", "etc_passwd", "case", "case-2", "img_src_x", "Herz_ü", "index.html-2", "A", "a-2", "a-3")
    ]


@given(st.lists(st.text(max_size=200), max_size=8))
def test_no_name_leads_out_of_the_folder_or_meets_another(names: list[str]) -> None:
    folders = folder_names(names)
    assert len({f.casefold() for f in folders}) == len(names)
    for folder in folders:
        assert Path(folder).name == folder
        assert not folder.startswith(".")
        assert folder.isprintable()
        assert len(folder) <= 90

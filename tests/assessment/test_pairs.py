"""Which mask goes with which image, and under which folder name a case is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from whqa.assessment.pairs import Pair, pairs_of_folders, pairs_of_table
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


SCAN_NUMBERS = ("pat_0000.nii.gz", "pat_0001.nii.gz", "pat_0002.nii.gz")


@pytest.mark.parametrize(
    "names",
    [
        SCAN_NUMBERS,
        SCAN_NUMBERS[1:],
        ("p_0000.nii.gz", "a.nii.gz", "b.nii.gz"),
        ("p.nii.gz", "p_0000.nii.gz", "p_0001.nii.gz"),
        ("a_seg.nii.gz", "b.nii.gz"),
        ("a_image.nii.gz", "b_label.nii.gz", "c.nii.gz"),
    ],
)
def test_equal_names_in_two_folders_are_one_case_each(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = pairs_of_folders(_touch(tmp_path / "i", *names), _touch(tmp_path / "m", *names))
    assert [(p.image.name, p.mask.name) for p in found.found] == [(name, name) for name in sorted(names)]
    assert len({p.name for p in found.found}) == len(names)
    assert found.problems == ()


def test_numbered_cases_keep_their_numbers(tmp_path: Path) -> None:
    images, masks = _touch(tmp_path / "i", *SCAN_NUMBERS), _touch(tmp_path / "m", *SCAN_NUMBERS)
    assert list(_found(images, masks)) == ["pat_0000", "pat_0001", "pat_0002"]
    worded = _touch(tmp_path / "w", *(name.replace(".nii", "_seg.nii") for name in SCAN_NUMBERS))
    assert list(_found(images, worded)) == ["pat_0000", "pat_0001", "pat_0002"]
    both = _touch(tmp_path / "w", *SCAN_NUMBERS)
    assert list(_found(both, both)) == ["pat_0000", "pat_0001", "pat_0002"]


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        ("a_image a_label", "a_label", "a_image a_label"),
        ("a_image a_label", "a_image a_label", "a_image a_label"),
        ("a a_label", "a_label", "a a_label"),
        ("a a_label", "a", "a a"),
        ("a_image a", "a", "a_image a"),
        ("a_0000 a_0001", "a", "a_0000 a"),
    ],
)
def test_a_reference_beside_its_image_is_not_taken_for_an_image(
    tmp_path: Path, images: str, masks: str, pairs: str
) -> None:
    places = [_touch(tmp_path / n, *(f"{w}.nii.gz" for w in s.split())) for n, s in (("i", images), ("m", masks))]
    found = pairs_of_folders(places[0], places[1])
    assert found == replace(found, found=found.found[:1], problems=())
    assert [path.name.removesuffix(".nii.gz") for p in found.found for path in (p.image, p.mask)] == pairs.split()


@pytest.mark.parametrize(
    ("images", "masks", "told"),
    [
        # the number names a case here, so the next number is one too
        ("p_0000 p_0001", "p_0000", ["i/p_0001.nii.gz: no mask of this name in"]),
        ("p", "p p_0001", ["m/p_0001.nii.gz: no image of this name in"]),
        ("q_0000 q_0001", "x", ["i/q_0000.nii.gz: no mask", "i/q_0001.nii.gz: no mask", "m/x.nii.gz: no image"]),
        ("p p_0000", "p", ["p.nii.gz and p_0000.nii.gz are of one case by name"]),
        ("p_0000", "p p_0000", ["p.nii.gz and p_0000.nii.gz are of one case by name"]),
        ("a a_seg", "a a_seg", ["a.nii.gz and a_seg.nii.gz are of one case by name"]),
        ("z_label", "b", ["m/b.nii.gz: no image", "i/z_label.nii.gz: by its name a mask, not an image"]),
        ("b", "z_image", ["i/b.nii.gz: no mask", "m/z_image.nii.gz: by its name an image, not a mask"]),
    ],
)
def test_nothing_is_left_out_silently(tmp_path: Path, images: str, masks: str, told: list[str]) -> None:
    places = [
        _touch(tmp_path / n, "fine.nii.gz", *(f"{w}.nii.gz" for w in names.split()))
        for n, names in (("i", images), ("m", masks))
    ]
    lines = [line for _, line in pairs_of_folders(places[0], places[1]).problems]
    assert len(lines) == len(told)
    assert all(part in line for line, part in zip(lines, told, strict=True)), lines


def test_no_pair_at_all_is_told_with_the_first_reason(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "f", "X_image.nii.gz", "X_label.nii.gz", "X_mask.nii.gz")
    with pytest.raises(InputError) as told:
        pairs_of_folders(folder, folder)
    assert str(told.value).startswith(f"{folder}: no image with a mask of the same name; ")
    reason = f"{folder / 'X_label.nii.gz'} and X_mask.nii.gz are of one case by name; remove or rename one"
    assert str(told.value).endswith(f"; {reason}")
    _touch(folder, "y.nii.gz", "z.nii.gz")
    with pytest.raises(InputError, match=r"rename one \(and 2 more\)$"):
        pairs_of_folders(folder, folder)


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
        (b"image,mask,Image\na,b,c\n", "has two columns 'image'; take one out"),
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


def test_a_folder_of_structure_files_is_the_mask_of_a_case(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for path in (images / "p1.nii.gz", images / "p2_0000.nii.gz", images / "p3.nii.gz"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for inner in ("p1/segmentations", "p2", "p3/other", ".p4"):
        (masks / inner).mkdir(parents=True)
        (masks / inner / "heart_ventricle_left.nii.gz").touch()
    found = pairs_of_folders(images, masks)
    assert [(pair.name, pair.mask) for pair in found.found] == [
        ("p1", masks / "p1" / "segmentations"),
        ("p2", masks / "p2"),
    ]
    assert [name for name, _ in found.problems] == ["p3"]
    with pytest.raises(InputError, match="holds the structures of one case, a file each; give its image"):
        pairs_of_folders(images, masks / "p2")


def test_a_table_that_was_written_on_windows(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.nii", "m.nii"):
        (tmp_path / "scans" / name).touch()
    (tmp_path / "t.csv").write_text("image;mask\r\nscans\\a.nii;scans\\m.nii\r\n")
    (pair,) = pairs_of_table(tmp_path / "t.csv").found
    assert pair.image.is_file()
    assert pair.mask.is_file()


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_bytes(b'image,mask,name\n\n"a.nii","m.nii","two\nlines"\nb.nii,\n')
    pairs = pairs_of_table(table)
    assert [pair.name for pair in pairs.found] == ["two\nlines"]
    assert pairs.problems == (("b", f"{table}: line 5 has no mask"),)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_name_of_a_column_may_hold_another_separator(tmp_path: Path, separator: str) -> None:
    table, other = tmp_path / "pairs.csv", {",": ";", ";": ",", "\t": ","}[separator]
    table.write_text(separator.join(("image", "mask", f"size{other} ml")) + "\n" + separator.join(("a", "b", "3")))
    (pair,) = pairs_of_table(table).found
    assert (pair.image, pair.mask) == (tmp_path / "a", tmp_path / "b")

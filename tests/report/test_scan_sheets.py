"""Sheets of scans: what is shown, where, and to which scale."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage, imread

from whqa.data.case import Case, Cohort
from whqa.data.phantom import write_phantoms
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError
from whqa.report.cohort_sheets import write_case_sheet, write_contact_sheet
from whqa.report.scan_sheets import Plane, SheetTile, case_sheet, contact_sheet, sheet_tile, slices_of
from whqa.structures import ACDC, MMWHS

FLAT = (216, 256, 10)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 3, "ct", 5, 6)
    return root


def marked(root: Path, affine: np.ndarray, label_shape: tuple[int, ...] = (40, 50, 30), spot=(30, 10, 20)) -> Cohort:
    """A dark scan with one bright voxel, and a cube of LV about it, stored as the affine says."""
    image, label = np.zeros(label_shape, np.int16), np.zeros(label_shape, np.int16)
    label[tuple(slice(s - 3, s + 4) for s in spot)] = 500
    image[spot] = 1000
    image[0, 0, 0] = 1
    for array, part in ((image, "image"), (label, "label")):
        nib.save(nib.Nifti1Image(array, affine), root / f"{part}.nii.gz")
    return Cohort("c", (Case("a", "a", "ct", root / "image.nii.gz", root / "label.nii.gz"),), MMWHS)


def bright(plane: Plane) -> tuple[float, float]:
    """Where the brightest pixel lies, in mm from the left and from below."""
    row, column = np.unravel_index(int(plane.grey.argmax()), plane.grey.shape)
    height, width = plane.grey.shape
    return (column + 0.5) * plane.mm[0] / width, (row + 0.5) * plane.mm[1] / height


@pytest.mark.parametrize("code", ["RAS", "LPS", "AIL", "PIR"])
def test_the_patients_right_is_on_the_left_however_the_scan_is_stored(tmp_path: Path, code: str) -> None:
    size = {"R": (40, 2.0), "A": (50, 1.0), "S": (30, 3.0)}
    spot_mm = {"R": 61.0, "A": 10.5, "S": 61.5}
    axes = ["RAS"["RAS".find(c)] if c in "RAS" else {"L": "R", "P": "A", "I": "S"}[c] for c in code]
    affine, spot, shape = np.zeros((4, 4)), [], []
    affine[3, 3] = 1
    for column, (letter, axis) in enumerate(zip(code, axes, strict=True)):
        n, mm = size[axis]
        voxel = int(spot_mm[axis] // mm)
        flipped = letter != axis
        affine["RAS".index(axis), column] = -mm if flipped else mm
        spot.append(n - 1 - voxel if flipped else voxel)
        shape.append(n)
    tile = sheet_tile(marked(tmp_path, affine, tuple(shape), tuple(spot)))
    axial, coronal, sagittal = tile.planes
    assert [p.name.split()[0] for p in tile.planes] == ["axial", "coronal", "sagittal"]
    assert (axial.directions, coronal.directions, sagittal.directions) == ("RLAP", "RLSI", "PASI")
    # the box leaves 20 mm round 7 voxels, as far as there are any: R from 34 to 80, A from 0 to 34, S from 30 to 90
    assert axial.mm == pytest.approx((80 - 34, 34))
    assert coronal.mm == pytest.approx((80 - 34, 90 - 30))
    assert bright(axial) == pytest.approx((80 - 61, 10.5))
    assert bright(coronal) == pytest.approx((80 - 61, 61.5 - 30))
    assert bright(sagittal) == pytest.approx((10.5, 61.5 - 30))
    for plane in tile.planes:
        assert plane.label is not None
        assert plane.label[plane.grey == plane.grey.max()].tolist() == [1]


def drawn(axis) -> list[AxesImage]:
    return list(axis.images)


def test_a_sheet_is_to_scale_and_has_the_colours_of_the_structures(phantoms: Path) -> None:
    tiles = [sheet_tile(Cohort("c", (case,), MMWHS)) for case in read_mmwhs(phantoms).cases]
    figure = contact_sheet(tiles, MMWHS, "three")
    (axis,) = figure.axes
    images = drawn(axis)
    assert len(images) == 9
    per_mm = set()
    for image, plane in zip(images[:3], tiles[0].planes, strict=True):
        left, right, bottom, top = image.get_extent()
        per_mm |= {round((right - left) / plane.mm[0], 6), round((top - bottom) / plane.mm[1], 6)}
    assert len(per_mm) == 1, "one scale along both axes of all planes of a case"
    used = {tuple(np.round(c.get_edgecolor()[0][:3], 4)) for c in axis.collections}
    assert used == {tuple(np.round(to_rgb(colour), 4)) for colour in MMWHS.colours}
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == list(MMWHS.titles)
    words = [t.get_text() for t in axis.texts]
    assert "three" in words
    assert any(w.startswith("ct_train_1002  CT  28 x 28 x 28  6 x 6 x 6 mm") for w in words)


@pytest.mark.parametrize("n", [1, 3, 4, 13, 31])
def test_sheets_of_any_size_hold_all_tiles_without_overlap(n: int) -> None:
    plane = Plane("axial 1/2", np.arange(12, dtype=np.uint8).reshape(3, 4), None, (40.0, 30.0))
    figure = contact_sheet([SheetTile(f"case{i}", (plane,) * 3) for i in range(n)], MMWHS)
    (axis,) = figure.axes
    boxes = [image.get_extent() for image in drawn(axis)]
    assert len(boxes) == 3 * n
    assert [t.get_text() for t in axis.texts if t.get_text().startswith("case")] == [f"case{i}" for i in range(n)]
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    for i, (left, right, bottom, top) in enumerate(boxes):
        assert x_low <= left < right <= x_high
        assert y_low < bottom < top < y_high
        for other in boxes[:i]:
            assert right <= other[0] or left >= other[1] or top <= other[2] or bottom >= other[3]


def test_a_case_that_cannot_be_read_is_a_tile_with_the_reason(phantoms: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(phantoms, tmp_path / "data"))
    (root / "ct_train_1002_image.nii.gz").write_bytes(b"no image")
    bad = write_contact_sheet(read_mmwhs(root), tmp_path / "sheet.png", jobs=1)
    assert list(bad) == ["ct_train_1002"]
    assert "ct_train_1002_image.nii.gz" in bad["ct_train_1002"]
    figure = contact_sheet([SheetTile("ct_train_1002", reason=bad["ct_train_1002"])], MMWHS)
    words = " ".join(t.get_text() for t in figure.axes[0].texts).replace("\n", "")
    assert "ct_train_1002_image.nii.gz" in words
    assert not drawn(figure.axes[0])


def test_a_limit_chooses_evenly_and_says_so(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_mmwhs(phantoms).cases[0]
    many = tuple(Case(f"c{i:02}", f"c{i:02}", "ct", first.image, first.label) for i in range(21))
    seen: list[object] = []

    def sheet(tiles: list[SheetTile], scheme: object, heading: str):
        seen.extend([[t.title.split()[0] for t in tiles], heading])
        return contact_sheet(tiles, MMWHS, heading)

    monkeypatch.setattr("whqa.report.cohort_sheets.contact_sheet", sheet)
    assert not write_contact_sheet(Cohort("many", many, MMWHS), tmp_path / "s.png", limit=3, jobs=1)
    assert seen == [["c00", "c10", "c20"], "many: 3 of 21 cases, evenly chosen"]
    assert imread(tmp_path / "s.png").shape[1] > 400


def test_unlabelled_and_flat_scans_are_drawn_whole(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 9, FLAT).astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.diag([-1.5, -1.5, 10, 1])), tmp_path / "a.nii.gz")
    cohort = Cohort("c", (Case("a", "a", "mr", tmp_path / "a.nii.gz"),), ACDC)
    tile = sheet_tile(cohort)
    assert tile.title.endswith("LPS  no label")
    assert [p.name for p in tile.planes] == ["in plane 6/10", "across the stack 129/256", "across the stack 109/216"]
    assert [p.directions for p in tile.planes] == ["", "", ""], "this affine does not know the patient"
    assert tile.planes[0].mm == (324, 384)
    assert tile.planes[1].mm == (324, 100)
    assert all(p.label is None for p in tile.planes)
    found = slices_of(cohort)
    assert all(p.frame is None for p in found.whole)
    assert [p.name for p in found.rows[0]] == [f"in plane {k}/10" for k in (2, 4, 7, 9)]
    assert not case_sheet(found, ACDC).legends, "nothing is outlined"


def test_a_case_of_its_own_shows_the_heart_from_end_to_end_with_volumes(phantoms: Path, tmp_path: Path) -> None:
    cohort = Cohort("c", read_mmwhs(phantoms).cases[:1], MMWHS)
    found = slices_of(cohort)
    label = np.asanyarray(nib.load(cohort.cases[0].label).dataobj)
    assert found.volumes_ml == pytest.approx({k: (label == v).sum() * 0.216 for k, v in MMWHS.values.items()})
    slices = np.flatnonzero((label > 0).any(axis=(0, 1)))
    shown = [int(p.name.split()[1].split("/")[0]) - 1 for p in found.rows[0]]
    assert slices[0] < shown[0] < shown[1] < shown[2] < shown[3] < slices[-1]
    figure = case_sheet(found, MMWHS)
    (axis,) = figure.axes
    assert len(drawn(axis)) == 15
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == f"left ventricle, {found.volumes_ml['lv']:.3g} ml"
    assert {"lv", "rv", "myo"} <= {t.get_text() for t in axis.texts}, "structures are named, not only coloured"
    write_case_sheet(cohort, cohort.cases[0].id, tmp_path / "case.png")
    assert imread(tmp_path / "case.png").shape[1] > 1000
    with pytest.raises(InputError, match="did you mean 'ct_train_1001'"):
        write_case_sheet(cohort, "ct_train_1010", tmp_path / "x.png")


def test_an_empty_label_map_and_a_structure_that_fills_the_scan_are_drawn(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2, 2, 1])
    for value, name in ((0, "empty"), (500, "full")):
        root = tmp_path / name
        root.mkdir()
        cohort = marked(root, affine)
        nib.save(nib.Nifti1Image(np.full((40, 50, 30), value, np.int16), affine), root / "label.nii.gz")
        tile = sheet_tile(cohort)
        assert tile.planes[0].mm == (80, 100)
        assert len(drawn(contact_sheet([tile], MMWHS).axes[0])) == 3
        assert case_sheet(slices_of(cohort), MMWHS).axes

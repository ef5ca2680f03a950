"""DICOM segmentations, written by highdicom or by us, and structure sets, as label maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from whqa.data.dicom.contours import filled
from whqa.data.dicom.dicom_masks import read_dicom_mask, series_of_mask
from whqa.data.dicom.seg_writing import ERROR_SEGMENT, structure_segments, write_segmentation
from whqa.data.dicom.series import DicomImage, read_series
from whqa.data.sources.names import ONE_HEART
from whqa.errors import InputError
from whqa.structures import ACDC, LabelScheme, label_scheme

Array = np.ndarray
KEYS = ACDC.keys
TITLES = ("right ventricle", "myocardium", "left ventricle")


@pytest.fixture
def image(dicom_files: ModuleType, tmp_path: Path) -> DicomImage:
    return read_series(dicom_files.write_series(tmp_path / "scan", *dicom_files.oblique()))


@pytest.fixture
def labels() -> Array:
    """Indices 0-3 (9, 8, 7); the first and last slices are empty, and so is one in between."""
    array = np.random.default_rng(1).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    array[:, :, [0, 3, 6]] = 0
    return array


def _on(image: DicomImage, mask: Any) -> Array:
    """The mask's array on the image's grid."""
    start = np.rint((np.linalg.inv(image.affine) @ mask.affine)[:3, 3]).astype(int)
    whole = np.zeros(image.shape, int)
    whole[tuple(slice(first, first + n) for first, n in zip(start, mask.shape, strict=True))] = mask.array
    return whole


def test_what_is_written_is_read_and_belongs_to_the_series(image: DicomImage, labels: Array, tmp_path: Path) -> None:
    import pydicom

    path = tmp_path / "corrected.dcm"
    write_segmentation(path, image.source, labels, structure_segments(KEYS, TITLES), "Corrected mask", "whqa runs/x")
    mask = read_dicom_mask(path, image, KEYS, None)
    # the empty slices at both ends, of which there are no frames, are there
    np.testing.assert_array_equal(mask.array, labels)
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    assert dict(mask.names) == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    assert series_of_mask(path) == {"1.2.3.7"}
    data, of_scan = pydicom.dcmread(path), image.source.headers[0]
    for key in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber"):
        assert data[key].value == of_scan[key].value
    assert data.SeriesInstanceUID != of_scan.SeriesInstanceUID
    assert data.Modality == "SEG"
    assert [str(s.SegmentedPropertyTypeCodeSequence[0].CodeValue) for s in data.SegmentSequence] == [
        *("53085002", "74281007", "87878005")
    ]
    named = {i.ReferencedSOPInstanceUID for i in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == {header.SOPInstanceUID for header in image.source.headers}


def test_the_independent_reader_finds_the_voxels_where_they_are(
    image: DicomImage, labels: Array, tmp_path: Path
) -> None:
    """highdicom's volume of the segmentation: an affine of its own reckoning."""
    import highdicom

    write_segmentation(tmp_path / "e.dcm", image.source, (labels == 2).astype(np.uint8), [ERROR_SEGMENT], "e", "whqa")
    volume = highdicom.seg.segread(tmp_path / "e.dcm").get_volume(combine_segments=True)
    slices, rows, columns = np.nonzero(volume.array)
    found = volume.map_indices_to_reference(np.stack([slices, rows, columns], axis=1)) * [-1, -1, 1]
    wanted = np.argwhere(labels == 2) @ image.affine[:3, :3].T + image.affine[:3, 3]
    assert sorted(map(tuple, found.round(3).tolist())) == sorted(map(tuple, wanted.round(3).tolist()))


def test_results_of_a_multi_frame_file(dicom_files: ModuleType, labels: Array, tmp_path: Path) -> None:
    """Frames of the file stand in another order than the slices."""
    path = dicom_files.write_enhanced(tmp_path / "scan.dcm", *dicom_files.oblique(), [3, 0, 6, 1, 2, 5, 4])
    image = read_series(path)
    write_segmentation(tmp_path / "m.dcm", image.source, labels, structure_segments(KEYS, TITLES), "m", "whqa")
    np.testing.assert_array_equal(_on(image, read_dicom_mask(tmp_path / "m.dcm", image, KEYS, None)), labels)


def test_a_tilted_gantry_does_not_move_the_results(dicom_files: ModuleType, labels: Array, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    affine[:3, 2] += 0.4 * affine[:3, 1]
    image = read_series(dicom_files.write_series(tmp_path / "scan", array, affine))
    write_segmentation(tmp_path / "m.dcm", image.source, labels, structure_segments(KEYS, TITLES), "m", "whqa")
    np.testing.assert_array_equal(_on(image, read_dicom_mask(tmp_path / "m.dcm", image, KEYS, None)), labels)


def _segments(kind: str, named: Sequence[tuple[str, str]]) -> list[Any]:
    """Descriptions of segments: label and meaning of the code."""
    import highdicom as hd
    from pydicom.sr.coding import Code

    return [
        hd.seg.SegmentDescription(
            n, label, Code("91723000", "SCT", "Anatomical Structure"), Code(f"X{n}", "99X", meaning), "MANUAL"
        )
        for n, (label, meaning) in enumerate(named, start=1)
    ]


def _write(path: Path, image: DicomImage, array: Array, named: Sequence[tuple[str, str]], kind: str = "BINARY") -> Path:
    """A segmentation by highdicom; `array` (X, Y, Z) of numbers, or (X, Y, Z, segment)."""
    import highdicom as hd

    frames = np.ascontiguousarray(np.moveaxis(array, (0, 1, 2), (2, 1, 0)))
    hd.seg.Segmentation(
        list(image.source.headers), frames, kind, _segments(kind, named), hd.UID(), 3, hd.UID(), 1, "m", "n", "1", "2"
    ).save_as(path)
    return path


NAMED = [("RV", "Tissue"), ("Myocardium", "Tissue"), ("Segment_3", "Left ventricle")]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_by_label_and_by_code(image: DicomImage, labels: Array, tmp_path: Path, kind: str) -> None:
    mask = read_dicom_mask(_write(tmp_path / "m.dcm", image, labels, NAMED, kind), image, KEYS, None)
    np.testing.assert_array_equal(_on(image, mask), labels)
    assert mask.names == {1: "RV", 2: "Myocardium", 3: "left ventricle"}
    assert mask.notes == ("its segment 'Segment_3' is lv by its code",)


def test_a_label_map_may_name_more_than_is_judged(image: DicomImage, labels: Array, tmp_path: Path) -> None:
    array = np.where(labels == 0, 4, labels)
    path = _write(tmp_path / "m.dcm", image, array, [*NAMED, ("Sac", "Pericardium")])
    stated = label_scheme({"rv": [1], "myo": [2], "lv": [3], "pericardium": [4]})
    np.testing.assert_array_equal(_on(image, read_dicom_mask(path, image, KEYS, stated)), labels)
    with pytest.raises(InputError, match=f"none of its 4 segment.s. is a chamber of the heart; {ONE_HEART}"):
        read_dicom_mask(path, image, KEYS, label_scheme({"heart": [1]}))


def test_fractions_count_from_half_on(image: DicomImage, labels: Array, tmp_path: Path) -> None:
    shares = np.random.default_rng(2).random(labels.shape).astype(np.float32) * (labels > 0)
    path = _write(tmp_path / "m.dcm", image, shares[..., None], [("left ventricle", "Tissue")], "FRACTIONAL")
    mask = read_dicom_mask(path, image, ("lv",), None)
    np.testing.assert_array_equal(_on(image, mask) == 1, np.rint(shares * 255) >= 127.5)


def test_unclear_segments_are_refused_with_what_states_them(image: DicomImage, labels: Array, tmp_path: Path) -> None:
    path = tmp_path / "m.dcm"
    _write(path, image, labels, [("RV", "Tissue"), ("Myo", "Tissue"), ("lv", "Right atrium")])
    with pytest.raises(InputError, match="segment 3 is labelled 'lv' and coded 'Right atrium'; say which number"):
        read_dicom_mask(path, image, KEYS, None)
    _write(path, image, labels, [("a", "Tissue"), ("b", "Tissue"), ("c", "Tissue")])
    with pytest.raises(InputError, match=r"none of its 3 segment.s. is a chamber of the heart") as error:
        read_dicom_mask(path, image, KEYS, None)
    advised = re.search(r"--label-map (\S+),", str(error.value))
    assert advised is not None
    assert advised[1] == "rv=1,myo=2,lv=3"
    _write(tmp_path / "total.dcm", image, labels, [("heart", "Heart"), ("aorta", "Aorta"), ("spine", "Tissue")])
    with pytest.raises(InputError, match=r"is a chamber of the heart; Total.* --task heartchambers_highres"):
        read_dicom_mask(tmp_path / "total.dcm", image, KEYS, None)
    mask = read_dicom_mask(path, image, KEYS, LabelScheme("x", {"rv": 1, "myo": 2, "lv": 3}))
    np.testing.assert_array_equal(_on(image, mask), labels)


def test_segments_of_no_heart_may_overlap_and_structures_may_not(
    image: DicomImage, labels: Array, tmp_path: Path
) -> None:
    layers = np.stack([labels == 1, labels == 2, labels > 0], axis=-1).astype(np.uint8)
    path = _write(tmp_path / "m.dcm", image, layers, [("RV", "Tissue"), ("LV", "Tissue"), ("Body", "Tissue")])
    mask = read_dicom_mask(path, image, KEYS, None)
    np.testing.assert_array_equal(_on(image, mask), np.where(labels < 3, labels, 0))
    assert mask.notes == ("1 segment(s) that are no structure of the heart were left out",)
    _write(path, image, layers, [("RV", "Tissue"), ("LV", "Tissue"), ("Myocardium", "Tissue")])
    with pytest.raises(InputError, match=r"of [lr]v and myo overlap in \d+ voxel"):
        read_dicom_mask(path, image, KEYS, None)


def test_a_mask_of_another_space_is_refused(
    dicom_files: ModuleType, image: DicomImage, labels: Array, tmp_path: Path
) -> None:
    path = _write(tmp_path / "m.dcm", image, labels, NAMED)
    image.source.headers[0].FrameOfReferenceUID = "1.2.3.100"
    with pytest.raises(InputError, match=r"frame of reference is not that of .*give the mask of this scan"):
        read_dicom_mask(path, image, KEYS, None)
    with pytest.raises(InputError, match=r"holds no DICOM segmentation or structure set \(CT Image Storage\)"):
        read_dicom_mask(tmp_path / "scan", image, KEYS, None)
    (tmp_path / "masks").mkdir()
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / "masks" / name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"holds 2 segmentations .*\(a.dcm, b.dcm\); give one of the files"):
        read_dicom_mask(tmp_path / "masks", image, KEYS, None)


def _rings(image: DicomImage, box: tuple[float, float, float, float], slices: Sequence[float]) -> list[Array]:
    """Rectangles (x0, y0, x1, y1) in voxels on slices, as corners in RAS mm."""
    x0, y0, x1, y1 = box
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    places = [np.column_stack([corners, np.full(4, k), np.ones(4)]) for k in slices]
    return [(place @ image.affine.T)[:, :3] for place in places]


def test_contours_with_a_hole_on_an_oblique_series(dicom_files: ModuleType, image: DicomImage, tmp_path: Path) -> None:
    outer, inner = (0.5, 0.5, 6.5, 6.5), (2.5, 2.5, 4.5, 4.5)
    slices = range(1, 5)
    regions = [
        (4, "LV_Myocardium", [*_rings(image, outer, slices), *_rings(image, inner, slices)]),
        (9, "Left Ventricle", _rings(image, inner, slices)),
        (2, "BODY", _rings(image, (-3, -3, 20, 20), range(7))),
    ]
    path = dicom_files.write_structures(tmp_path / "rt.dcm", regions)
    mask = read_dicom_mask(path, image, KEYS, None)
    truth = np.zeros(image.shape, int)
    truth[1:7, 1:7, 1:5] = 4
    truth[3:5, 3:5, 1:5] = 9
    np.testing.assert_array_equal(mask.array, truth)
    assert mask.names == {9: "Left Ventricle", 4: "LV_Myocardium"}
    assert "1 ROI(s) that are no structure" in mask.notes[0]


@pytest.mark.parametrize(
    ("box", "slices", "says"),
    [
        ((1, 1, 5, 5), (1.5, 2.5), "of lv lie between the image's slices; give the series that they were drawn on"),
        ((1, 1, 5, 5), (0, 2, 4, 6), "lv has contours on 4 of 7 slices of the image alone"),
        ((20, 20, 25, 25), (1, 2), "mark no voxel of the image"),
    ],
)
def test_contours_that_do_not_fit_are_refused(
    dicom_files: ModuleType, image: DicomImage, tmp_path: Path, box: Any, slices: Any, says: str
) -> None:
    path = dicom_files.write_structures(tmp_path / "rt.dcm", [(1, "lv", _rings(image, box, slices))])
    with pytest.raises(InputError, match=says):
        read_dicom_mask(path, image, KEYS, None)


def test_contours_of_turned_slices_and_of_other_spaces(
    dicom_files: ModuleType, image: DicomImage, tmp_path: Path
) -> None:
    (ring,) = _rings(image, (1, 1, 5, 5), [2])
    tilted = ring + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 4], [0, 0, 4]])
    path = dicom_files.write_structures(tmp_path / "rt.dcm", [(1, "lv", [tilted])])
    with pytest.raises(InputError, match="not parallel to the image's slices"):
        read_dicom_mask(path, image, KEYS, None)
    dicom_files.write_structures(path, [(1, "lv", [ring])], frame="1.2.3.5")
    with pytest.raises(InputError, match="frame of reference"):
        read_dicom_mask(path, image, KEYS, None)


def test_nested_structures_of_contours_are_refused(dicom_files: ModuleType, image: DicomImage, tmp_path: Path) -> None:
    """A myocardium drawn by its outer border alone would swallow the chamber."""
    regions = [
        (1, "LV", _rings(image, (1.5, 1.5, 4.5, 4.5), [1, 2])),
        (2, "Myocardium", _rings(image, (0.5, 0.5, 5.5, 5.5), [1, 2])),
    ]
    path = dicom_files.write_structures(tmp_path / "rt.dcm", regions)
    with pytest.raises(InputError, match=r"ROIs of lv and myo overlap in 18 voxel"):
        read_dicom_mask(path, image, KEYS, None)


def test_filling_agrees_with_matplotlib_and_neighbours_share_nothing() -> None:
    generator = np.random.default_rng(3)
    centres = np.stack(np.meshgrid(range(40), range(30), indexing="ij"), axis=-1).reshape(-1, 2)
    for _ in range(20):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 12))
        radii = generator.uniform(4, 18, 12)
        corners = np.column_stack([20 + radii * np.cos(angles), 15 + radii * np.sin(angles)])
        np.testing.assert_array_equal(
            filled([corners], (40, 30)), Polygon(corners).contains_points(centres).reshape(40, 30)
        )
    left, right = (np.array([(x, 2), (x + 5, 2), (x + 5, 9), (x, 9)], float) for x in (3, 8))
    one, other = filled([left], (40, 30)), filled([right], (40, 30))
    assert one.sum() == other.sum() == 35
    assert not (one & other).any()

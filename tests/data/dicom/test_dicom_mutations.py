"""Damaged DICOM files end in one line, or are read: nothing else comes out, and nothing is said on standard error."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from whqa.data.dicom.dicom_masks import read_dicom_mask, series_of_mask
from whqa.data.dicom.seg_writing import structure_segments, write_segmentation
from whqa.data.dicom.series import DicomImage, read_series
from whqa.errors import InputError
from whqa.structures import ACDC

TITLES = ("right ventricle", "myocardium", "left ventricle")


def _damaged(block: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with some of them changed, or cut off; voxels, which may be anything, are spared."""
    part = bytearray(block)
    end = max(block.rfind(b"\xe0\x7f\x10\x00"), 200)
    if generator.random() < 0.2:
        return bytes(part[: int(generator.integers(140, len(part)))])
    for place in generator.integers(132, end, generator.integers(1, 9)):
        part[place] = int(generator.integers(0, 256))
    return bytes(part)


def _cases(dicom_files: ModuleType, root: Path) -> tuple[Path, DicomImage, dict[str, Path]]:
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(root / "scan", array, affine)
    image = read_series(folder)
    labels = np.random.default_rng(1).integers(0, 4, array.shape).astype(np.uint8)
    write_segmentation(root / "seg.dcm", image.source, labels, structure_segments(ACDC.keys, TITLES), "m", "whqa")
    corners = np.array([(1, 1), (6, 1), (6, 6), (1, 6)])
    rings = [(np.column_stack([corners, np.full(4, k), np.ones(4)]) @ affine.T)[:, :3] for k in range(1, 5)]
    dicom_files.write_structures(root / "rt.dcm", [(1, "lv", rings), (2, "BODY", rings)])
    dicom_files.write_enhanced(root / "enhanced.dcm", array, affine, range(7))
    return folder, image, {name: root / f"{name}.dcm" for name in ("seg", "rt", "enhanced")}


@pytest.mark.parametrize("number", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_in_one_line(
    dicom_files: ModuleType, tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, image, files = _cases(dicom_files, tmp_path)
    generator, lines = np.random.default_rng(7), list[str]()
    one = next(folder.iterdir())
    for path in (*files.values(), one):
        whole = path.read_bytes()
        for _ in range(number):
            path.write_bytes(_damaged(whole, generator))
            try:
                if path in (files["seg"], files["rt"]):
                    series_of_mask(path)
                    read_dicom_mask(path, image, ACDC.keys, None)
                else:
                    read_series(path if path == files["enhanced"] else folder)
            except InputError as error:
                lines.append(str(error))
        path.write_bytes(whole)
    assert 0 < len(lines) < 4 * number
    assert all(str(tmp_path) in line and "\n" not in line for line in lines)
    assert not capfd.readouterr().err

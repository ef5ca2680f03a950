"""DICOM files that the tests write: CT series, a multi-frame file, contours; a fixture hands this file to tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

Array = np.ndarray
LPS = np.diag([-1.0, -1, 1, 1])
CT, ENHANCED_CT, RTSTRUCT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "481.3"))


def patient(kind: str, modality: str, series: str, number: int) -> Any:
    """A Dataset with what every file of a study states."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "P1", "Heart^Test", "19700101", "O"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3.1", f"1.2.3.{series}"
    data.FrameOfReferenceUID, data.Modality, data.SeriesNumber = "1.2.3.99", modality, number
    data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber = "S", "20261129", "080000", "A"
    data.ReferringPhysicianName = data.PositionReferenceIndicator = data.Manufacturer = ""
    data.SeriesDescription = f"series {series}"
    return data


def pixels(data: Any, frames: Array, intercept: float = -1024) -> Any:
    """The same Dataset with voxels (rows, columns) or (frames, rows, columns), HU."""
    stored = (frames - intercept).round().astype(np.uint16)
    data.Rows, data.Columns = frames.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.tobytes()
    return data


def write_series(
    folder: Path, array: Array, affine: Array, change: Callable[[Any, int], None] | None = None, series: str = "7"
) -> Path:
    """A CT series of a volume (X, Y, Z) in HU and its affine, voxel -> RAS mm; names in another order than positions.

    `change` may change the Dataset of each slice, or drop it by setting `SOPInstanceUID` to "".
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = LPS @ affine
    for k in range(array.shape[2]):
        data = patient(CT, "CT", series, int(series))
        step = np.linalg.norm(place[:3, :2], axis=0)
        data.ImageOrientationPatient = [f"{v:.9g}" for v in (place[:3, :2] / step).T.ravel()]
        data.ImagePositionPatient = [f"{v:.9g}" for v in place[:3] @ [0, 0, k, 1]]
        data.PixelSpacing = [f"{step[1]:.9g}", f"{step[0]:.9g}"]
        data.SliceThickness, data.InstanceNumber, data.ImageType = "1", k + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        pixels(data, array[:, :, k].T)
        if change is not None:
            change(data, k)
        if data.SOPInstanceUID:
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
            data.save_as(folder / f"IM{(k * 7) % 1000:04d}", enforce_file_format=True)
    return folder


def write_enhanced(path: Path, array: Array, affine: Array, order: Sequence[int]) -> Path:
    """A multi-frame CT of the slices in some order, with a rescale of its own for each frame."""
    from pydicom import Dataset

    place, data = LPS @ affine, patient(ENHANCED_CT, "CT", "8", 8)
    step = np.linalg.norm(place[:3, :2], axis=0)
    shared, data.PerFrameFunctionalGroupsSequence = Dataset(), []
    measures, turned = Dataset(), Dataset()
    measures.PixelSpacing = [f"{step[1]:.9g}", f"{step[0]:.9g}"]
    measures.SliceThickness = "1"
    turned.ImageOrientationPatient = [f"{v:.9g}" for v in (place[:3, :2] / step).T.ravel()]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        group, where, rescale = Dataset(), Dataset(), Dataset()
        where.ImagePositionPatient = [f"{v:.9g}" for v in place[:3] @ [0, 0, k, 1]]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "1", str(-1024 - k), "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [where], [rescale]
        data.PerFrameFunctionalGroupsSequence.append(group)
        frames.append(array[:, :, k].T + k)
    data.NumberOfFrames, data.ImageType, data.InstanceNumber = len(order), ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    pixels(data, np.stack(frames))
    data.save_as(path, enforce_file_format=True)
    return path


def write_structures(path: Path, regions: Sequence[tuple[int, str, Sequence[Array]]], frame: str = "1.2.3.99") -> Path:
    """A structure set of regions: number, name, closed contours (N, 3) in RAS mm."""
    from pydicom import Dataset

    data = patient(RTSTRUCT, "RTSTRUCT", "20", 20)
    del data.FrameOfReferenceUID
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    for number, name, contours in regions:
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{v:.9g}" for v in (points * [-1, -1, 1]).ravel()]
            drawn.ContourSequence.append(item)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    data.save_as(path, enforce_file_format=True)
    return path


def oblique() -> tuple[Array, Array]:
    """A volume (9, 8, 7) in HU and an oblique affine, right-handed as a stack is."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("XYZ", (0.3, -0.2, 0.5)).as_matrix() * [1.5, 1.25, 2.5]
    affine[:3, 3] = -31.5, 17.25, 120.75
    return np.random.default_rng(0).integers(-1000, 2000, (9, 8, 7)).astype(np.float32), affine

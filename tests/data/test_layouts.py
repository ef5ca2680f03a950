"""One cohort in every layout: built here from phantoms and from real files, and read to the same cases each time.

What is expected comes from nibabel and numpy alone, not from a reader of whqa.
"""

from __future__ import annotations

import gzip
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from whqa.data.case import Cohort, Modality
from whqa.data.formats.volume_files import HeaderConflictWarning
from whqa.data.phantom import make_phantom
from whqa.data.reading import read_case
from whqa.data.sources.acdc import read_acdc
from whqa.data.sources.care_whs import read_care_whs
from whqa.data.sources.checks import checked
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.folder import read_folder
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.data.sources.nnunet import read_nnunet
from whqa.data.sources.totalsegmentator import read_totalsegmentator

SHARED = Path(__file__).parents[2] / "../shared/data"
# Index of each structure, as the direct layout has it, and its value in MMWHS files.
MMWHS_VALUES = {"lv": 500, "rv": 600, "la": 420, "ra": 550, "myo": 205, "ao": 820, "pa": 850}
_CHAMBERS = [f"heart_{part}_{side}" for part in ("ventricle", "atrium") for side in ("left", "right")]
TOTALSEGMENTATOR = dict(zip(MMWHS_VALUES, [*_CHAMBERS, "heart_myocardium", "aorta", "pulmonary_artery"], strict=True))
# In an order and in words that are not whqa's.
NAMES = {
    "MYO": ("myo", 1),
    "heart_atrium_left": ("la", 2),
    "Left Ventricle": ("lv", 3),
    "right atrium blood cavity (RA)": ("ra", 4),
    "RV": ("rv", 5),
    "ascending aorta": ("ao", 6),
    "pulmonary_artery": ("pa", 7),
}


@dataclass(frozen=True)
class Scan:
    """A case in memory: stored voxels, MMWHS values, affine."""

    number: int
    modality: Modality
    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]

    def write_image(self, path: Path) -> Path:
        return _write(path, self.image, self.affine)

    def write_label(self, path: Path, values: dict[str, int]) -> Path:
        """With the values of another layout; what is not in it becomes background."""
        other = np.zeros_like(self.label)
        for key, value in values.items():
            other[self.label == MMWHS_VALUES[key]] = value
        return _write(path, other, self.affine)

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        return sum((self.label == value) * index for index, value in enumerate(MMWHS_VALUES.values(), start=1))


def _write(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(image.to_bytes(), 1))
    else:
        nib.save(image, path)
    return path


@cache
def _short_axis(number: int) -> Scan:
    phantom = make_phantom(5, number, "mr", 6.0)
    return Scan(number, "mr", phantom.image, phantom.label, phantom.affine)


def _phantoms(modality: Modality) -> list[Scan]:
    made = [make_phantom(3, i, modality, 6.0) for i in range(2)]
    return [Scan(1001 + i, modality, p.image, p.label, p.affine) for i, p in enumerate(made)]


def _real() -> list[Scan]:
    scans = []
    for number in (1001, 1002):
        image, label = (nib.load(SHARED / f"whole_heart/ct_train_{number}_{w}.nii.gz") for w in ("image", "label"))
        arrays = (np.asanyarray(x.dataobj).astype(np.int16) for x in (image, label))
        scans.append(Scan(number, "ct", *arrays, image.affine))
    return scans


@cache
def scans_of(kind: str) -> list[Scan]:
    if kind != "real-ct":
        return _phantoms("ct" if kind.endswith("ct") else "mr")
    if not SHARED.is_dir():
        pytest.skip("real data are not beside the repository")
    return _real()


Build = Callable[[Path, Sequence[Scan]], Cohort]


def mmwhs(root: Path, scans: Sequence[Scan]) -> Cohort:
    """Training in two folders, labels in the first; a test image and its encrypted label."""
    for i, scan in enumerate(scans):
        case = f"{scan.modality}_train_{scan.number}"
        scan.write_image(root / f"{scan.modality}_train{i + 1}" / f"{case}_image.nii.gz")
        scan.write_label(root / f"{scan.modality}_train1" / f"{case}_label.nii.gz", MMWHS_VALUES)
    test = f"{scans[0].modality}_test_2001"
    scans[0].write_image(root / "test" / f"{test}_image.nii.gz")
    (root / "test" / f"{test}_label_encrypt_1mm.nii.gz").write_bytes(b"secret")
    return checked(read_mmwhs(root)).labelled


def care_whs(root: Path, scans: Sequence[Scan]) -> Cohort:
    for scan, centre in zip(scans, "AB", strict=True):
        folder = root / scan.modality.upper() / f"Center{centre}"
        scan.write_image(folder / "Case1001_image.nii.gz")
        scan.write_label(folder / "Case1001_label.nii.gz", MMWHS_VALUES)
    return checked(read_care_whs(root))


def totalsegmentator(root: Path, scans: Sequence[Scan]) -> Cohort:
    for scan in scans:
        folder = root / f"s{scan.number}"
        scan.write_image(folder / "ct.nii.gz")
        for key, name in TOTALSEGMENTATOR.items():
            mask = (scan.label == MMWHS_VALUES[key]).astype(np.uint8)
            _write(folder / "segmentations" / f"{name}.nii.gz", mask, scan.affine)
        _write(folder / "segmentations" / "liver.nii.gz", np.ones_like(mask), scan.affine)
    return checked(read_totalsegmentator(root))


def _nnunet_files(root: Path, scans: Sequence[Scan], ending: str = ".nii.gz", channel: int = 0) -> dict[str, object]:
    values = dict(NAMES.values())
    for scan in scans:
        scan.write_image(root / "imagesTr" / f"heart_{scan.number}_{channel:04}{ending}")
        scan.write_label(root / "labelsTr" / f"heart_{scan.number}{ending}", values)
    return {
        "channel_names": {"0": {"ct": "CT", "mr": "MRI"}[scans[0].modality]},
        "labels": {"background": 0, **{name: value for name, (_, value) in NAMES.items()}},
        "numTraining": len(scans),
        "file_ending": ending,
    }


def nnunet(root: Path, scans: Sequence[Scan]) -> Cohort:
    description = _nnunet_files(root, scans)
    (root / "dataset.json").write_text(json.dumps(description))
    return checked(read_nnunet(root))


def nnunet_listed(root: Path, scans: Sequence[Scan]) -> Cohort:
    """Uncompressed, two channels of which one is an image here, files listed in dataset.json."""
    description = _nnunet_files(root, scans, ".nii", channel=1)
    description["channel_names"] = {"0": "zscore", "1": scans[0].modality}
    description["dataset"] = {
        f"heart_{s.number}": {
            "images": ["imagesTr/../dataset.json", f"./imagesTr/heart_{s.number}_0001.nii"],
            "label": f"labelsTr/heart_{s.number}.nii",
        }
        for s in scans
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return checked(read_nnunet(root, channel=1))


def decathlon(root: Path, scans: Sequence[Scan], channel: str = "") -> Cohort:
    values = dict(NAMES.values())
    for scan in scans:
        scan.write_image(root / "imagesTr" / f"la_{scan.number}{channel}.nii.gz")
        scan.write_label(root / "labelsTr" / f"la_{scan.number}.nii.gz", values)
    names = [f"la_{scan.number}.nii.gz" for scan in scans]
    description = {
        "modality": {"0": {"ct": "CT", "mr": "MRI"}[scans[0].modality]},
        "labels": {"0": "background", **{str(value): name for name, (_, value) in NAMES.items()}},
        "numTraining": len(scans),
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return checked(read_decathlon(root))


def nnunet_v1(root: Path, scans: Sequence[Scan]) -> Cohort:
    return decathlon(root, scans, "_0000")


def nnunet_nrrd(root: Path, scans: Sequence[Scan]) -> Cohort:
    """The same files, brought to NRRD by SimpleITK, which writes in LPS."""
    sitk = pytest.importorskip("SimpleITK")
    description = _nnunet_files(root, scans)
    for path in sorted(root.rglob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).replace(".nii.gz", ".nrrd"), useCompression=True)
        path.unlink()
    (root / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nrrd"}))
    return checked(read_nnunet(root))


def folder(root: Path, scans: Sequence[Scan]) -> Cohort:
    """Nested folders, values of one's own: two for the myocardium, one of another organ."""
    values = {key: value for value, key in enumerate(MMWHS_VALUES, start=11)}
    for scan in scans:
        place = root / "site" / str(scan.number)
        scan.write_image(place / "a_image.nii")
        label = np.asanyarray(nib.load(scan.write_label(place / "a_label.nii", values)).dataobj).copy()
        wall = label == values["myo"]
        wall[: wall.shape[0] // 2] = False
        label[wall] = 21
        label[0, 0, 0] = 99 if label[0, 0, 0] == 0 else label[0, 0, 0]
        _write(place / "a_label.nii", label, scan.affine)
    scheme = {**values, "myo": [values["myo"], 21], "ignore": [99]}
    return checked(
        read_folder(root, "**/*_image.nii", "**/*_label.nii", scheme=scheme, modality=scans[0].modality, name="mine")
    )


LAYOUTS = [mmwhs, care_whs, nnunet, nnunet_listed, nnunet_nrrd, decathlon, nnunet_v1, folder]
# TotalSegmentator version 1 is CT
CHOICES = [
    *((build, kind) for kind in ("phantom-ct", "phantom-mr", "real-ct") for build in LAYOUTS),
    *((totalsegmentator, kind) for kind in ("phantom-ct", "real-ct")),
]


@pytest.mark.parametrize(("build", "kind"), CHOICES, ids=[f"{b.__name__}-{k}" for b, k in CHOICES])
def test_a_cohort_is_the_same_in_every_layout(tmp_path: Path, kind: str, build: Build) -> None:
    scans = scans_of(kind)
    cohort = build(tmp_path, scans)
    assert cohort.problems == ()
    assert cohort.scheme.keys == tuple(MMWHS_VALUES)
    assert len(cohort.cases) == len(scans) == len({case.patient for case in cohort.cases})
    for case, scan in zip(cohort.cases, scans, strict=True):
        image, reference = read_case(cohort, case)
        assert reference is not None
        assert case.modality == scan.modality
        np.testing.assert_array_equal(image.array, scan.image.astype(np.float32))
        np.testing.assert_array_equal(reference.array, scan.indices)
        assert set(np.unique(reference.array)) == set(range(8)), "all seven structures are in the scan"
        for volume in (image, reference):
            np.testing.assert_allclose(volume.affine, scan.affine, rtol=0, atol=1e-4)


def _flat_acdc(root: Path, kind: str) -> Path:
    """Four patients in the flat layout: real files as they are, whose headers contradict themselves, or phantoms."""
    root.mkdir(parents=True)
    if kind == "real":
        if not SHARED.is_dir():
            pytest.skip("real data are not beside the repository")
        for number in range(1, 5):
            for what in ("image", "label"):
                name = f"patient{number:03}_{what}.nii.gz"
                shutil.copyfile(SHARED / "acdc" / name, root / name)
        return root
    for number in range(1, 5):
        scan = _short_axis(number)
        scan.write_image(root / f"patient{number:03}_image.nii.gz")
        scan.write_label(root / f"patient{number:03}_label.nii.gz", {"rv": 1, "myo": 2, "lv": 3})
    return root


def acdc_official(root: Path, flat: Path) -> tuple[Cohort, list[str]]:
    """Two patients with two frames each, the second of them for testing; the flat patients lend the voxels."""
    for name, part, sources in (("patient001", "training", (1, 2)), ("patient101", "testing", (3, 4))):
        folder = root / "database" / part / name
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
        (folder / f"{name}_4d.nii.gz").write_bytes(b"not read")
        for frame, source in zip((1, 12), sources, strict=True):
            for what, suffix in (("image", ""), ("label", "_gt")):
                shutil.copyfile(
                    flat / f"patient{source:03}_{what}.nii.gz", folder / f"{name}_frame{frame:02}{suffix}.nii.gz"
                )
    cohort = read_acdc(root)
    assert [c.patient for c in cohort.cases] == ["patient001", "patient001", "patient101", "patient101"]
    return cohort, ["patient001_ED", "patient001_ES", "patient101_ED", "patient101_ES"]


def acdc_flat(root: Path, flat: Path) -> tuple[Cohort, list[str]]:
    shutil.copytree(flat, root, dirs_exist_ok=True)
    return read_acdc(root), [f"patient{n:03}" for n in range(1, 5)]


def acdc_nnunet(root: Path, flat: Path) -> tuple[Cohort, list[str]]:
    (root / "imagesTr").mkdir()
    (root / "labelsTr").mkdir()
    for n in range(1, 5):
        shutil.copyfile(flat / f"patient{n:03}_image.nii.gz", root / f"imagesTr/p{n}_0000.nii.gz")
        shutil.copyfile(flat / f"patient{n:03}_label.nii.gz", root / f"labelsTr/p{n}.nii.gz")
    labels = {"background": 0, "RV": 1, "MLV": 2, "LVC": 3}
    description = {"channel_names": {"0": "cineMRI"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    return read_nnunet(root), ["p1", "p2", "p3", "p4"]


@pytest.mark.parametrize("build", [acdc_flat, acdc_official, acdc_nnunet])
@pytest.mark.parametrize("kind", ["phantom", "real"])
def test_short_axis_scans_are_the_same_in_every_layout(
    tmp_path: Path, kind: str, build: Callable[[Path, Path], tuple[Cohort, list[str]]]
) -> None:
    flat = _flat_acdc(tmp_path / "flat", kind)
    direct = read_folder(flat, scheme="acdc", modality="mr", name="acdc")
    (tmp_path / "other").mkdir()
    cohort, ids = build(tmp_path / "other", flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeaderConflictWarning)
        checked(cohort)
    assert [case.id for case in cohort.cases] == ids
    assert cohort.scheme.keys == direct.scheme.keys == ("rv", "myo", "lv")
    for case, there in zip(cohort.cases, direct.cases, strict=True):
        image, reference = read_case(cohort, case)
        expected_image, expected_reference = read_case(direct, there)
        assert reference is not None
        assert expected_reference is not None
        assert case.modality == there.modality == "mr"
        assert set(np.unique(reference.array)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(image.array, expected_image.array)
        np.testing.assert_array_equal(reference.array, expected_reference.array)
        np.testing.assert_array_equal(image.affine, expected_image.affine)
        stored = nib.load(there.image)
        np.testing.assert_array_equal(image.array, np.asanyarray(stored.dataobj, dtype=np.float32))
        np.testing.assert_allclose(
            np.linalg.norm(image.affine[:3, :3], axis=0), stored.header.get_zooms()[:3], rtol=1e-5
        )

"""A look at whole cohorts on disk: each fault becomes its finding, and nothing else does."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data.case import Case, Cohort
from whqa.data.findings.check import CohortReport, check_cohort
from whqa.data.findings.sides import odd_stacks
from whqa.data.reading import read_case
from whqa.data.sources.folder import read_folder
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS

SHARED = Path(__file__).parents[3] / "../shared/data"


@pytest.fixture
def folder(mixed_phantoms: Path, tmp_path: Path) -> Path:
    """Two CT and two MR phantoms, to be spoilt."""
    return Path(shutil.copytree(mixed_phantoms, tmp_path / "data"))


def check(root: Path, jobs: int = 1) -> CohortReport:
    return check_cohort(read_mmwhs(root), jobs)


def found(report: CohortReport) -> set[tuple[str, str, str | None]]:
    return {(f.severity, f.code, f.case) for f in report.findings}


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    array = change(np.asanyarray(image.dataobj))
    nib.save(nib.Nifti1Image(array.astype(np.int16), image.affine if affine is None else affine), path)


def test_sound_cases_are_described_and_have_no_findings(mixed_phantoms: Path) -> None:
    report = check(mixed_phantoms)
    assert report.findings == ()
    for checked in report.cases:
        image = nib.load(checked.case.image)
        label = np.asanyarray(nib.load(checked.case.label).dataobj)
        assert checked.shape == image.shape
        assert checked.spacing_mm == pytest.approx(image.header.get_zooms(), rel=1e-6)
        assert checked.orientation == "".join(nib.aff2axcodes(image.affine))
        voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        expected = {key: (label == value).sum() * voxel_ml for key, value in MMWHS.values.items()}
        assert checked.volumes_ml == pytest.approx(expected, rel=1e-5)


def test_processes_find_the_same(folder: Path) -> None:
    (folder / "ct_train_1001_image.nii.gz").write_bytes(b"hello")
    rewrite(folder / "mr_train_1001_label.nii.gz", lambda a: np.where(a == 500, 0, a))
    alone, beside = check(folder, 1), check(folder, 2)
    assert alone.findings == beside.findings
    assert alone.cases == beside.cases
    assert {c for _, c, _ in found(alone)} == {"unreadable", "missing-structure"}


def test_every_file_is_read_once(mixed_phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    for module, name in (("whqa.data.findings.check", "read_image"), ("whqa.data.reading", "read_label")):
        original = getattr(__import__(module, fromlist=[name]), name)

        def counting(path, *args, original=original, **kwargs):
            read.append(path)
            return original(path, *args, **kwargs)

        monkeypatch.setattr(f"{module}.{name}", counting)
    check(mixed_phantoms)
    assert sorted(read) == sorted(mixed_phantoms.glob("*.nii.gz"))


def test_a_mirrored_case_is_found(folder: Path) -> None:
    for part in ("image", "label"):
        path = folder / f"ct_train_1002_{part}.nii.gz"
        image = nib.load(path)
        rewrite(path, lambda a: a, np.diag([-1, 1, 1, 1]) @ image.affine)
    assert found(check(folder)) == {("warning", "flip-left-right", "ct_train_1002")}


def test_hostile_files_are_findings_and_the_rest_is_looked_at(folder: Path) -> None:
    image = folder / "ct_train_1001_image.nii.gz"
    image.write_bytes(image.read_bytes()[:-2000])
    label = folder / "mr_train_1002_label.nii.gz"
    label.write_bytes(b"\x00" * 400)
    report = check(folder)
    assert found(report) == {("error", "unreadable", "ct_train_1001"), ("error", "unreadable", "mr_train_1002")}
    messages = [f.message for f in report.findings]
    assert messages[0].startswith(f"{image}: ")
    assert messages[1].startswith(f"{label}: ")
    assert all("\n" not in m for m in messages)
    assert report.cases[0].volumes_ml, "the label map is looked at without its image"
    assert report.cases[0].shape is not None, "the header is sound"
    assert report.cases[3].orientation is not None


def test_unknown_labels_do_not_hide_what_else_is_wrong(folder: Path) -> None:
    rewrite(folder / "ct_train_1001_label.nii.gz", lambda a: np.where(a == 500, 77, a))
    report = check(folder)
    assert found(report) == {
        ("error", "unknown-labels", "ct_train_1001"),
        ("warning", "missing-structure", "ct_train_1001"),
    }
    assert "[77]" in report.findings[0].message
    assert set(report.cases[0].volumes_ml) == set(MMWHS.keys) - {"lv"}


def test_the_label_value_that_stands_for_the_left_atrium_too_is_known(folder: Path) -> None:
    rewrite(folder / "mr_train_1001_label.nii.gz", lambda a: np.where(a == 420, 421, a))
    assert not found(check(folder))


@pytest.mark.parametrize(
    "change",
    [lambda a: np.pad(a, ((0, 1), (0, 0), (0, 0))), lambda a: a],
    ids=["shape", "affine"],
)
def test_a_label_map_on_another_grid(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = folder / "ct_train_1001_label.nii.gz"
    affine = nib.load(path).affine
    affine[0, 3] += 3
    rewrite(path, change, affine)
    report = check(folder)
    assert found(report) == {("error", "grid-mismatch", "ct_train_1001")}
    assert report.cases[0].volumes_ml


def test_an_empty_label_map_and_an_empty_image(folder: Path) -> None:
    rewrite(folder / "ct_train_1001_label.nii.gz", np.zeros_like)
    rewrite(folder / "ct_train_1002_image.nii.gz", np.zeros_like)
    assert found(check(folder)) == {
        ("error", "empty-label", "ct_train_1001"),
        ("error", "unreadable", "ct_train_1002"),
    }


def test_a_label_map_of_unknown_values_is_not_called_empty(folder: Path) -> None:
    rewrite(folder / "ct_train_1001_label.nii.gz", lambda a: np.unique(a, return_inverse=True)[1].reshape(a.shape))
    assert found(check(folder)) == {("error", "unknown-labels", "ct_train_1001")}


def test_files_of_the_layout_that_are_missing(folder: Path) -> None:
    (folder / "ct_train_1001_label.nii.gz").unlink()
    (folder / "mr_train_1002_image.nii.gz").unlink()
    for part in ("image", "label"):
        (folder / f"mr_train_1001_{part}.nii.gz").rename(folder / f"mr_test_2001_{part}.nii.gz")
    (folder / "mr_test_2001_label.nii.gz").unlink()
    report = check(folder)
    assert {f for f in found(report) if f[1] == "layout"} == {("error", "layout", None)}
    layout = " ".join(f.message for f in report.findings if f.code == "layout")
    assert "mr_train_1002" in layout
    assert "ct_train_1001" in layout
    assert "mr_test_2001" not in layout
    notes = {(f.severity, f.case) for f in report.findings if f.code == "unlabelled"}
    assert notes == {("note", "ct_train_1001"), ("note", "mr_test_2001")}


def test_headers_that_contradict_themselves(folder: Path) -> None:
    path = folder / "ct_train_1001_image.nii.gz"
    block = bytearray(gzip.decompress(path.read_bytes()))
    block[80:84] = np.float32(7).tobytes()  # pixdim[1]
    path.write_bytes(gzip.compress(bytes(block)))
    (lie,) = [f for f in check(folder).findings if f.code == "header-conflict"]
    assert (lie.severity, lie.case) == ("warning", "ct_train_1001")
    assert f"{path}: pixdim says 7 x 6 x 6 mm, the affine 6 x 6 x 6 mm" in lie.message
    refused = check_cohort(read_mmwhs(folder, spacing_rule="refuse"), 1)
    assert found(refused) == {("error", "header-conflict", "ct_train_1001")}
    assert not found(check_cohort(read_mmwhs(folder, spacing_rule="affine"), 1)) - {
        ("warning", "header-conflict", "ct_train_1001")
    }


def test_a_header_that_does_not_say_how_the_patient_lies(folder: Path) -> None:
    path = folder / "ct_train_1001_image.nii.gz"
    block = bytearray(gzip.decompress(path.read_bytes()))
    block[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(gzip.compress(bytes(block)))
    report = check(folder)
    assert ("warning", "unstated-orientation", "ct_train_1001") in found(report)
    (doubt,) = [f for f in report.findings if f.code == "unstated-orientation"]
    assert f"{path}: its header does not say how the patient lies" in doubt.message


def test_the_same_image_twice_with_another_header(folder: Path) -> None:
    first = nib.load(folder / "ct_train_1001_image.nii.gz")
    array = np.asanyarray(first.dataobj)
    header = nib.load(folder / "ct_train_1002_image.nii.gz").affine
    nib.save(nib.Nifti1Image(array.astype(np.float32), header), folder / "ct_train_1002_image.nii.gz")
    report = check(folder)
    assert ("error", "duplicate-image", "ct_train_1002") in found(report)
    assert "ct_train_1001" in next(f.message for f in report.findings if f.code == "duplicate-image")


def test_values_that_do_not_look_like_the_modality(folder: Path) -> None:
    rewrite(folder / "ct_train_1001_image.nii.gz", lambda a: a - a.min())
    rewrite(folder / "mr_train_1001_image.nii.gz", lambda a: a.astype(int) * 2 - 1000)
    assert {f for f in found(check(folder)) if "unlike" in f[1]} == {
        ("warning", "unlike-ct", "ct_train_1001"),
        ("warning", "unlike-mr", "mr_train_1001"),
    }


def test_a_spacing_in_metres(folder: Path) -> None:
    for part in ("image", "label"):
        path = folder / f"ct_train_1001_{part}.nii.gz"
        rewrite(path, lambda a: a, np.diag([*[1e-3] * 3, 1]) @ nib.load(path).affine)
    codes = {c for _, c, case in found(check(folder)) if case == "ct_train_1001"}
    assert codes == {"implausible-spacing", "implausible-volume", "implausible-heart"}


def short_axis(root: Path, n: int, odd: int) -> Cohort:
    """`n` stacks of short-axis slices with the labels of ACDC; stack `odd` is mirrored and in reversed order."""
    x, y = np.meshgrid(np.arange(96) - 48, np.arange(96) - 48, indexing="ij")
    for i in range(n):
        label = np.zeros((96, 96, 8), np.int16)
        for k in range(8):
            right = np.hypot(x - 26, y - 4 - i) < 16 - 1.5 * k
            outer, inner = np.hypot(x, y) < 24 - 1.5 * k, np.hypot(x, y) < 17 - 1.5 * k
            label[..., k] = np.select([inner, outer, right], [3, 2, 1])
        if i == odd:
            label = label[::-1, :, ::-1]
        noise = np.random.default_rng(i).integers(0, 100, label.shape)
        for array, part in ((noise + 300 * (label > 0), "image"), (label, "label")):
            nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([1.5, 1.5, 10, 1])), root / f"p{i}_{part}.nii.gz")
    return read_folder(root, scheme="acdc", modality="mr", name="short axis")


def test_short_axis_stacks_are_compared_with_each_other(tmp_path: Path) -> None:
    report = check_cohort(short_axis(tmp_path, 6, odd=3), 1)
    warnings = {f for f in found(report) if f[0] != "note"}
    assert warnings == {("warning", "flip-in-cohort", "p3"), ("warning", "slice-order", "p3")}
    notes = [f[1:] for f in found(report) if f[0] == "note"]
    assert set(notes) == {(code, f"p{i}") for i in range(6) for code in ("thick-slices", "short-axis-stack")}


def test_a_reference_in_parts_is_looked_at_as_one(mixed_phantoms: Path, tmp_path: Path) -> None:
    cohort = read_mmwhs(mixed_phantoms, "ct")
    whole = cohort.cases[0]
    image = nib.load(whole.label)
    parts = {}
    for key, value in MMWHS.values.items():
        parts[key] = tmp_path / f"{key}.nii.gz"
        mask = (np.asanyarray(image.dataobj) == value).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, image.affine), parts[key])
    report = check_cohort(Cohort("parts", (Case("a", "a", "ct", whole.image, parts=parts),), MMWHS), 1)
    assert not report.findings
    assert report.cases[0].volumes_ml == check_cohort(cohort, 1).cases[0].volumes_ml
    parts["lv"].unlink()
    report = check_cohort(Cohort("parts", (Case("a", "a", "ct", whole.image, parts=parts),), MMWHS), 1)
    assert found(report) == {("error", "unreadable", "a")}
    assert "lv.nii.gz: no such file" in report.findings[0].message


def test_what_nobody_thought_of_is_a_finding_too(mixed_phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("whqa.data.findings.check.fingerprint", broken)
    report = check(mixed_phantoms)
    assert {(f.severity, f.code, f.message) for f in report.findings} == {
        ("error", "failed", "ZeroDivisionError: by zero")
    }
    assert len(report.cases) == 4


def test_a_file_that_cannot_be_opened(folder: Path) -> None:
    path = folder / "ct_train_1001_label.nii.gz"
    path.unlink()
    path.symlink_to(folder / "gone.nii.gz")
    os.chmod(folder / "ct_train_1002_image.nii.gz", 0)
    report = check(folder)
    assert all(f.severity == "error" for f in report.findings if f.case == "ct_train_1001" and f.code != "unlabelled")
    assert any("ct_train_1001" in f.message for f in report.findings)


def test_no_jobs(mixed_phantoms: Path) -> None:
    with pytest.raises(InputError, match="--jobs 0"):
        check(mixed_phantoms, 0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
def test_real_whole_hearts() -> None:
    report = check(SHARED / "whole_heart", 2)
    assert not report.findings
    first, second = report.cases
    assert (first.case.id, first.shape, first.spacing_mm, first.orientation) == (
        "ct_train_1001",
        (86, 72, 80),
        (2.0, 2.0, 2.0),
        "LPS",
    )
    assert (second.case.id, second.spacing_mm, second.orientation) == ("ct_train_1002", (1.5, 1.5, 1.5), "LPS")
    assert list(first.volumes_ml) == list(second.volumes_ml) == list(MMWHS.keys)
    assert first.volumes_ml["lv"] == pytest.approx(121, abs=1)
    assert second.volumes_ml["lv"] == pytest.approx(133, abs=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
@pytest.mark.parametrize(("axis", "code"), [(0, "flip-left-right"), (1, "flip-front-back"), (2, "flip-up-down")])
def test_real_whole_hearts_mirrored(tmp_path: Path, axis: int, code: str) -> None:
    mirror = np.eye(4)
    mirror[axis, axis] = -1
    for path in (SHARED / "whole_heart").glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), mirror @ image.affine), tmp_path / path.name)
    assert found(check(tmp_path)) == {("warning", code, case) for case in ("ct_train_1001", "ct_train_1002")}


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
def test_real_short_axis_stacks() -> None:
    report = check_cohort(read_folder(SHARED / "acdc", scheme=ACDC, modality="mr"), 2)
    stacks = {c.case.id: c.stack for c in report.cases if c.stack is not None}
    assert len(stacks) == 99
    for case, stack in stacks.items():
        mirrored = replace(stack, to_rv=(-stack.to_rv[0], stack.to_rv[1]))
        assert set(odd_stacks(stacks | {case: mirrored})) == {case}
        assert set(odd_stacks(stacks | {case: replace(stack, base=-stack.base)})) == {case}
    by_code: dict[str, list[str | None]] = {}
    for finding in report.findings:
        by_code.setdefault(finding.code, []).append(finding.case)
    assert len(by_code["header-conflict"]) == 198
    assert len(set(by_code["header-conflict"])) == 99
    # patient076's image is patient074's, voxel by voxel; the label maps were drawn apart (Dice 0.96 to 0.99)
    assert by_code["duplicate-image"] == ["patient076"]
    assert by_code.keys() == {"header-conflict", "duplicate-image", "thick-slices", "short-axis-stack"}


def test_a_reference_in_another_order_of_axes_is_read_and_told(folder: Path) -> None:
    path = folder / "ct_train_1001_label.nii.gz"
    before = {case.case.id: case.volumes_ml for case in check(folder).cases}
    nib.save(nib.load(path).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), path)
    report = check(folder)
    assert ("warning", "label-mended", "ct_train_1001") in found(report)
    assert not [f for f in report.findings if f.severity == "error"]
    after = {case.case.id: case.volumes_ml for case in report.cases}
    assert after["ct_train_1001"] == pytest.approx(before["ct_train_1001"])
    cohort = read_mmwhs(folder)
    image, reference = read_case(cohort, cohort["ct_train_1001"])
    assert reference is not None
    assert reference.shape == image.shape
    np.testing.assert_allclose(reference.affine, image.affine)

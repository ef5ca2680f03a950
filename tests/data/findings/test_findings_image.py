"""Findings of images, grids and copies on arrays made for them: found where they are, and not where they are not."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from whqa.data.findings.duplicates import duplicate_findings, fingerprint
from whqa.data.findings.finding import Finding, counts, grouped
from whqa.data.findings.grid import grid_findings, oblique_degrees, orientation, stack_axis
from whqa.data.findings.intensity import blood_findings, intensity_findings
from whqa.data.phantom import Phantom, make_phantom
from whqa.errors import InputError
from whqa.structures import MMWHS

KEYS = MMWHS.keys


def test_axes_that_are_not_at_right_angles() -> None:
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    for degrees, told in ((0.0, False), (0.5, False), (12.0, True)):
        shear = np.eye(4)
        shear[1, 2] = np.tan(np.radians(degrees))
        shear[:3, :3] = turn @ shear[:3, :3]
        found = [f for f in grid_findings((200, 200, 200), shear, True) if f.code == "sheared-axes"]
        assert bool(found) == told
        assert not told or "12 degrees off right angles" in found[0].message


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(5, 0, "ct", 6.0)


# --- intensities -----------------------------------------------------------------------------------------------------


def ct(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(-850, 60, (40, 40, 20))
    image[10:30, 10:30] = rng.normal(60, 30, (20, 20, 20))
    image[15:20, 15:20] = rng.normal(350, 30, (5, 5, 20))
    return image.clip(-1024, 1500).round().astype(np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i + 1024, "rescale intercept"),
        (lambda i: (i + 1024) / 10, "8-bit"),
        (lambda i: i / 1500, "normalised"),
        (lambda i: i.clip(-250, 650), "window"),
        (lambda i: i - 1024, "no tissue"),
        (lambda i: np.where(i < -1000, -32768, i), "padding"),
    ],
)
def test_values_that_no_ct_has(change: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    assert not list(intensity_findings(ct(), "ct"))
    (finding,) = intensity_findings(change(ct()).astype(np.float32), "ct")
    assert (finding.severity, finding.code) == ("warning", "unlike-ct")
    assert words in finding.message


def test_padding_of_common_scanners_is_no_finding() -> None:
    image = ct()
    image[:3] = -3024
    assert not list(intensity_findings(image, "ct"))


def test_values_that_no_mr_has() -> None:
    mr = np.abs(ct()) / 3
    assert not list(intensity_findings(mr, "mr"))
    (finding,) = intensity_findings(ct(), "mr")
    assert (finding.severity, finding.code) == ("warning", "unlike-mr")
    (finding,) = intensity_findings((mr - mr.mean()) / mr.std(), "mr")
    assert (finding.severity, finding.code) == ("note", "negative-mr")
    ringing = mr.copy()
    ringing[0, 0, :5] = -1
    assert not list(intensity_findings(ringing, "mr")), "a few voxels of an interpolation"


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_label_map_in_the_images_place(modality: str, phantom: Phantom) -> None:
    (finding,) = intensity_findings(phantom.label.astype(np.float32), modality)  # type: ignore[arg-type]
    assert (finding.severity, finding.code) == ("warning", "few-values")
    assert "only 8 different values" in finding.message


def test_blood_that_is_not_as_dense_as_blood(phantom: Phantom) -> None:
    image, label = phantom.image.astype(np.float32), MMWHS.to_indices(phantom.label, "phantom")
    assert not list(blood_findings(image, label, KEYS))
    (finding,) = blood_findings(image + 1024, label, KEYS)
    assert (finding.severity, finding.code) == ("warning", "label-off-blood")
    assert codes(blood_findings(np.where(label > 0, -850, image), label, KEYS)) == ["label-off-blood"]
    muscle = np.where(label == KEYS.index("myo") + 1, label, 0)
    assert not list(blood_findings(image + 1024, muscle, KEYS)), "no blood is drawn"


# --- grids -----------------------------------------------------------------------------------------------------------


def test_orientation_and_tilt_are_those_of_the_affine() -> None:
    assert orientation(np.diag([-1, -1, 1, 1.0])) == "LPS"
    assert oblique_degrees(np.diag([-1, -2, 3, 1.0])) == 0
    for degrees in (5.0, 20.0, 40.0):
        turned = nib.eulerangles.euler2mat(np.deg2rad(degrees), 0, 0) @ np.diag([1, 1, 4])
        assert oblique_degrees(nib.affines.from_matvec(turned)) == pytest.approx(degrees)


def test_only_stacks_of_thick_slices_have_an_axis() -> None:
    assert stack_axis(np.diag([1.5, 1.5, 10, 1])) == 2
    assert stack_axis(np.diag([1.5, -8, 1.5, 1])) == 1
    assert stack_axis(np.diag([1, 1, 3, 1])) is None
    assert stack_axis(np.diag([6, 6, 6, 1])) is None


@pytest.mark.parametrize(
    ("shape", "spacing", "whole_heart", "code"),
    [
        ((200, 200, 120), (1, 1, 1), True, None),
        ((512, 512, 300), (0.4, 0.4, 0.5), True, None),
        ((200, 200, 120), (0.001, 0.001, 0.001), True, "implausible-spacing"),
        ((200, 200, 120), (1, 1, 30), True, "implausible-spacing"),
        ((200, 200, 120), (20, 20, 20), True, "implausible-spacing"),
        ((200, 200, 45), (1, 1, 2), True, "small-field-of-view"),
        ((200, 200, 45), (1, 1, 2), False, None),
        ((216, 256, 10), (1.5, 1.5, 10), False, "thick-slices"),
        ((30, 256, 100), (1, 1, 1), False, "small-field-of-view"),
    ],
)
def test_spacing_and_extent(shape, spacing, whole_heart: bool, code: str | None) -> None:
    found = list(grid_findings(shape, np.diag([*spacing, 1.0]), whole_heart))
    assert codes(found) == ([code] if code else [])
    assert all(f.severity == ("warning" if code == "implausible-spacing" else "note") for f in found)


# --- duplicates ------------------------------------------------------------------------------------------------------


def prints(**images: np.ndarray) -> list:
    return [(case, case.split("_")[0], fingerprint(image)) for case, image in images.items()]


def test_the_same_picture_under_two_names() -> None:
    a, b = ct(0), ct(1)
    assert not duplicate_findings(prints(a=a, b=b))
    (finding,) = duplicate_findings(prints(a=a, b=b, c=np.asfortranarray(a)))
    assert (finding.severity, finding.code, finding.case) == ("error", "duplicate-image", "c")
    assert "that of a;" in finding.message
    (finding,) = duplicate_findings(prints(a_ed=a, b=b, a_es=a))
    assert finding.severity == "warning", "one patient's frames are never in two folds"
    assert len(duplicate_findings(prints(a=a, b=a, c=a))) == 2


@pytest.mark.parametrize(
    ("change", "reordered"),
    [(lambda i: i[::-1], True), (lambda i: i.transpose(2, 0, 1), True), (lambda i: np.where(i == 0, -0.0, i), False)],
    ids=["mirrored", "turned", "minus zero"],
)
def test_copies_in_another_order(change: Callable[[np.ndarray], np.ndarray], reordered: bool) -> None:
    image = ct()
    (finding,) = duplicate_findings(prints(a=image, b=change(image).astype(np.float32)))
    assert ("mirrored or in another order" in finding.message) == reordered


def test_pictures_that_are_almost_the_same_are_not_copies() -> None:
    image = ct()
    other, swapped = image.copy(), image.copy()
    other[3, 4, 5] += 1
    swapped[0, 0, 0] += 1
    swapped[0, 0, 1] -= 1
    assert not duplicate_findings(prints(a=image, b=other, c=swapped, d=image[:-1]))


# --- findings --------------------------------------------------------------------------------------------------------


def test_kinds_that_most_cases_share_are_told_from_the_rest() -> None:
    findings = [
        *(Finding("note", "unlabelled", "n", f"c{i}") for i in range(5)),
        Finding("error", "layout", "l"),
        *(Finding("warning", "header-conflict", "h", f"c{i // 2}") for i in range(12)),
        *(Finding("error", "unreadable", "u", f"c{i}") for i in range(4)),
    ]
    found = grouped(findings, 10)
    assert [(g.findings[0].code, len(g.findings), g.cases, g.shared) for g in found] == [
        ("layout", 1, 0, False),
        ("unreadable", 4, 4, False),
        ("header-conflict", 12, 6, True),
        ("unlabelled", 5, 5, True),
    ]
    assert counts(findings) == {"error": 5, "warning": 12, "note": 5}
    assert not grouped(findings[:2], 2)[0].shared, "two of two cases are named one by one"


def test_errors_become_findings() -> None:
    assert Finding.of_error(InputError("x:\n bad"), "c") == Finding("error", "unreadable", "x: bad", "c")
    assert Finding.of_error(InputError("bad", "grid-mismatch"), "c").code == "grid-mismatch"
    assert Finding.of_error(MemoryError(), "c") == Finding("error", "failed", "MemoryError", "c")
    assert Finding.of_error(ValueError("a\nb"), None).message == "ValueError: a b"

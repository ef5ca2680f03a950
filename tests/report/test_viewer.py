"""What the 3-D viewer of a report gets: volumes in place, places to go to, NiiVue with its licence."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from io import BytesIO

import matplotlib.colors
import nibabel as nib
import numpy as np
import pytest

from whqa.report import judged_view, shown, viewer
from whqa.structures import STRUCTURES, LabelScheme


@pytest.fixture(scope="module")
def view(assessed):
    return judged_view.judged_view(assessed())


def test_json_cannot_leave_its_script_element(view):
    hostile = LabelScheme("hostile", {"</script><!--<script>&\u2028": 1, "lv": 2})
    text = viewer.viewer_of(replace(view, scheme=hostile), False).data
    assert not set("<>&\u2028\u2029") & set(text)
    assert [label["key"] for label in json.loads(text)["labels"]] == list(hostile.keys)


def test_viewer_volumes_are_the_arrays(view):
    volumes, factors = viewer.fitting_volumes(view, True, viewer.BUDGET_BYTES)
    assert factors == (1, 1, 1)
    loaded = {name: _loaded(text) for name, text in volumes.items()}
    for image in loaded.values():
        np.testing.assert_allclose(image.affine, view.affine, atol=1e-4)
    np.testing.assert_array_equal(loaded["mask"].get_fdata(), view.mask)
    np.testing.assert_array_equal(loaded["corrected"].get_fdata(), view.corrected)
    np.testing.assert_array_equal(loaded["opinion"].get_fdata(), view.opinion)
    np.testing.assert_allclose(loaded["error"].get_fdata(), 100 * view.probability, atol=0.501)
    low, high = view.window
    step = (high - low) / 255
    np.testing.assert_allclose(loaded["image"].get_fdata(), np.clip(view.image, low, high), atol=0.51 * step)


def test_viewer_volumes_shrink_until_they_fit_and_stay_in_place(view):
    budget = 20_000
    volumes, factors = viewer.fitting_volumes(view, False, budget)
    assert sum(map(len, volumes.values())) <= budget
    assert max(factors) > 1
    assert set(volumes) == {"image", "mask", "error", "opinion"}
    assert set(viewer.fitting_volumes(replace(view, opinion=None), False, budget)[0]) == {"image", "mask", "error"}
    mask, error = _loaded(volumes["mask"]), _loaded(volumes["error"])
    assert error.get_fdata().max() == np.rint(100 * view.probability.max())
    for index in (1, 2):
        small = (mask.affine @ [*np.argwhere(mask.get_fdata() == index).mean(axis=0), 1])[:3]
        large = (view.affine @ [*np.argwhere(view.mask == index).mean(axis=0), 1])[:3]
        assert np.linalg.norm(small - large) < 0.5 * max(view.spacing)
    assert "made coarser" in viewer.viewer_of(view, False, budget).note
    few, factors = viewer.fitting_volumes(view, False, viewer.BUDGET_BYTES, max_voxels=1000)
    assert _loaded(few["mask"]).get_fdata().size <= 1000


def test_places_lead_to_the_errors(view):
    places = {p["title"]: p["mm"] for p in json.loads(viewer.viewer_of(view, False).data)["places"]}
    at = shown.worst_voxel(view.error_map, view.mask)
    np.testing.assert_allclose(places["most predicted error"], (view.affine @ [*at, 1])[:3], atol=2e-3)
    assert "pulmonary artery" not in places
    assert "right atrium" in places


def test_errors_are_never_taken_for_a_structure(view):
    scale = json.loads(viewer.viewer_of(view, False).data)["error_scale"]
    structures = [255 * np.array(matplotlib.colors.to_rgb(s.colour)) for s in STRUCTURES.values()]
    for probability in np.linspace(0.5, 1, 11):
        *colour, alpha = _on_scale(scale, probability)
        for structure in structures:
            assert np.linalg.norm(_lab(colour) - _lab(structure)) > 30, probability
        # as painted with the opacities that the page starts with, on whatever lies below
        shown = alpha / 255 * viewer.OPACITY["error"]
        for grey in range(0, 256, 51):
            tints = [viewer.OPACITY["mask"] * s + (1 - viewer.OPACITY["mask"]) * grey for s in structures]
            for below in (*tints, np.full(3, grey)):
                painted = shown * np.array(colour) + (1 - shown) * below
                assert min(np.linalg.norm(_lab(painted) - _lab(tint)) for tint in tints) > 25, (probability, grey)


def test_the_more_probable_an_error_the_stronger_its_colour(view):
    scale = json.loads(viewer.viewer_of(view, False).data)["error_scale"]
    assert [knot["probability"] for knot in (scale[0], scale[-1])] == [0, 1]
    points = np.array([_on_scale(scale, p) for p in np.linspace(0, 1, 21)])
    lightness = np.array([_lab(point[:3])[0] for point in points])
    assert (np.diff(points[:, 3]) > 0).all()
    assert (np.diff(lightness) <= 1e-9).all()
    assert lightness[-1] < lightness[0] - 5
    np.testing.assert_array_equal(points[0, :3], np.rint(255 * np.array(matplotlib.colors.to_rgb("#F0389B"))))


def test_viewer_carries_its_script_and_licence(view):
    found = viewer.viewer_of(view, False)
    module = gzip.decompress(base64.b64decode(found.script)).decode()
    assert module.rstrip().endswith("};")
    assert "Niivue" in module[module.rfind("export{") :]
    assert "Redistribution and use in source and binary forms" in found.licence


@pytest.mark.parametrize("widget", ["", 'var a="export%7BOther%7D";', "export%7BNiivue"])
def test_a_widget_without_the_module_is_refused(widget):
    with pytest.raises(viewer.ViewerUnavailableError, match="does not carry"):
        viewer.embedded_module(widget)


def _on_scale(scale: list, probability: float) -> list[float]:
    knots = [knot["probability"] for knot in scale]
    return [float(np.interp(probability, knots, [knot["rgba"][i] for knot in scale])) for i in range(4)]


def _lab(rgb) -> np.ndarray:
    """CIELAB of sRGB in 0..255: distances there are about as large as they look."""
    c = np.asarray(rgb, float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x = np.array(to_xyz) @ linear / [0.95047, 1, 1.08883]
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _loaded(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.GzipFile(fileobj=BytesIO(base64.b64decode(text))).read())

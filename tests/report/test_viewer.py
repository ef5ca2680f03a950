"""What the 3-D viewer of a report gets: volumes in place, places to go to, NiiVue with its licence."""

from __future__ import annotations

import base64
import gzip
import json
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest

from whqa.report import judged, slices, viewer


@pytest.fixture(scope="module")
def view(assessed):
    return judged.judged_view(assessed())


def test_json_cannot_leave_its_script_element():
    value = {"a": "</script><!--<script>&\u2028\u2029", "b": [1, "é"]}
    text = viewer.json_in_script(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_viewer_volumes_are_the_arrays(view):
    volumes, factors = viewer.fitting_volumes(view, True, viewer.BUDGET_BYTES)
    assert factors == (1, 1, 1)
    loaded = {name: _loaded(text) for name, text in volumes.items()}
    for image in loaded.values():
        np.testing.assert_allclose(image.affine, view.affine, atol=1e-4)
    np.testing.assert_array_equal(loaded["mask"].get_fdata(), view.mask)
    np.testing.assert_array_equal(loaded["corrected"].get_fdata(), view.corrected)
    np.testing.assert_allclose(loaded["error"].get_fdata(), 100 * view.probability, atol=0.501)
    low, high = view.window
    step = (high - low) / 255
    np.testing.assert_allclose(loaded["image"].get_fdata(), np.clip(view.image, low, high), atol=0.51 * step)


def test_viewer_volumes_shrink_until_they_fit_and_stay_in_place(view):
    budget = 20_000
    volumes, factors = viewer.fitting_volumes(view, False, budget)
    assert sum(map(len, volumes.values())) <= budget
    assert max(factors) > 1
    assert set(volumes) == {"image", "mask", "error"}
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
    at = slices.worst_voxel(view.error_map, view.mask)
    np.testing.assert_allclose(places["most predicted error"], (view.affine @ [*at, 1])[:3], atol=2e-3)
    assert "pulmonary artery" not in places
    assert "right atrium" in places


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


def _loaded(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.GzipFile(fileobj=BytesIO(base64.b64decode(text))).read())

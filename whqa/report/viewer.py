"""The 3-D viewer of a report: NiiVue and small copies of the volumes, all inside the page.

NiiVue (https://niivue.com, BSD-2-Clause) comes from the installed package ipyniivue, whose script carries the whole
module as text for its own "save as HTML". Nothing of it is imported in Python, and nothing is copied but into the page.
The page works without it: where the package or the text is missing, `ViewerUnavailableError` says so.
"""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from whqa.report.shown import PREDICTED_ERROR, JudgedView, tags_of, worst_voxel

PACKAGE = "ipyniivue"
BUDGET_BYTES = 10_000_000
MAX_VOXELS = 5_000_000
# What the page starts with; errors are as strong as in the pictures of the slices.
OPACITY = {"mask": 0.45, "error": 0.85}
# Probability, colour, alpha. From the colour of the slices to a darker one: a paler one would look like the aorta, and
# from 0.5 on so opaque that what shines through does not either.
ERROR_SCALE = ((0.0, PREDICTED_ERROR, 0.2), (0.5, PREDICTED_ERROR, 0.8), (1.0, "#C8006E", 1.0))
# Probabilities in the page are whole percents.
_PERCENT = 100
# ISA-L's smallest; zlib at 9 makes the script a tenth smaller in twenty times the time.
_GZIP_LEVEL = 3


class ViewerUnavailableError(Exception):
    """The viewer's script cannot be had; the text is a sentence for the page."""


@dataclass(frozen=True)
class Viewer:
    """What a page needs to embed.

    Attributes:
        script: NiiVue's module, gzip, base64.
        data: JSON that cannot end the script element it stands in, whatever the names of structures hold.
        note: sentence about the copies of the volumes.
        version: of the package that the script came from.
        licence: text that has to go with the script.
    """

    script: str
    data: Markup
    note: str
    version: str
    licence: str


def viewer_of(
    view: JudgedView, corrected: bool, budget: int = BUDGET_BYTES, pieces: Sequence[Sequence[float]] = ()
) -> Viewer:
    """NiiVue with volumes of at most `budget` bytes.

    Args:
        view: what is shown.
        corrected: show the corrected mask as well.
        budget: bytes of all volumes as base64.
        pieces: points to jump to, RAS mm, in the order of the page's list.

    Raises:
        ViewerUnavailableError: the script is not installed.
    """
    script = niivue_script()
    volumes, factors = fitting_volumes(view, corrected, min(budget, BUDGET_BYTES))
    return Viewer(
        script=script,
        data=htmlsafe_json_dumps(
            {"volumes": volumes, "factors": factors, "pieces": pieces, **_description(view)}, allow_nan=False
        ),
        note=_note(view, factors),
        version=importlib.metadata.version(PACKAGE),
        licence=_licence(),
    )


@lru_cache(maxsize=1)
def niivue_script() -> str:
    """NiiVue's module as base64 of gzip: 1.2 MB instead of 2.4.

    Raises:
        ViewerUnavailableError: ipyniivue is not installed, or carries its script in another way.
    """
    # find_spec does not import: ipyniivue would bring IPython along
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0]) / "static" / "widget.js" if places else None
    if file is None or not file.is_file():
        raise ViewerUnavailableError(f"The Python package {PACKAGE}, which carries the viewer's script, is missing.")
    module = embedded_module(file.read_text(encoding="utf-8"))
    return _base64(igzip.compress(module.encode(), _GZIP_LEVEL, mtime=0))


def embedded_module(widget: str) -> str:
    """The ES module that ipyniivue's widget.js holds as a percent-encoded string.

    Raises:
        ViewerUnavailableError: there is none that exports `Niivue`.
    """
    found = widget.rfind("export%7B")
    start, end = widget.rfind('"', 0, found) + 1, widget.find('"', found)
    module = unquote(widget[start:end]) if min(found, start, end) > 0 else ""
    exported = module[module.rfind("export{") :]
    if not all(f"{name}," in exported for name in ("NVImage", "Niivue", "cmapper")):
        raise ViewerUnavailableError(f"The installed version of {PACKAGE} does not carry the viewer's script.")
    return module


def fitting_volumes(
    view: JudgedView, corrected: bool, budget: int, max_voxels: int = MAX_VOXELS
) -> tuple[dict[str, str], tuple[int, ...]]:
    """Volumes as base64 of .nii.gz, made coarser until they fit.

    Returns:
        image, mask, error, on request corrected, opinion where there is one; how many voxels went into one by axis.
    """
    factors = [1, 1, 1]
    while True:
        shape = [-(-n // f) for n, f in zip(view.mask.shape, factors, strict=True)]
        if math.prod(shape) <= max_voxels:
            volumes = _volumes(view, corrected, factors)
            if sum(map(len, volumes.values())) <= budget or max(shape) <= 2:
                return volumes, tuple(factors)
        # the finest axis first, so that voxels become more alike in their sides
        sizes = [s * f if n > 1 else math.inf for s, f, n in zip(view.spacing, factors, shape, strict=True)]
        factors[int(np.argmin(sizes))] += 1


def _volumes(view: JudgedView, corrected: bool, factors: Sequence[int]) -> dict[str, str]:
    affine = view.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = view.affine[:3, 3] + view.affine[:3, :3] @ (np.array(factors) - 1) / 2
    low, high = view.window
    grey = (_mean(view.image, factors) - low) / (high - low)
    volumes = {
        "image": _nifti(_bytes(255 * grey), affine, (high - low) / 255, low),
        "mask": _nifti(_most_frequent(view.mask, factors), affine),
        # the largest of a block: a thin error must not fade
        "error": _nifti(_bytes(_PERCENT * _largest(view.probability, factors)), affine),
    }
    if corrected:
        volumes["corrected"] = _nifti(_most_frequent(view.corrected, factors), affine)
    if view.opinion is not None:
        volumes["opinion"] = _nifti(_most_frequent(view.opinion, factors), affine)
    return volumes


def _bytes(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _corners(array: npt.NDArray[Any], factors: Sequence[int]) -> list[npt.NDArray[Any]]:
    """Views of the first, second, ... voxel of every block; the far border is repeated where a block sticks out."""
    padded = np.pad(array, [(0, -n % f) for n, f in zip(array.shape, factors, strict=True)], mode="edge")
    a, b, c = factors
    return [padded[i::a, j::b, k::c] for i in range(a) for j in range(b) for k in range(c)]


def _mean(image: npt.NDArray[np.float32], factors: Sequence[int]) -> npt.NDArray[np.float32]:
    corners = _corners(image, factors)
    return np.asarray(sum(corners[1:], start=corners[0]) / len(corners), np.float32)


def _largest(probability: npt.NDArray[np.float32], factors: Sequence[int]) -> npt.NDArray[np.float32]:
    return reduce(np.maximum, _corners(probability, factors))


def _most_frequent(labels: npt.NDArray[np.uint8], factors: Sequence[int]) -> npt.NDArray[np.uint8]:
    corners = [np.ascontiguousarray(corner) for corner in _corners(labels, factors)]
    found = corners[0].copy()
    # most blocks lie within one structure
    mixed = reduce(np.logical_or, (corner != found for corner in corners[1:]), np.zeros(found.shape, bool))
    votes = np.stack([corner[mixed] for corner in corners])
    count = np.stack([(votes == index).sum(axis=0) for index in range(int(votes.max(initial=0)) + 1)])
    found[mixed] = count.argmax(axis=0)
    return found


def _nifti(array: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], slope: float = 1, inter: float = 0) -> str:
    image = nib.Nifti1Image(np.asfortranarray(array), affine)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    return _base64(igzip.compress(image.to_bytes(), _GZIP_LEVEL, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _description(view: JudgedView) -> dict[str, Any]:
    """Labels with colours and places to look at, in mm, and how to show the layers."""
    labels = [
        {"key": key, "tag": tag, "title": title, "colour": _rgb(colour)}
        for key, tag, title, colour in zip(
            view.scheme.keys, tags_of(view.scheme), view.scheme.titles, view.scheme.colours, strict=True
        )
    ]
    return {
        "labels": labels,
        "places": _places(view),
        "start": view.start,
        "whole": view.whole,
        "window": view.window,
        "error_scale": [
            {"probability": p, "rgba": [*_rgb(colour), round(255 * alpha)]} for p, colour, alpha in ERROR_SCALE
        ],
    }


def _rgb(colour: str) -> list[int]:
    return [*bytes.fromhex(colour.removeprefix("#"))]


def _places(view: JudgedView) -> list[dict[str, Any]]:
    """Where most errors are predicted, over all and in each structure of the mask; mm."""
    places = [("most predicted error", worst_voxel(view.error_map, view.mask))]
    for index, title in enumerate(view.scheme.titles, start=1):
        inside = view.mask == index
        if inside.any():
            places.append((title, worst_voxel(view.error_map & inside, inside)))
    return [{"title": t, "mm": (view.affine @ [*at, 1.0])[:3].round(3).tolist()} for t, at in places]


def _note(view: JudgedView, factors: Sequence[int]) -> str:
    cut = "Cut to the mask and the predicted errors with a margin" if view.mask.shape != view.whole else "Whole scan"
    if max(factors) == 1:
        return f"{cut}; intensities in 256 steps. The files beside this page have the full resolution."
    times = " x ".join(map(str, factors))
    return (
        f"{cut} and made coarser to keep this file small: {times} voxels became one (image: their mean, mask: the "
        "most frequent label, error probability: the largest); intensities in 256 steps. The files beside this "
        "page have the full resolution."
    )


def _licence() -> str:
    distribution = importlib.metadata.distribution(PACKAGE)
    for file in distribution.files or ():
        if file.name.upper().startswith("LICENSE"):
            return file.read_text(encoding="utf-8")
    return f"{distribution.metadata['License']}, https://github.com/niivue"

"""Structures that lie where another one should: exchanged label values that no size tells.

The aorta leaves the left ventricle and, beside it, touches the right one; the right ventricle, the right atrium and the
pulmonary artery lie away from the left ventricle, the left atrium lies away from the right ventricle. On 40 phantoms
and two real hearts what lies within 5 mm is, in ml:

    of the left ventricle    aorta 0.7-4.2    right ventricle 0-0.3, right atrium 0-0.1, pulmonary artery 0
    of the right ventricle   aorta 0-3.4      left atrium 0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.data.findings.anatomy import EDGE_SHARE, Measured
from whqa.data.findings.finding import Finding
from whqa.data.formats.volume_files import voxel_sizes

# Whoever lies by the first, which is never one of the last.
_BESIDE = (("lv", "ao", ("rv", "ra", "pa")), ("rv", "ao", ("la",)))
_NEAR_MM = 5.0
# Voxels of coarse grids are neighbours at more than that.
_NEAR_VOXELS = 1.2
# Told where so much of the wrong one is near, and three times less of the right one.
_LEAST_ML, _RATIO = 0.3, 3.0
# A vessel or a chamber of less is a stump, which may end anywhere.
_WHOLE_ML = 5.0
_GRID_MM = 2.5


def neighbour_findings(
    indices: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    keys: Sequence[str],
    measured: Mapping[str, Measured],
) -> Iterator[Finding]:
    """Pairs of structures that seem to have each other's label values.

    Only where they are whole enough to have their neighbours, and the ventricle beside them is not at the scan's edge.

    Args:
        indices: (X, Y, Z), 0 background, 1..C.
        affine: voxel -> RAS mm.
        keys: structure of each index from 1 on.
        measured: of the same label map, see `measure`.
    """
    whole = {key for key, structure in measured.items() if structure.volume_ml >= _WHOLE_ML}
    for beside, right, others in _BESIDE:
        far = [key for key in others if key in whole]
        if not far or not {beside, right} <= whole or measured[beside].edge_share >= EDGE_SHARE:
            continue
        near = _near_ml(indices, affine, keys, beside, [right, *far])
        # a little of another one may be there as well
        wrong = max(far, key=lambda key: near[key])
        if near[wrong] >= max(_LEAST_ML, _RATIO * near[right]):
            message = f"{wrong} lies beside {beside} where {right} should; are the label values of both exchanged?"
            yield Finding("warning", "exchanged-labels", message)


def _near_ml(
    indices: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    keys: Sequence[str],
    beside: str,
    others: Sequence[str],
) -> dict[str, float]:
    """How much of the other structures lies within 5 mm of one, in ml, on a grid of about 2.5 mm."""
    sizes = voxel_sizes(affine)
    steps = [max(1, int(_GRID_MM / size)) for size in sizes]
    spacing = np.multiply(sizes, steps)
    reach = max(_NEAR_MM, _NEAR_VOXELS * float(spacing.max()))
    index = keys.index(beside) + 1
    (box,) = ndimage.find_objects((indices == index).view(np.uint8))
    margins = [int(np.ceil(reach / size)) for size in sizes]
    around = indices[tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))]
    sampled = around[tuple(slice(None, None, step) for step in steps)]
    near = ndimage.distance_transform_edt(sampled != index, sampling=spacing) <= reach
    counts = np.bincount(sampled[near], minlength=len(keys) + 1)
    return {key: float(counts[keys.index(key) + 1]) * float(spacing.prod()) / 1000 for key in others}

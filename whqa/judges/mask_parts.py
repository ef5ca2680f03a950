"""Where a mask agrees with a second opinion, and where it differs: in seams, in blobs, in places that count.

Errors are of another kind in each: a right mask of another maker differs from the opinion in seams and a few blobs, a
gross fault in a place, and an error that mask and opinion share shows in none.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from whqa.metrics.error_places import millilitres, pieces
from whqa.metrics.error_sizes import thick
from whqa.quality import JudgedCase, box_around

MASK_PARTS = ("agreeing", "seam", "blob", "place")


def mask_parts(case: JudgedCase) -> Tensor | None:
    """Number of each voxel's part in `MASK_PARTS`, int64 (D, H, W), found once; None without an opinion.

    A seam is less than three voxels thick (`whqa.metrics.error_sizes.thick`), a place thicker and of at least 1 ml
    (`whqa.metrics.error_places`), a blob thicker and smaller.
    """
    if case.log_p is None:
        return None
    if case not in _FOUND:
        differs = case.drawn != case.mask
        part = differs.long()
        box = box_around(differs.cpu().numpy(), (1, 1, 1))
        blobs = thick(differs[box].cpu().numpy(), case.spacing)
        found = pieces(blobs, millilitres(case.spacing))
        part[box] += torch.from_numpy(blobs.astype(np.int64) + found.inside).to(part.device)
        _FOUND[case] = part
    return _FOUND[case]


_FOUND: WeakKeyDictionary[JudgedCase, Tensor] = WeakKeyDictionary()

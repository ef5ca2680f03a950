"""Masks of any quality for training and test, made from a case's label and its segmenter's masks.

    corrupted, novel  the label, or every third time a segmenter's mask, with anatomical faults
    mixed             the label in some regions, a segmenter's mask in the others: its natural errors, only fewer

All is drawn from (seed, case, kind) alone, so every machine, process and restart makes the same masks. A faulty mask's
file keeps the record of its faults as JSON, from which `whqa.masks.corruption.corrupt` makes it again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from whqa.masks.corruption import HELD_OUT_FAULTS, SEEN_FAULTS, Labels, corrupt, draw_faults
from whqa.masks.faults.fields import smooth_field
from whqa.masks.plan import FAULTY_KINDS, MIXED_KINDS, is_trained_on

ONE_FAULT = 0.6
"""Share of the faulty masks with one fault; the others have two or three."""
MIXED_SHARE = (0.1, 0.9)
"""Of the volume that a mixed mask takes from the segmenter's."""
REGION_MM = (25.0, 65.0)
"""Between the points of the random field that makes a mixed mask's regions."""


def faulty_masks(
    case: str,
    label: Labels,
    own: Mapping[str, Labels],
    spacing: Sequence[float],
    structures: Sequence[str],
    seed: int,
) -> Iterator[tuple[str, Labels, str]]:
    """Kind, mask and the JSON record of its faults, for every kind of `FAULTY_KINDS` and `MIXED_KINDS`.

    Args:
        case: its id, which the draws depend on.
        label: label indices (D, H, W).
        own: the segmenter's masks by kind, "final" among them; "augmented1" and "early" take its place now and then.
        spacing: mm along D, H, W.
        structures: keys in index order.
        seed: of the experiment.
    """
    key = zlib.crc32(case.encode())
    final = own["final"]
    augmented, early = own.get("augmented1", final), own.get("early", final)
    for number, kind in enumerate(FAULTY_KINDS, start=1):
        rng = np.random.default_rng((seed, key, number))
        base = (augmented, label, label, final, label, label)[number % 6]
        n = 1 if rng.random() < ONE_FAULT else int(rng.integers(2, 4))
        kinds = SEEN_FAULTS if is_trained_on(kind) else HELD_OUT_FAULTS
        draw = int(rng.integers(2**31))
        drawn = draw_faults(base, n, draw, spacing=spacing, structures=structures, kinds=kinds) if base.any() else []
        yield kind, corrupt(base, spacing, structures, drawn), json.dumps([fault.to_dict() for fault in drawn])
    for number, kind in enumerate(MIXED_KINDS, start=1 + len(FAULTY_KINDS)):
        rng = np.random.default_rng((seed, key, number))
        source = (early, final, augmented, final)[number % 4]
        yield kind, mix(label, source, spacing, rng), json.dumps([])


def mix(label: Labels, source: Labels, spacing: Sequence[float], rng: np.random.Generator) -> Labels:
    """`source` where a smooth random field is highest, `label` elsewhere."""
    field = smooth_field(label.shape, np.asarray(spacing, float), rng.uniform(*REGION_MM), rng)
    share = rng.uniform(*MIXED_SHARE)
    return np.where(field >= np.quantile(field, 1 - share), source, label)

"""Masks of any quality: the same everywhere, remade from their records, between what they are made of."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whqa.masks.corruption import HELD_OUT_FAULTS, SEEN_FAULTS, Fault
from whqa.masks.faulty import MIXED_SHARE, faulty_masks, mix
from whqa.masks.plan import FAULTY_KINDS, MIXED_KINDS, is_trained_on

Made = dict[str, tuple[np.ndarray, list[dict[str, Any]]]]


def _own(heart: Any) -> dict[str, np.ndarray]:
    """A final mask with a border one voxel off on one side, and an early one that knows nothing."""
    final, early = np.roll(heart.mask, 1, axis=0), heart.mask.copy()
    early[:, ::2] = 0
    return {"final": final, "early": early, "augmented1": np.roll(final, 1, axis=1)}


def _make(heart: Any, case: str = "1003", seed: int = 4, own: Mapping[str, np.ndarray] | None = None) -> Made:
    given = _own(heart) if own is None else own
    made = faulty_masks(case, heart.mask, given, heart.spacing, heart.structures, seed)
    return {kind: (mask, json.loads(faults)) for kind, mask, faults in made}


@pytest.fixture(scope="module")
def made(even_heart: Any) -> Made:
    return _make(even_heart)


def _digests(made: Made) -> dict[str, str]:
    return {kind: hashlib.sha256(mask.tobytes()).hexdigest() for kind, (mask, _) in made.items()}


def test_every_kind_is_made_as_labels_of_the_same_grid(made: Made, even_heart: Any) -> None:
    assert list(made) == [*FAULTY_KINDS, *MIXED_KINDS]
    for mask, _ in made.values():
        assert (mask.shape, mask.dtype) == (even_heart.mask.shape, np.uint8)
        assert set(np.unique(mask)) <= set(range(len(even_heart.structures) + 1))
        assert (mask != even_heart.mask).any()


def test_a_second_call_makes_the_same_masks(made: Made, even_heart: Any) -> None:
    again = _make(even_heart)
    assert _digests(again) == _digests(made)
    assert [faults for _, faults in again.values()] == [faults for _, faults in made.values()]


def test_another_case_or_seed_makes_others(made: Made, even_heart: Any) -> None:
    for other in (_make(even_heart, case="1004"), _make(even_heart, seed=5)):
        assert not set(_digests(other).values()) & set(_digests(made).values())


_IN_ANOTHER_PROCESS = """
import hashlib, json, sys
import numpy as np
from whqa.masks.faulty import faulty_masks
from whqa.structures import MMWHS
with np.load(sys.argv[1]) as arrays:
    label, own = arrays["label"], {kind: arrays[kind] for kind in ("final", "early", "augmented1")}
made = faulty_masks("1003", label, own, (4.0, 4.0, 4.0), MMWHS.keys, 4)
print(json.dumps({kind: hashlib.sha256(mask.tobytes()).hexdigest() for kind, mask, _ in made}))
"""


def test_another_process_makes_the_same_masks(made: Made, even_heart: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "case.npz", label=even_heart.mask, **_own(even_heart))
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(tmp_path / "case.npz")]
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == _digests(made)


@pytest.mark.parametrize("step", [(1, 1, 1), (2, 2, 3)])
def test_a_faulty_mask_is_remade_from_its_record(step: tuple[int, ...], even_heart: Any) -> None:
    coarse = even_heart.mask[tuple(slice(None, None, s) for s in step)].copy()
    known = replace(even_heart, mask=coarse, spacing=tuple(4.0 * s for s in step))
    own = _own(known)
    bases = {"label": known} | {kind: replace(known, mask=own[kind]) for kind in ("final", "augmented1")}
    came_from = []
    for kind, (mask, record) in _make(known).items():
        if kind in MIXED_KINDS:
            assert record == []
            continue
        faults = [Fault(**entry) for entry in record]
        assert 1 <= len(faults) <= 3
        origins = [name for name, base in bases.items() if np.array_equal(base.spoil(faults), mask)]
        assert len(origins) == 1, f"{kind}: the faults in the label or in one of the segmenter's masks make it"
        came_from += origins
    assert set(bases) == set(came_from)
    assert came_from.count("label") > len(came_from) / 2


def test_novel_masks_alone_have_the_kinds_of_fault_that_training_never_shows(even_heart: Any) -> None:
    of_kind: dict[bool, set[str]] = {True: set(), False: set()}
    for case in range(6):
        for kind, (_, record) in _make(even_heart, case=str(case)).items():
            of_kind[is_trained_on(kind)] |= {entry["kind"] for entry in record}
    assert of_kind[False] == set(HELD_OUT_FAULTS)
    assert of_kind[True] <= set(SEEN_FAULTS)
    assert len(of_kind[True]) > 10
    assert {kind for kind in FAULTY_KINDS if not is_trained_on(kind)} == {"novel1", "novel2"}


def test_a_mixed_mask_has_the_label_or_the_segmenters_mask_at_each_voxel(made: Made, even_heart: Any) -> None:
    own, label = _own(even_heart), even_heart.mask
    sources = set()
    for kind in MIXED_KINDS:
        mask = made[kind][0]
        fits = [name for name, values in own.items() if ((mask == label) | (mask == values)).all()]
        assert fits, f"{kind} lies between the label and a mask of the segmenter"
        rates = {name: float((values != label).mean()) for name, values in own.items()}
        assert 0 < (mask != label).mean() < max(rates[name] for name in fits)
        sources |= set(fits)
    assert sources == set(own)


def test_without_other_masks_mixed_ones_come_from_the_final_one(even_heart: Any) -> None:
    final = {"final": _own(even_heart)["final"]}
    made = _make(even_heart, own=final)
    for kind in MIXED_KINDS:
        mask = made[kind][0]
        assert ((mask == even_heart.mask) | (mask == final["final"])).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mixed_mask_takes_its_share_in_regions(seed: int, even_heart: Any) -> None:
    label, source = np.zeros(even_heart.mask.shape, np.uint8), np.ones(even_heart.mask.shape, np.uint8)
    mixed = mix(label, source, even_heart.spacing, np.random.default_rng(seed))
    assert MIXED_SHARE[0] - 0.01 <= mixed.mean() <= MIXED_SHARE[1] + 0.01
    # whoever differs from the next voxel lies on a border between regions
    assert (np.diff(mixed.astype(int), axis=0) != 0).mean() < 0.2


def test_an_empty_final_mask_has_no_faults_to_be_put_in(even_heart: Any) -> None:
    empty = {"final": np.zeros_like(even_heart.mask)}
    made = _make(even_heart, own=empty)
    assert list(made) == [*FAULTY_KINDS, *MIXED_KINDS]
    without = [kind for kind in FAULTY_KINDS if not made[kind][1]]
    assert without
    for kind in without:
        assert not made[kind][0].any()


def test_masks_stay_as_they_are(even_heart: Any) -> None:
    own, before = _own(even_heart), even_heart.mask.copy()
    _make(even_heart, own=own)
    np.testing.assert_array_equal(even_heart.mask, before)
    for kind, values in _own(even_heart).items():
        np.testing.assert_array_equal(own[kind], values)

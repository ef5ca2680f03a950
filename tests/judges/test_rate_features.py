"""What error rates are learned from: each number against numpy and scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import expit

from whqa.judges.rate_features import OPINION_FEATURES, SMALLEST, rate_features
from whqa.quality import JudgedCase

Make = Callable[..., JudgedCase]
Logits = Callable[..., torch.Tensor]


def _opening(of: np.ndarray, axes: list[int]) -> np.ndarray:
    """Where a map is three voxels thick along these axes: a cross survives within it, and its box is counted."""
    cross, box = np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    cross[1, 1, 1] = True
    box[tuple(slice(None) if axis in axes else slice(1, 2) for axis in range(3))] = True
    for axis in axes:
        place = [1, 1, 1]
        for step in (0, 2):
            place[axis] = step
            cross[tuple(place)] = True
    core = ndimage.binary_erosion(of, cross)
    return ndimage.binary_dilation(core, box) & of


def _borders(labels: np.ndarray, axes: list[int]) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    for axis in axes:
        size = [3 if k == axis else 1 for k in range(3)]
        low, high = (f(labels, size=size, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
        found |= low != high
    return found


def _of_numpy(logit: np.ndarray, case: JudgedCase, axes: list[int]) -> np.ndarray:
    mask, log_p = case.mask.numpy().astype(int), case.log_p.double().numpy()  # type: ignore[union-attr]
    heart = ndimage.distance_transform_edt(mask == 0, sampling=case.spacing) <= 10
    n = heart.sum()
    p, drawn = np.exp(log_p), log_p.argmax(axis=0)
    doubt = 1 - np.take_along_axis(p, mask[None], axis=0)[0]
    differs = drawn != mask
    thick = _opening(differs, axes)
    labelled, n_pieces = ndimage.label(thick)
    ml = np.bincount(labelled.ravel(), minlength=n_pieces + 1) * np.prod(case.spacing) / 1000
    place = thick & (ml >= 1)[labelled]
    parts = [part & heart for part in (~differs, differs & ~thick, thick & ~place, place)]
    own = (1 - p.max(axis=0))[heart].sum() / n
    lengths = [(_borders(labels, axes) & heart).sum() / n for labels in (mask, drawn)]
    return np.array(
        [
            np.log(expit(logit)[heart].mean() + SMALLEST),
            doubt[heart].mean(),
            own,
            *(doubt[part].sum() / n / (own + SMALLEST) for part in parts),
            lengths[0] / (lengths[1] + SMALLEST),
            *(doubt[part].sum() / n / (part.sum() / n + SMALLEST) for part in parts),
        ]
    )


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.9])
@pytest.mark.parametrize(("spacing", "axes"), [((6.0, 6.0, 6.0), [0, 1, 2]), ((2.0, 2.0, 9.0), [0, 1])])
def test_the_features_are_those_of_numpy(
    heard: Make, logit_of: Logits, wrong: float, spacing: tuple[float, float, float], axes: list[int]
) -> None:
    case = replace(heard(3, wrong), spacing=spacing)
    mask = case.mask.clone()
    # a place that is thick
    mask[5:9, 4:9, 4:8] = (case.drawn[5:9, 4:9, 4:8] + 1) % 4
    case, logit = replace(case, mask=mask), logit_of(case)
    found = rate_features(logit, case)
    np.testing.assert_allclose(found, _of_numpy(logit.numpy().astype(float), case, axes), rtol=1e-4, atol=1e-7)
    assert found.dtype == np.float64
    assert len(found) == 1 + len(OPINION_FEATURES)
    # a part of the cube, of 8.6 or 1.4 ml
    assert found[1 + OPINION_FEATURES.index("place")] > 0


def test_without_an_opinion_the_mean_of_p_alone_counts(heard: Make, unheard: Callable, logit_of: Logits) -> None:
    case = heard(1)
    logit = logit_of(case)
    np.testing.assert_allclose(rate_features(logit, unheard(case)), rate_features(logit, case)[:1])


def test_the_features_do_not_look_at_the_reference(heard: Make, logit_of: Logits) -> None:
    case = heard(1)
    blind = replace(case, reference=None)
    np.testing.assert_array_equal(rate_features(logit_of(case), blind), rate_features(logit_of(case), case))


def test_a_mask_that_agrees_with_the_opinion_everywhere_differs_nowhere(heard: Make, logit_of: Logits) -> None:
    case = heard(1)
    agreed = replace(case, mask=case.drawn.to(torch.uint8))
    found = dict(zip(OPINION_FEATURES, rate_features(logit_of(case), agreed)[1:], strict=True))
    assert found["seam"] == found["blob"] == found["place"] == found["doubt_of_seam"] == 0
    assert found["border"] == pytest.approx(1, abs=0.02)
    assert found["doubt"] == pytest.approx(found["own_doubt"])


@pytest.mark.parametrize("sure", [False, True])
def test_an_empty_mask_has_finite_features(heard: Make, logit_of: Logits, sure: bool) -> None:
    case = heard(1)
    if sure:
        case = replace(case, log_p=torch.full_like(case.log_p, -1000.0).scatter(0, case.drawn.long()[None], 0.0))
    empty = replace(case, mask=torch.zeros_like(case.mask))
    assert np.isfinite(rate_features(logit_of(case), empty)).all()

"""What speaks for and against a mask's label, channel by channel against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.special import log_softmax

from whqa.modules.evidence import LOG_FIT_RANGE, WINDOWS, brightness_fit, evidence, evidence_channels, one_label_windows

N_CLASSES = 4
SHAPE = (7, 8, 9)


def _case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, mask, middle and spread of every label, log p_S."""
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, N_CLASSES, (4, 4, 5)), np.ones((2, 2, 2), int))[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    image = mask + rng.normal(0, 0.5, SHAPE)
    known = np.c_[np.arange(N_CLASSES) + rng.normal(0, 0.1, N_CLASSES), rng.uniform(0.2, 2, N_CLASSES)]
    said = rng.integers(0, N_CLASSES, SHAPE)
    one_hot = np.arange(N_CLASSES)[:, None, None, None] == said
    return image, mask, known, log_softmax(rng.normal(0, 1, (N_CLASSES, *SHAPE)) + 2 * one_hot, axis=0)


def _found(seed: int = 0, with_opinion: bool = True) -> np.ndarray:
    image, mask, known, log_p = (torch.from_numpy(a)[None] for a in _case(seed))
    channels = evidence(image[:, None].float(), mask, known.float(), log_p.float() if with_opinion else None)
    return torch.cat(channels, dim=1)[0].numpy()


def _fit(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log-density under each label's normal distribution, with the labels' mean spread as unit."""
    unit = known[:, 1].mean()
    density = [stats.norm.logpdf(image / unit, m / unit, s / unit) + np.log(2 * np.pi) / 2 for m, s in known]
    return np.clip(density, *LOG_FIT_RANGE) / 4


def _windows(labels: np.ndarray) -> np.ndarray:
    """Share of the windows that hold one label; beyond the edge a window holds nothing more."""
    shares = [
        ndimage.maximum_filter(labels, w, mode="nearest") == ndimage.minimum_filter(labels, w, mode="nearest")
        for w in WINDOWS
    ]
    return np.mean(shares, axis=0)


def _at(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, labels[None], axis=0)[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_opinion", [True, False])
def test_every_channel_is_that_of_numpy(seed: int, with_opinion: bool) -> None:
    image, mask, known, log_p = _case(seed)
    fit = _fit(image, known)
    own = np.arange(N_CLASSES)[:, None, None, None] == mask
    other_fit = np.where(own, -np.inf, fit).max(axis=0)
    expected = [*fit, _at(fit, mask), _at(fit, mask) - other_fit, _windows(mask)]
    if with_opinion:
        rival = np.where(own, -np.inf, log_p).argmax(axis=0)
        expected += [
            _windows(log_p.argmax(axis=0)),
            _at(log_p, mask) / 5 + 1,
            _at(log_p, rival) / 5 + 1,
            _at(fit, rival),
        ]
    found = _found(seed, with_opinion)
    assert len(found) == len(expected) == evidence_channels(["image", "mask"] + ["opinion"] * with_opinion, N_CLASSES)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=f"channel {number}")


@pytest.mark.parametrize("inputs", [["image"], ["mask"], ["opinion"], ["image", "opinion"], ["mask", "opinion"]])
def test_where_image_or_mask_is_withheld_there_is_no_evidence(inputs: list[str]) -> None:
    assert evidence_channels(inputs, N_CLASSES) == 0


def test_a_window_at_the_edge_ends_there() -> None:
    labels = torch.zeros(1, 1, 9, 9, 9, dtype=torch.int64)
    labels[..., 4:, :, :] = 3
    found = one_label_windows(labels)[0, 0, :, 0, 0]
    # 3, 5 and 7 voxels: the border lies between 3 and 4
    torch.testing.assert_close(found, torch.tensor([1, 2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3, 1, 1]))


def test_the_fit_is_the_same_for_every_patch_of_a_volume() -> None:
    image, _, known, _ = _case()
    whole = brightness_fit(torch.from_numpy(image)[None, None], torch.from_numpy(known)[None])
    part = brightness_fit(torch.from_numpy(image[2:5, 1:4])[None, None], torch.from_numpy(known)[None])
    torch.testing.assert_close(part, whole[:, :, 2:5, 1:4])


def test_cases_of_a_batch_do_not_mix() -> None:
    cases = [_case(seed) for seed in range(2)]
    image, mask, known, log_p = (torch.from_numpy(np.stack(parts)) for parts in zip(*cases, strict=True))
    both = torch.cat(evidence(image[:, None].float(), mask, known.float(), log_p.float()), dim=1)
    for seed in range(2):
        np.testing.assert_allclose(both[seed], _found(seed), rtol=1e-5, atol=1e-6)


def test_of_equally_probable_labels_the_first_other_one_is_the_rival() -> None:
    """Stored opinions come in steps, so that labels tie."""
    image, mask, known, log_p = (torch.from_numpy(a)[None] for a in _case())
    said = (2 * log_p).round().float() / 2
    own = torch.nn.functional.one_hot(mask, N_CLASSES).movedim(-1, 1).bool()
    others = said.masked_fill(own, -torch.inf)
    assert ((others == others.amax(dim=1, keepdim=True)).sum(dim=1) > 1).any()
    fit = brightness_fit(image[:, None].float(), known.float())
    rival = torch.from_numpy(others.numpy().argmax(axis=1))[:, None]
    channels = evidence(image[:, None].float(), mask, known.float(), said)
    torch.testing.assert_close(channels[-1], fit.gather(1, rival), rtol=0, atol=0)
    torch.testing.assert_close(channels[-2], said.gather(1, rival) / 5 + 1, rtol=0, atol=0)


def test_an_image_far_off_stays_in_range() -> None:
    image, mask, known, log_p = (torch.from_numpy(a)[None] for a in _case())
    said = torch.full_like(log_p, -10.0).float()
    found = torch.cat(evidence(1e6 * image[:, None].float(), mask, known.float(), said), dim=1)
    assert found.isfinite().all()
    assert float(found.abs().max()) <= 3

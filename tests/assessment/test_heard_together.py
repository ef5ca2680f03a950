"""In `whqa assess` the networks of a nested plan hear, as in their test, the mean opinion of all segmenters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from whqa.assessment import TrainedRun, load_run
from whqa.assessment.ensemble import judge_mask
from whqa.masks.opinion import decode, encode

SPACING = (8.0, 8.0, 8.0)


@pytest.mark.parametrize("hears_all", [True, False])
def test_a_network_hears_the_mean_and_its_error_rate_is_told_by_its_own_segmenter(
    run: TrainedRun, hears_all: bool
) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((17, 16, 15))).float()
    mask = torch.from_numpy(rng.integers(0, 8, (17, 16, 15)))
    networks = [replace(load_run(run.path).networks[0], fold=fold, hears_all=hears_all) for fold in range(2)]
    with torch.no_grad():
        for weight in networks[1].segmenter.parameters():  # type: ignore[union-attr]
            weight.mul_(-1.5)
        said = [n.segmenter.log_p_of_views(image) for n in networks]  # type: ignore[union-attr]
    stored = [decode(torch.from_numpy(encode(one))) for one in said]
    mean = torch.stack([one.exp() for one in stored]).mean(dim=0).log()
    seen = []
    for network in networks:
        module, real = network.module, network.module.raw
        module.raw = lambda batch, real=real: seen.append(dict(batch)) or real(batch)  # type: ignore[method-assign, misc]
    found = judge_mask(networks, image, mask, SPACING)
    for batch, own in zip(seen, stored, strict=True):
        torch.testing.assert_close(batch[networks[0].module.opinion][0], own)
        assert ("heard" in batch) == hears_all
        if hears_all:
            torch.testing.assert_close(batch["heard"][0], mean)
    alone = [judge_mask([network], image, mask, SPACING) for network in networks]
    for fold, one in enumerate(alone):
        # z is another and adds up to the same
        assert found.by_fold[fold].qi["heart"] == pytest.approx(one.by_fold[fold].qi["heart"], abs=1e-3)
    together = (alone[0].probability + alone[1].probability) / 2
    assert torch.allclose(found.probability, together, atol=1e-4) != hears_all

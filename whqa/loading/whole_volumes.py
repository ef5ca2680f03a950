"""Whole prepared volumes, one at a time, with the mask under judgement and the opinions that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whqa.loading.brightness import brightness
from whqa.masks.opinion import decode, mean_opinion

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase
    from whqa.masks.opinion import Opinion
    from whqa.masks.store import MaskItem

_OfCase = tuple[Tensor, Tensor, Tensor | None, Tensor | None, float | None]


class LatestCase:
    """What all masks of a case share, read once, as masks come case by case; nobody may write into it.

    Args:
        cases: by id.
        opinions, ensembles: only those of judged masks; see `whqa.loading.datamodule.WholeHeartDataModule`.
    """

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        opinions: Mapping[str, Opinion] | None,
        ensembles: Mapping[str, Sequence[Opinion]] | None,
    ) -> None:
        self.cases, self.opinions, self.ensembles = cases, opinions, ensembles
        self._name = ""
        self._found: _OfCase | None = None

    def of(self, name: str) -> _OfCase:
        """Image float32 and label uint8 (D, H, W), log p_S and the mean of several, each (C + 1, D, H, W) or None.

        Last the pairwise Dice of the several, or None.
        """
        if self._found is None or self._name != name:
            log_p = None if self.opinions is None else decode(torch.from_numpy(self.opinions[name].codes()))
            several = (None, None) if self.ensembles is None else mean_opinion(self.ensembles[name])
            self._name, self._found = name, (*_volume(self.cases[name]), log_p, *several)
        return self._found


class VolumeDataset(Dataset[dict[str, Any]]):
    """Whole prepared volumes, with their mask under judgement where `masks` are given; see its `test_dataloader`."""

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        items: Sequence[tuple[str, str]],
        masks: Mapping[tuple[str, str], MaskItem] | None,
        opinions: Mapping[str, Opinion] | None,
        ensembles: Mapping[str, Sequence[Opinion]] | None,
        n_classes: int,
    ) -> None:
        self.cases, self.items, self.masks = cases, list(items), masks
        self.n_classes, self._latest = n_classes, LatestCase(cases, opinions, ensembles)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, kind = self.items[index]
        case = self.cases[name]
        image, label, log_p, ensemble, alike = self._latest.of(name)
        volume: dict[str, Any] = {"image": image[None], "label": label.long()}
        if self.masks is not None:
            mask, entropy = self.masks[name, kind].load()
            volume["mask"], volume["plain"] = torch.from_numpy(mask).long(), image[None]
            volume["brightness"] = torch.from_numpy(brightness(image.numpy(), mask, case.spacing, self.n_classes))
            if entropy is not None:
                volume["entropy"] = torch.from_numpy(entropy)
            if log_p is not None:
                volume["log_p"] = log_p
            if ensemble is not None:
                volume["ensemble"], volume["pairwise_dice"] = ensemble, alike
        return volume | {"spacing": torch.tensor(case.spacing), "index": index, "case": name, "kind": kind}


def _volume(case: PreparedCase) -> tuple[Tensor, Tensor]:
    """Image float32 and label uint8, both (D, H, W), copied out of their memory maps."""
    return torch.from_numpy(np.array(case.image(), dtype=np.float32)), torch.from_numpy(np.array(case.label()))

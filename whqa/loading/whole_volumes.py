"""Whole prepared volumes, one at a time, with the mask under judgement and the opinions that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whqa.loading.brightness import brightness
from whqa.masks.opinion import mean_log_p, mean_opinion

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase
    from whqa.masks.opinion import Opinion
    from whqa.masks.store import MaskItem


class _OfCase(NamedTuple):
    """Image float32 and label uint8 (D, H, W); opinions and what else is said of the case, see `JudgedCase`."""

    image: Tensor
    label: Tensor
    log_p: Tensor | None
    ensemble: Tensor | None
    pairwise_dice: float | None
    tta: Tensor | None
    heard: Tensor | None

    @property
    def said(self) -> dict[str, Any]:
        """By name, None where nothing is."""
        return {"log_p": self.log_p, "ensemble": self.ensemble, "pairwise_dice": self.pairwise_dice, "tta": self.tta}


class LatestCase:
    """What all masks of a case share, read once, as masks come case by case; nobody may write into it.

    Args:
        cases: by id.
        opinions, ensembles, tta, heard: only those of judged masks; see
            `whqa.loading.datamodule.WholeHeartDataModule`.
    """

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        opinions: Mapping[str, Opinion] | None,
        ensembles: Mapping[str, Sequence[Opinion]] | None,
        tta: Mapping[str, Opinion] | None,
        heard: Mapping[str, Sequence[Opinion]] | None = None,
    ) -> None:
        self.cases, self.opinions, self.ensembles, self.tta, self.heard = cases, opinions, ensembles, tta, heard
        self._name = ""
        self._found: _OfCase | None = None

    def of(self, name: str) -> _OfCase:
        """What the masks of this case share."""
        if self._found is None or self._name != name:
            log_p, tta = (None if every is None else every[name].log_p() for every in (self.opinions, self.tta))
            image, label = _volume(self.cases[name])
            ensemble, alike = (None, None) if self.ensembles is None else mean_opinion(self.ensembles[name])
            several = () if self.heard is None else self.heard[name]
            heard = mean_log_p([one.log_p() for one in several]) if len(several) > 1 else None
            self._name, self._found = name, _OfCase(image, label, log_p, ensemble, alike, tta, heard)
        return self._found


class VolumeDataset(Dataset[dict[str, Any]]):
    """Whole prepared volumes, with their mask under judgement where `masks` are given; see its `test_dataloader`."""

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        items: Sequence[tuple[str, str]],
        masks: Mapping[tuple[str, str], MaskItem] | None,
        latest: LatestCase,
        n_classes: int,
    ) -> None:
        self.cases, self.items, self.masks = cases, list(items), masks
        self.n_classes, self._latest = n_classes, latest

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, kind = self.items[index]
        case = self.cases[name]
        of = self._latest.of(name)
        image = of.image
        volume: dict[str, Any] = {"image": image[None], "label": of.label.long()}
        if self.masks is not None:
            mask, entropy = self.masks[name, kind].load()
            volume["mask"], volume["plain"] = torch.from_numpy(mask).long(), image[None]
            volume["brightness"] = torch.from_numpy(brightness(image.numpy(), mask, case.spacing, self.n_classes))
            if entropy is not None:
                volume["entropy"] = torch.from_numpy(entropy)
            volume |= {name: said for name, said in (of.said | {"heard": of.heard}).items() if said is not None}
        return volume | {
            "spacing": torch.tensor(case.spacing, dtype=torch.float64),
            "index": index,
            "case": name,
            "kind": kind,
        }


def batch_of_one(volumes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What torch's `default_collate` makes of a single volume, without copies: its tensors share their memory."""
    (volume,) = volumes
    return {name: _with_axis(part) for name, part in volume.items()}


def _with_axis(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part[None]
    if isinstance(part, str):
        return [part]
    return torch.tensor([part], dtype=torch.float64 if isinstance(part, float) else torch.int64)


def _volume(case: PreparedCase) -> tuple[Tensor, Tensor]:
    """Image float32 and label uint8, both (D, H, W), copied out of their memory maps."""
    return torch.from_numpy(np.array(case.image(), dtype=np.float32)), torch.from_numpy(np.array(case.label()))

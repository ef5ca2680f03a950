"""How much does the error-map network look at an input? It is shown another patient's and loses what the input told.

Permutation importance (Breiman, Machine Learning 2001), on the test fold: the network sees the mask (or the image) of
the next patient in place of the case's own, all else stays, and what it then says is held against the case's own
errors.
A network that does not look at the mask loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whqa.errors import InputError
from whqa.loading.brightness import brightness
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.masks.plan import MASK_KINDS, family
from whqa.modules.errormap import ErrorMapModule
from whqa.modules.training_settings import Input
from whqa.modules.volume_batches import spacing_of
from whqa.quality import ErrorPrediction

SHUFFLED = (Input.mask, Input.image)
"""What can be exchanged."""
Batch = dict[str, Any]


class Shuffled:
    """The network's prediction with one input of another patient.

    Args:
        what: one of `SHUFFLED`.

    Attributes:
        name: in the column `method` of cases.csv.
    """

    def __init__(self, what: str) -> None:
        self.what, self.name = what, f"{what}_shuffled"

    def predict(self, module: ErrorMapModule, data: WholeHeartDataModule, batch: Batch) -> ErrorPrediction | None:
        """For a whole-volume batch; None where there is no row: of every kind of mask one number is enough.

        There is none either where another program's mask of no other patient lies in the test fold.

        Raises:
            InputError: the test fold has one patient alone.
        """
        case, kind = batch["case"][0], batch["kind"][0]
        if not _is_first(kind):
            return None
        other = _next_patient(data, case, kind)
        if other is None:
            return None
        shown = self._exchanged(batch, next(data.volumes([other])), module.n_classes)
        return module.predict(module.raw(batch, shown), module.judged(batch))

    def _exchanged(self, batch: Batch, other: Mapping[str, Any], n_classes: int) -> Batch:
        image, mask = batch["image"], batch["mask"]
        if self.what == Input.mask:
            mask = _fitted(other["mask"][None], mask.shape, 0).to(mask)
        else:
            image = _fitted(other["image"][None], image.shape, float(other["image"].min())).to(image)
        seen = brightness(
            image[0, 0].float().cpu().numpy(), mask[0].to(torch.uint8).cpu().numpy(), spacing_of(batch), n_classes
        )
        bright = torch.from_numpy(seen)[None].to(batch["brightness"])
        return batch | {"image": image, "plain": image, "mask": mask, "brightness": bright}


def make_shuffled(names: Sequence[str]) -> list[Shuffled]:
    """Of every named input, each once.

    Raises:
        InputError: an input that cannot be exchanged.
    """
    unknown = [name for name in names if name not in SHUFFLED]
    if unknown:
        raise InputError(f"errormap.shuffled={list(names)}: must be some of {', '.join(SHUFFLED)}")
    return [Shuffled(name) for name in dict.fromkeys(names)]


def _is_first(kind: str) -> bool:
    """Whether it is the first of its family: "final", "corrupted1", not "corrupted2"."""
    return kind not in MASK_KINDS or kind == next(k for k in MASK_KINDS if family(k) == family(kind))


def _next_patient(data: WholeHeartDataModule, case: str, kind: str) -> tuple[str, str] | None:
    """(case, kind) of the mask that takes the place of this one, in a circle through the test fold."""
    items = [(name, k) for name, k in data.test_items if k == kind]
    own = data.cases[case].patient
    start = items.index((case, kind))
    for name, k in (*items[start + 1 :], *items[:start]):
        if data.cases[name].patient != own:
            return name, k
    if kind not in MASK_KINDS:
        return None
    raise InputError(
        f"errormap.shuffled: the test fold of case {case} has no mask {kind!r} of another patient; "
        "leave it out, or use fewer folds"
    )


def _fitted(volume: torch.Tensor, shape: Sequence[int], fill: float) -> torch.Tensor:
    """Cut and padded round its centre to `shape`; the last three axes are space."""
    array: npt.NDArray[Any] = volume.cpu().numpy()
    for axis in range(array.ndim - 3, array.ndim):
        lack = shape[axis] - array.shape[axis]
        if lack < 0:
            array = np.take(array, range(-lack // 2, -lack // 2 + shape[axis]), axis=axis)
        elif lack > 0:
            width = [(lack // 2, lack - lack // 2) if a == axis else (0, 0) for a in range(array.ndim)]
            array = np.pad(array, width, constant_values=fill)
    return torch.from_numpy(array)

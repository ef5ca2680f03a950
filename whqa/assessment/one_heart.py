"""A mask that has the heart as one structure, as TotalSegmentator's task total of version 2: its outline is judged.

The networks know masks of chambers. They are shown one: every voxel of the heart gets the chamber that the second
opinion holds for most probable there. What they say of labels is then added up to what the mask knows, so that a voxel
is wrong where the heart is taken for something else or something else for the heart, never by the wrong chamber.
Structures that the mask does not have, such as the pulmonary artery, are background to it.

Shape suffixes: C all C + 1 labels of the run, K those of the mask, DHW space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whqa.data.sources.names import HEART
from whqa.structures import GREAT_VESSELS, STRUCTURES, LabelScheme

if TYPE_CHECKING:
    from whqa.assessment.model import TrainedRun

CHAMBERS = tuple(key for key in STRUCTURES if key not in GREAT_VESSELS)
"""What the heart consists of, the myocardium among them."""
ONLY_OUTLINE = (
    "The mask has the heart as one structure: its outline is judged and not its chambers, and without intervals, as "
    "the run's unseen masks have chambers."
)

NO_CHAMBERS = "the run's unseen masks have the chambers, which this mask does not tell apart"
_LEFT_ALONE = "the mask has the heart as one structure, and the rule for corrections was chosen on masks of chambers"


def is_one_heart(scheme: LabelScheme) -> bool:
    """Whether a mask's scheme has the heart and none of its chambers."""
    return HEART in scheme.keys and not set(CHAMBERS) & set(scheme.keys)


def outline_scheme(scheme: LabelScheme, run_scheme: LabelScheme) -> LabelScheme:
    """Of a mask's scheme what can be judged: the heart, and vessels that the run knows too."""
    known = {k: v for k, v in scheme.values.items() if k == HEART or k in run_scheme.keys}
    return LabelScheme("the heart as one structure", known)


def why_not(run: TrainedRun) -> str | None:
    """What a run lacks to judge the outline of a heart; None where it lacks nothing."""
    lacking = [key for key in CHAMBERS if key not in run.scheme.keys]
    if lacking:
        return f"the run {run.path} does not know {', '.join(lacking)}, which belong to it"
    module = run.networks[0].module
    if not (module.corrects and module.hears_opinion):
        return f"the run {run.path} has no label head or hears no second opinion"
    return None


@dataclass(frozen=True)
class OneHeart:
    """How the labels of a run go together in such a mask.

    Attributes:
        groups: for each label 0..C of the run that of the mask.
        keys: structures of the mask's labels from 1 on.
    """

    groups: tuple[int, ...]
    keys: tuple[str, ...]

    @classmethod
    def of(cls, run_scheme: LabelScheme, scheme: LabelScheme) -> OneHeart | None:
        """For a mask of this scheme; None where it has the run's own structures."""
        if not is_one_heart(scheme):
            return None
        index = {key: i for i, key in enumerate(scheme.keys, start=1)}
        groups = [index[HEART] if key in CHAMBERS else index.get(key, 0) for key in run_scheme.keys]
        return cls((0, *groups), scheme.keys)

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.keys) + 1

    def filled(self, mask_DHW: Tensor, log_p_CDHW: Tensor) -> Tensor:
        """The mask in labels of the run, int64: of several that a label stands for the most probable."""
        filled = torch.zeros_like(mask_DHW)
        for label in range(1, self.n_classes):
            members = [c for c, group in enumerate(self.groups) if group == label]
            chosen = torch.tensor(members)[log_p_CDHW[members].argmax(dim=0)]
            filled = torch.where(mask_DHW == label, chosen, filled)
        return filled

    def summed(self, values_CDHW: Tensor) -> Tensor:
        """Probabilities of the run's labels -> of the mask's, (K, D, H, W)."""
        summed = torch.zeros(self.n_classes, *values_CDHW.shape[1:])
        return summed.index_add_(0, torch.tensor(self.groups), values_CDHW.float())

    def judged(self, probability_DHW: Tensor, others_CDHW: Tensor, filled_DHW: Tensor) -> tuple[Tensor, Tensor]:
        """P and q of the filled mask -> those of the mask itself, whose own label has q = 0."""
        labels = others_CDHW * probability_DHW
        own = self.summed(labels.scatter(0, filled_DHW[None], (1 - probability_DHW)[None]))
        mask_1DHW = torch.tensor(self.groups)[filled_DHW][None]
        others = own.scatter(0, mask_1DHW, 0.0)
        probability = others.sum(dim=0).clamp(0, 1)
        return probability, others / probability.clamp(min=1e-12)


def left_alone(scheme: LabelScheme) -> str | None:
    """Why a mask of this scheme is not corrected; None where it may be."""
    return _LEFT_ALONE if is_one_heart(scheme) else None


def outline_alone(scheme: LabelScheme) -> tuple[str, ...]:
    """What forbids to accept a mask of this scheme."""
    return (ONLY_OUTLINE,) if is_one_heart(scheme) else ()

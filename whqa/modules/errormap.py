"""Stage two: the error-map network, which sees an image and a mask of it and says which voxels are wrong.

After Zhang & Chung, MICCAI 2019: error-map prediction is a segmentation problem for the same network family. Beside the
paper's binary head stands a label head, which also says what the right label is:

    binary   1 logit e: the mask is wrong here, P = sigmoid(e)
    label    C + 1 logits of the true label and one of trust in the mask, which is added to that of the mask's label:
             P = 1 - p(M), so e = logsumexp of the others - logit of M

Cross entropy of the true label is that of e plus, on wrong voxels, that over the other labels; so both heads share one
loss, with the second term weighted by `label_weight`.

Where the network hears a second opinion (p_S of a segmenter that has not seen the case, in the test the mean of all
that have not), it learns what to add to it: the label logits are log p_S plus the network's, the error logit is that of
1 - p_S(M) plus the network's. It begins as good as its rival, the opinion itself, because its last layers start at
zero. Beside the raw inputs it sees what follows from them for every structure alike, see `whqa.modules.evidence`.

In training the mask may be withheld from some patches (`errormap.mask_dropout`): whatever tells of it is zero there,
and what is trained is a segmenter, without trust in a mask that it does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whqa.errors import InputError
from whqa.judges.calibration import Calibration
from whqa.judges.correction import Changes, other_probabilities
from whqa.judges.doubt import logit_of_doubt
from whqa.modules.base import DeepSupervisionModule, rounded
from whqa.modules.distances import signed_distances
from whqa.modules.evidence import evidence, evidence_channels
from whqa.modules.image_level import around, image_level_channels, image_level_loss, image_level_quality, pooled
from whqa.modules.losses import border_weight, other_and_own, soft_dice, weighted_cross_entropy
from whqa.modules.training_settings import USUAL_INPUTS, ErrorMapSettings, Head, Input, sees_mask
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction, JudgedCase


class RawVerdict(NamedTuple):
    """Uncalibrated outputs for a volume: float32 (D, H, W) and (C + 1, D, H, W), the latter None without label head.

    Of a joint network also those of the whole mask (C + 1,), see `whqa.modules.image_level`. Where the network heard
    another opinion than the one that tells the mask's error rate, `doubt` is what that doubts, as a logit (D, H, W).
    """

    error_logit: Tensor
    label_logits: Tensor | None
    image_level: Tensor | None = None
    doubt: Tensor | None = None


def in_channels(inputs: Sequence[str], n_classes: int) -> int:
    """Channels that a network with these inputs needs.

    Raises:
        InputError: no such input, none, or one twice.
    """
    channels = {"image": 1, "mask": n_classes, "distances": n_classes, "opinion": n_classes}
    if not inputs or len(set(inputs)) < len(inputs) or not set(inputs) <= set(channels):
        raise InputError(f"errormap.inputs={list(inputs)}: must be some of {', '.join(channels)}, each once")
    return sum(channels[name] for name in inputs) + evidence_channels(inputs, n_classes)


def out_channels(head: str, inputs: Sequence[str], n_classes: int, joint: bool = False) -> int:
    """Channels that a head needs; without the mask there is none whose label could be trusted.

    Args:
        head: see `ErrorMapModule`.
        inputs: that the network sees.
        n_classes: C + 1.
        joint: whether the network also judges the mask as a whole.

    Raises:
        InputError: no such head.
    """
    if head not in list(Head):
        raise InputError(f"errormap.head={head}: must be one of {', '.join(Head)}")
    voxelwise = 1 if head == "binary" else n_classes + sees_mask(inputs)
    return voxelwise + (image_level_channels(n_classes) if joint else 0)


def joins_mask(deep_mask: bool | None, network: nn.Module, inputs: Sequence[str]) -> bool:
    """Whether the mask joins at the network's deep levels: as `errormap.deep_mask` says, null wherever it can."""
    return hasattr(network, "join") and sees_mask(inputs) if deep_mask is None else deep_mask


def mask_channels(inputs: Sequence[str], n_classes: int) -> tuple[int, int]:
    """Number of the first input channel that is the mask, one-hot or as distances, and of the first one behind these.

    Raises:
        InputError: the mask is withheld.
    """
    if not sees_mask(inputs):
        raise InputError(f"errormap.deep_mask=true: errormap.inputs={list(inputs)} withholds the mask; leave one out")
    first = int("image" in inputs)
    return first, first + n_classes * len({Input.mask, Input.distances}.intersection(inputs))


class Target(NamedTuple):
    """What the loss compares with.

    Attributes:
        labels: mask and reference, int64 (B, 2, D, H, W).
        log_p: the opinion (B, C + 1, D, H, W), or None where it is not heard.
        shown: 1 where a patch comes with its mask and 0 where that is withheld, float32 (B,); None where all do.
        weight: of the voxels in the cross entropy of the error logit (B, 1, D, H, W), None where all weigh alike.
        near: what lies around the mask (B, N), for a joint network.
    """

    labels: Tensor
    log_p: Tensor | None = None
    shown: Tensor | None = None
    weight: Tensor | None = None
    near: Tensor | None = None


class ErrorMapModule(DeepSupervisionModule):
    """Image, mask and second opinion -> error logit, with cross entropy (and optionally Dice) and deep supervision.

    Wrong voxels are rare; patches are centred on them (data module) and `positive_weight` weighs them in the loss.

    Args:
        network: (B, `in_channels(inputs)`, D, H, W) -> list of (B, `out_channels(...)`, D, H, W).
        n_classes: C + 1.
        inputs: some of "image", "mask" (one-hot), "distances" (of the mask, see `whqa.modules.distances`) and "opinion"
            (log p_S), None for all but distances; what is left out is withheld.
        hears_views: whether the opinion is that of the mean over shifted views, see `whqa.modules.views`.
        head: "binary" or "label", see above.
        label_weight: weight of the cross entropy over the other labels on wrong voxels.
        dice_weight: weight of a soft Dice term beside cross entropy.
        positive_weight: weight of wrong voxels in the cross entropy.
        focal_gamma: exponent of the focal loss (Lin et al. 2017), by which voxels that are judged right already weigh
            less in the cross entropy; 0 is the plain one.
        boundary_weight: how much more a voxel between two labels of mask or reference weighs in the cross entropy, at
            most; it falls to none where windows of 3, 5 and 7 voxels hold one label alone.
        image_level_weight: weight of the image-level loss; above 0 the network is a joint one, see
            `whqa.modules.image_level`.
        kwargs: see `DeepSupervisionModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        n_classes: int,
        inputs: Sequence[str] | None = ErrorMapSettings.inputs,
        hears_views: bool = False,
        head: str = ErrorMapSettings.head,
        label_weight: float = ErrorMapSettings.label_weight,
        dice_weight: float = ErrorMapSettings.dice_weight,
        positive_weight: float = ErrorMapSettings.positive_weight,
        focal_gamma: float = ErrorMapSettings.focal_gamma,
        boundary_weight: float = ErrorMapSettings.boundary_weight,
        image_level_weight: float = ErrorMapSettings.image_level_weight,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.n_classes = n_classes
        self.seen = tuple(map(str, inputs or USUAL_INPUTS))
        self.hears_views, self.opinion = hears_views, "tta" if hears_views else "log_p"
        self.head = head
        self.label_weight = label_weight
        self.dice_weight = dice_weight
        self.focal_gamma, self.boundary_weight = focal_gamma, boundary_weight
        self.image_level_weight = image_level_weight
        self.register_buffer("positive_weight", torch.tensor(float(positive_weight)), persistent=False)
        self.calibration = Calibration()
        if self.hears_opinion:
            for layer in self.network.classifiers:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    @property
    def hears_opinion(self) -> bool:
        """Whether batches must come with what `opinion` names."""
        return Input.opinion in self.seen

    @property
    def corrects(self) -> bool:
        """Whether it says which label is right."""
        return self.head == Head.label

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """What the network sees (B, `in_channels`, D, H, W): image, one-hot mask, distances, opinion, evidence."""
        parts = []
        if Input.image in self.seen:
            parts.append(batch["image"])
        if Input.mask in self.seen:
            parts.append(_unless_withheld(_one_hot(batch["mask"], self.n_classes, batch["image"].dtype), batch))
        if Input.distances in self.seen:
            parts.append(_unless_withheld(signed_distances(batch["mask"], batch["spacing"], self.n_classes), batch))
        if self.hears_opinion:
            # -10..0 to -1..1
            parts.append(self._heard(batch) / 5 + 1)
        if evidence_channels(self.seen, self.n_classes):
            log_p = self._heard(batch) if self.hears_opinion else None
            found = evidence(batch["plain"], batch["mask"].long(), batch["brightness"], log_p)
            parts += [_unless_withheld(part, batch) for part in found]
        return torch.cat([rounded(part) for part in parts], dim=1)

    @property
    def is_joint(self) -> bool:
        """Whether it also judges the mask as a whole."""
        return self.image_level_weight > 0

    def target(self, batch: dict[str, Any]) -> Target:
        """Mask, reference and opinion, where the mask is withheld, and what the loss weighs by."""
        labels = torch.stack([batch["mask"].long(), batch["label"].long()], dim=1)
        return Target(
            labels,
            batch[self.opinion] if self.hears_opinion else None,
            batch.get("mask_shown"),
            border_weight(labels, self.boundary_weight) if self.boundary_weight else None,
            around(batch["mask"], batch["spacing"]) if self.is_joint else None,
        )

    def loss(self, logits: Tensor, target: Target) -> Tensor:
        """Weighted cross entropy plus `dice_weight` times soft Dice loss of the error logit, pooled over the batch.

        A label head adds `label_weight` times the mean cross entropy over the other labels on wrong voxels, a joint
        network `image_level_weight` times the image-level loss.
        """
        mask, label = target.labels[:, :1], target.labels[:, 1:]
        error = (mask != label).float()
        logits, of_image = self._halves(logits)
        error_logit, missed = self._logits_of_loss(logits, target)
        pos_weight: Tensor = self.positive_weight  # type: ignore[assignment]
        if self.focal_gamma or target.weight is not None:
            value = weighted_cross_entropy(error_logit, error, pos_weight, target.weight, self.focal_gamma)
        else:
            value = F.binary_cross_entropy_with_logits(error_logit, error, pos_weight=pos_weight)
        if self.dice_weight:
            value = value + self.dice_weight * soft_dice(error_logit, error)
        if missed is not None and self.label_weight:
            value = value + self.label_weight * (missed * error).sum() / error.sum().clamp(min=1)
        if of_image is not None:
            assert target.near is not None
            z = pooled(of_image, mask[:, 0], target.near)
            value = value + self.image_level_weight * image_level_loss(z, mask[:, 0], label[:, 0], target.near)
        return value

    def _halves(self, logits_BCDHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Channels that speak of voxels, and those that speak of the image, None without."""
        if not self.is_joint:
            return logits_BCDHW, None
        n = logits_BCDHW.shape[1] - image_level_channels(self.n_classes)
        return logits_BCDHW[:, :n], logits_BCDHW[:, n:]

    def _logits_of_loss(self, logits_BCDHW: Tensor, target: Target) -> tuple[Tensor, Tensor | None]:
        """Error logit as in `split`; of a label head also the label's cross entropy over the others, where wrong."""
        mask_B1DHW, label_B1DHW = target.labels[:, :1], target.labels[:, 1:]
        if self.head == "binary":
            return self.split(logits_BCDHW, mask_B1DHW, target.log_p)
        labels = self._labels(logits_BCDHW, target.log_p)
        other, own, right = other_and_own(labels, mask_B1DHW, label_B1DHW)
        if sees_mask(self.seen):
            trust = logits_BCDHW[:, self.n_classes :].flatten(2)
            own = own + (trust if target.shown is None else trust * target.shown[:, None, None])
        return (other - own).view_as(mask_B1DHW), (other - right).view_as(mask_B1DHW)

    def split(
        self, logits_BCDHW: Tensor, mask_B1DHW: Tensor, log_p_BCDHW: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Error logit (B, 1, D, H, W) and label logits (B, C + 1, D, H, W), the latter None for the binary head."""
        if self.head == "binary":
            doubt = 0.0 if log_p_BCDHW is None else _error_logit(log_p_BCDHW, mask_B1DHW)
            return logits_BCDHW + doubt, None
        labels = self._labels(logits_BCDHW, log_p_BCDHW)
        if sees_mask(self.seen):
            labels = labels.scatter_add(1, mask_B1DHW, logits_BCDHW[:, self.n_classes :])
        return _error_logit(labels, mask_B1DHW), labels

    def _labels(self, logits_BCDHW: Tensor, log_p_BCDHW: Tensor | None) -> Tensor:
        """Label logits before the trust in the mask: what the network adds to the opinion."""
        labels = logits_BCDHW[:, : self.n_classes]
        return labels if log_p_BCDHW is None else labels + log_p_BCDHW

    def raw(self, batch: dict[str, Any], shown: dict[str, Any] | None = None) -> RawVerdict:
        """Uncalibrated outputs for a whole volume; the network sees the inputs of `shown`, None for the batch's own."""
        return self.verdict(self.final(batch if shown is None else shown), batch)

    def final(self, batch: dict[str, Any]) -> Tensor:
        """What the network says of a whole volume: (1, `out_channels`, D, H, W), float32."""
        return self.forward_volume(self.inputs(batch))[0]

    def verdict(self, said: Tensor, batch: dict[str, Any]) -> RawVerdict:
        """What follows from `final` for the batch's own mask."""
        # the network leaves channels last, along which all that follows takes longer
        final, of_image = self._halves(said.contiguous())
        log_p = self._heard(batch).float() if self.hears_opinion else None
        error_logit, label_logits = self.split(final, batch["mask"].long()[:, None], log_p)
        labels = None if label_logits is None else label_logits[0]
        z = None
        if of_image is not None:
            z = pooled(of_image.float(), batch["mask"], around(batch["mask"], batch["spacing"]))[0]
        doubt = None
        if log_p is not None and "heard" in batch:
            doubt = logit_of_doubt(log_p[0], batch["mask"][0])
        return RawVerdict(error_logit[0, 0], labels, z, doubt)

    def _heard(self, batch: dict[str, Any]) -> Tensor:
        """log p_S (B, C + 1, D, H, W) of all that have not seen a test case, of one segmenter in training."""
        found: Tensor = batch.get("heard", batch[self.opinion])
        return found

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> RawVerdict:
        """Uncalibrated outputs for a whole volume; callbacks calibrate and measure them."""
        return self.raw(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> ErrorPrediction:
        """Calibrated prediction for a whole volume; callbacks store and measure it."""
        return self.predict(self.raw(batch), self.judged(batch))

    def judge_held_back(self, batch: dict[str, Any]) -> ErrorPrediction:
        """That of a training case that the calibration was fitted on, see `Calibration.of_held_back`."""
        return self.predict(self.raw(batch), self.judged(batch), self.calibration.of_held_back)

    def judged(self, batch: dict[str, Any]) -> JudgedCase:
        """The mask of a whole-volume batch, with the opinion that tells its error rate: that of one segmenter."""
        return self.heard(judged_case(batch))

    def heard(self, case: JudgedCase) -> JudgedCase:
        """A mask with that opinion as `log_p`, or with none where the network hears none."""
        return case.hearing(self.opinion if self.hears_opinion else None)

    def predict(self, raw: RawVerdict, case: JudgedCase, calibration: Calibration | None = None) -> ErrorPrediction:
        """Calibrated verdict; with label logits also the most probable other labels, expected Dice, corrected mask."""
        by = calibration or self.calibration
        found = by.predict(raw.error_logit, case, raw.doubt)
        if raw.image_level is not None:
            found = replace(found, whole=image_level_quality(raw.image_level, by.image_level, case))
        if raw.label_logits is None:
            return found
        changes = Changes(found.probability, other_probabilities(raw.label_logits, case.mask), case.mask)
        corrected, _ = changes.by(by.correction)
        return replace(
            found, other=changes.label.to(torch.uint8), expected_dice=changes.expected_dice(), corrected=corrected
        )


def _one_hot(mask_BDHW: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """As `F.one_hot` with the labels in the second place, (B, C, D, H, W): in a quarter of its time."""
    b, *size = mask_BDHW.shape
    return mask_BDHW.new_zeros((b, n_classes, *size), dtype=dtype).scatter_(1, mask_BDHW.long()[:, None], 1.0)


def _unless_withheld(of_mask_BCDHW: Tensor, batch: dict[str, Any]) -> Tensor:
    """Channels that tell of the mask, zero in patches from which it is withheld."""
    shown = batch.get("mask_shown")
    return of_mask_BCDHW if shown is None else of_mask_BCDHW * shown[:, None, None, None, None]


def _error_logit(label_logits_BCDHW: Tensor, mask_B1DHW: Tensor) -> Tensor:
    own = label_logits_BCDHW.gather(1, mask_B1DHW)
    return _without(label_logits_BCDHW, mask_B1DHW).logsumexp(dim=1, keepdim=True) - own


def _without(logits_BCDHW: Tensor, mask_B1DHW: Tensor) -> Tensor:
    return logits_BCDHW.scatter(1, mask_B1DHW, torch.finfo(logits_BCDHW.dtype).min)

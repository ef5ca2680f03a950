"""WholeHeartDataModule: the data of one fold, for both stages.

Without masks (segmenter) an item is a case; with masks (error map) it is one mask of a case. Training yields augmented
patches, validation and test yield whole volumes one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from whqa.data.cache import Cache
from whqa.data.folds import make_folds
from whqa.data.prepare import prepare_cohort
from whqa.errors import InputError
from whqa.loading.augmentation import Augmentation
from whqa.loading.patch_settings import BALANCE, DELIVERED, Balance, Dropout, PatchSettings
from whqa.loading.patches import PatchDataset
from whqa.loading.sampling import PatchSampler, quality_bins, validation_cases
from whqa.loading.whole_volumes import LatestCase, VolumeDataset, batch_of_one
from whqa.masks.plan import (
    MASK_KINDS,
    is_as_delivered,
    is_delivered,
    is_named,
    is_trained_on,
    refuse_unlearnable,
    refuse_untestable,
)
from whqa.process import cpus
from whqa.quality import JudgedCase

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase
    from whqa.data.case import Cohort
    from whqa.data.folds import Folds
    from whqa.data.preprocess_settings import Preprocess
    from whqa.masks.opinion import Opinion
    from whqa.masks.store import MaskItem

Item = tuple[str, str]
EXTRAS = frozenset({"entropy", "log_p", "ensemble", "tta"})
"""Attributes of `JudgedCase` that not every mask has."""
_WORKERS_A_GPU = 4


class WholeHeartDataModule(pl.LightningDataModule):
    """Patches of the training folds, whole volumes of validation and test cases.

    Args:
        cases: prepared cases by id, all with labels.
        folds: of the cohort.
        held_out: folds that training and validation never see.
        masks: masks under judgement; those of training cases, validation and test cases are told apart by case.
        opinions: with masks, a segmenter's opinion on every case.
        ensembles: with masks, those of several segmenters, where there are.
        tta: with masks, the opinion by test-time augmentation on every case, where there is one.
        hears_views: whether training patches come with that one.
        heard: with masks, the opinions whose mean a network hears of a whole volume, where there are several.
        n_classes: C + 1, needed with masks.
        test_folds: folds to test on; None is `held_out`.
        patch: size in voxels along D, H, W.
        batch_size: patches an optimiser step, of all processes together, so that more devices do the same training.
        steps_per_epoch: optimiser steps an epoch.
        foreground: see `PatchDataset`.
        validation_fraction: of the training folds' patients, at least one; 0 trains on all and validates on none.
        augmentation: of training patches; None for none.
        seed: of the validation split, the order and every patch.
        num_workers: processes that cut patches; 0 cuts them in the training process. None is 0 on a CPU, where cutting
            takes a few hundredths of a step and processes would take the cores from it, and up to 4 a GPU, whose steps
            are as short as a patch takes.
        balance: "quality" draws masks from bins of their error rate alike (QCResUNet, arXiv 2412.07156), "final" does
            so but for a share of `delivered` masks (`whqa.masks.plan.is_as_delivered`), "none" draws all masks alike.
            Without masks it has no meaning.
        delivered: see `balance`.
        train_kinds: of the masks of training and validation cases, those that serve: mask kinds with or without number,
            or families of them (`whqa.masks.plan.family`); None takes all but those for the test alone.
        test_kinds: of the segmenters' masks of test cases, those that are judged, named with or without number or by
            family; None judges all. Those of other programs are judged in any case.
        dropout: what is withheld from training patches with masks, None for nothing.

    Attributes:
        train_cases, val_cases, test_cases: case ids.
        train_items, val_items, test_items: (case, mask kind) in the order of the batches' `index`; without masks kind
            is "".

    Raises:
        InputError: no case is left to train or to test on, a case has no mask under judgement, or there is no such kind
            as one of `train_kinds` or `test_kinds`.
    """

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        folds: Folds,
        held_out: Sequence[int],
        *,
        masks: Sequence[MaskItem] | None = None,
        opinions: Mapping[str, Opinion] | None = None,
        ensembles: Mapping[str, Sequence[Opinion]] | None = None,
        tta: Mapping[str, Opinion] | None = None,
        hears_views: bool = False,
        heard: Mapping[str, Sequence[Opinion]] | None = None,
        n_classes: int = 0,
        test_folds: Sequence[int] | None = None,
        patch: Sequence[int],
        batch_size: int,
        steps_per_epoch: int,
        foreground: float = PatchSettings.foreground,
        validation_fraction: float = PatchSettings.validation_fraction,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        num_workers: int | None = PatchSettings.num_workers,
        balance: Balance = BALANCE,
        delivered: float = DELIVERED,
        train_kinds: Sequence[str] | None = None,
        test_kinds: Sequence[str] | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        super().__init__()
        # of the settings, for the messages: masks are judged in the second stage alone
        stage = "segmenter" if masks is None else "errormap"
        _refuse_balance(balance, delivered)
        _refuse_patches(stage, patch, batch_size, steps_per_epoch, foreground)
        self.cases, self.masks = cases, None if masks is None else _by_item(masks)
        self.opinions, self.ensembles, self.tta, self.n_classes = opinions, ensembles, tta, n_classes
        self.hears_views, self.heard = hears_views, heard
        self.patch, self.batch_size, self.steps_per_epoch = tuple(patch), batch_size, steps_per_epoch
        self.foreground, self.augmentation, self.seed = foreground, augmentation, seed
        self.num_workers, self.balance, self.delivered, self.dropout = num_workers, balance, delivered, dropout
        available = folds.without(held_out)
        self.test_cases = tuple(c for k in (held_out if test_folds is None else test_folds) for c in folds.cases(k))
        _refuse_nothing_left(available, self.test_cases, held_out)
        self.val_cases = validation_cases(available, cases, validation_fraction, seed, stage)
        self.train_cases = tuple(c for c in available if c not in self.val_cases)
        # the calibration must not know kinds that nothing was learned from either
        self.train_items = _learned(self._items(self.train_cases), train_kinds)
        self.val_items = _learned(self._items(self.val_cases), train_kinds)
        self._refuse_unlearned(train_kinds)
        self.test_items = _tested(self._items(self.test_cases), test_kinds)

    def _refuse_unlearned(self, train_kinds: Sequence[str] | None) -> None:
        """Whether there are masks of the kinds, of training cases and of those that the calibration holds back."""
        if self.masks is None:
            return
        refuse_unlearnable(dict.fromkeys(kind for _, kind in self.masks), train_kinds)
        parts = (("training", self.train_cases, self.train_items), ("held-back", self.val_cases, self.val_items))
        for which, cases, items in parts:
            if cases and not items:
                raise InputError(
                    f"errormap.train_kinds={None if train_kinds is None else list(train_kinds)}: none of the {which} "
                    f"cases ({', '.join(cases[:3])} ...) has such a mask; add some, or learn from further kinds"
                )

    @classmethod
    def of_cohort(
        cls,
        cohort: Cohort,
        cache_dir: str | Path,
        preprocess: Preprocess,
        fold: int,
        *,
        folds: int,
        seed: int = 0,
        jobs: int | None = 1,
        **options: Any,
    ) -> WholeHeartDataModule:
        """The data of one fold of a cohort: its labelled scans are prepared, where the cache lacks them, and dealt.

        Args:
            cohort: of `whqa.phantoms` or `whqa.read_cohort`.
            cache_dir: folder of prepared scans; may be shared.
            preprocess: grid and normalisation.
            fold: to leave out, from 0.
            folds: how many there are; equal cohorts, numbers and seeds are dealt alike, patient by patient.
            seed: of folds, validation split, order and every patch.
            jobs: processes that prepare scans; None takes all CPUs.
            options: `patch`, `batch_size`, `steps_per_epoch` and what else the class takes.

        Raises:
            InputError: a scan cannot be read, there are too few patients, or no such fold.
        """
        if not 0 <= fold < folds:
            raise InputError(f"fold={fold}: must be between 0 and {folds - 1}, as there are {folds} folds")
        dealt = make_folds(cohort.labelled, folds, seed)
        cases = prepare_cohort(cohort.labelled, Cache(Path(cache_dir), preprocess), jobs=jobs)
        return cls(cases, dealt, [fold], seed=seed, **options)

    @property
    def choice_items(self) -> list[Item]:
        """Of validation cases, what settings are chosen by: their delivered masks, whichever the training takes."""
        return [item for item in self._items(self.val_cases) if self.masks is None or is_delivered(item[1])]

    def setup(self, stage: str) -> None:
        """Lightning's hook before each stage."""
        if stage == "fit" and not self.val_items and self.trainer is not None:
            # Lightning warns of an empty validation as of a mistake; here it is a choice.
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of patches.

        {image (B, 1, D, H, W) float32, label (B, D, H, W) int64, index (B,) int64} and with masks what `PatchDataset`
        adds.
        """
        items: list[str | MaskItem] = [c if self.masks is None else self.masks[c, k] for c, k in self.train_items]
        data = PatchDataset(
            self.cases,
            items,
            self.patch,
            self.foreground,
            self.augmentation,
            self.seed,
            self.tta if self.hears_views else self.opinions,
            self.n_classes,
            self.dropout,
            "tta" if self.hears_views else "log_p",
        )
        sampler = PatchSampler(data, self.batch_size, self.steps_per_epoch, self._bins(), self.seed)
        # Lightning sets the epoch only after it has made the first iterator, too late for a resumed training.
        sampler.set_epoch(_epochs_done(self.trainer))
        workers = _workers_for(self.trainer) if self.num_workers is None else self.num_workers
        return DataLoader(
            data,
            batch_size=self.batch_size // sampler.num_replicas,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[DataLoader[dict[str, Any]]]:
        """Whole volumes of `val_items` as in `test_dataloader`; an empty list where there are none."""
        return self._volumes(self.val_items) if self.val_items else []

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Whole volumes, one a batch.

        {image (1, 1, D, H, W) float32, label (1, D, H, W) int64, spacing (1, 3) float64 in mm,
        index (1,) int64 into `test_items`, case [str], kind [str]}; with masks {mask (1, D, H, W) int64, plain like
        image, brightness (1, C + 1, 2) float32} and, where the mask has one, {entropy (1, D, H, W) float32}; with
        opinions {log_p (1, C + 1, D, H, W) float32}, with several {ensemble as log_p, pairwise_dice (1,) float64} and
        with those by test-time augmentation {tta as log_p}; where a network hears the mean of several {heard as log_p}
        """
        return self._volumes(self.test_items)

    def volumes(self, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
        """These (case, kind) pairs as in `test_dataloader`, without the axis of the batch."""
        dataset = self._dataset(items)
        return (dataset[i] for i in range(len(dataset)))

    def judged(self, items: Iterable[Item], extras: Collection[str] = EXTRAS) -> Iterator[JudgedCase]:
        """The masks of these (case, kind) pairs with image and reference, one at a time.

        Args:
            items: the pairs.
            extras: what is read of `EXTRAS`; what nobody asks for takes longer to read than the mask.

        Raises:
            InputError: the data module has no masks, or not this one.
        """
        latest = LatestCase(
            self.cases,
            self.opinions if "log_p" in extras else None,
            self.ensembles if "ensemble" in extras else None,
            self.tta if "tta" in extras else None,
        )
        for name, kind in items:
            if self.masks is None or (name, kind) not in self.masks:
                raise InputError(f"case {name}: no mask of kind {kind!r} is under judgement")
            spacing, of, item = self.cases[name].spacing, latest.of(name), self.masks[name, kind]
            mask, entropy = item.load() if "entropy" in extras else (item.mask(), None)
            doubt = None if entropy is None else torch.from_numpy(entropy)
            masked = torch.from_numpy(mask)
            yield JudgedCase(name, kind, of.image, masked, of.label, doubt, spacing, **of.said)

    def extras(self, item: Item) -> frozenset[str]:
        """What of `EXTRAS` the mask of a (case, kind) pair comes with; see `JudgedCase`."""
        there = {
            "entropy": self.masks is not None and self.masks[item].has_entropy,
            "log_p": self.opinions is not None,
            "ensemble": self.ensembles is not None,
            "tta": self.tta is not None,
        }
        return frozenset(name for name, is_there in there.items() if is_there)

    def _volumes(self, items: Sequence[Item]) -> DataLoader[dict[str, Any]]:
        # Whole volumes are read in the main process: they take milliseconds, and copies between processes take memory.
        return DataLoader(self._dataset(items), batch_size=1, collate_fn=batch_of_one)

    def _dataset(self, items: Sequence[Item]) -> VolumeDataset:
        latest = LatestCase(self.cases, self.opinions, self.ensembles, self.tta, self.heard)
        return VolumeDataset(self.cases, items, self.masks, latest, self.n_classes)

    def _items(self, cases: Sequence[str]) -> list[Item]:
        if self.masks is None:
            return [(case, "") for case in cases]
        kinds: dict[str, list[str]] = {case: [] for case in cases}
        for case, kind in self.masks:
            if case in kinds:
                kinds[case].append(kind)
        bare = [case for case, found in kinds.items() if not found]
        if bare:
            raise InputError(
                f"no masks under judgement of case(s) {', '.join(bare[:5])}; `whqa cv ...` makes them first"
            )
        return [(case, kind) for case in cases for kind in kinds[case]]

    def _bins(self) -> list[list[int]] | None:
        if self.masks is None or self.balance == "none":
            return None
        bins = quality_bins([self.masks[item].error_rate for item in self.train_items])
        delivered = [i for i, (_, kind) in enumerate(self.train_items) if is_as_delivered(kind)]
        if self.balance != "final" or not delivered:
            return bins
        share = Fraction(self.delivered).limit_denominator(100)
        return bins * (share.denominator - share.numerator) + [delivered] * (share.numerator * len(bins))


def _learned(items: Sequence[Item], kinds: Sequence[str] | None) -> list[Item]:
    """The items whose masks may be learned from, of these kinds; None is all of them."""
    allowed = [item for item in items if is_trained_on(item[1])]
    return allowed if kinds is None else [item for item in allowed if is_named(item[1], kinds)]


def _tested(items: Sequence[Item], kinds: Sequence[str] | None) -> list[Item]:
    """The items whose masks are judged: of these kinds, None is all of them, and of all programs."""
    if kinds is None:
        return list(items)
    chosen = [item for item in items if item[1] not in MASK_KINDS or is_named(item[1], kinds)]
    # a kind that a network has no masks of (side outputs) may be named beside others
    refuse_untestable(MASK_KINDS if chosen or not items else [kind for _, kind in items], kinds)
    return chosen


def _refuse_nothing_left(to_train: Sequence[str], to_test: Sequence[str], held_out: Sequence[int]) -> None:
    if not to_train or not to_test:
        raise InputError(f"fold {list(held_out)}: no case is left to train or test on; use fewer folds or more cases")


def _refuse_patches(stage: str, patch: Sequence[int], batch_size: int, steps_per_epoch: int, foreground: float) -> None:
    if len(patch) != 3 or min(*patch, batch_size, steps_per_epoch) < 1 or not 0 <= foreground <= 1:
        raise InputError(
            f"{stage}.patch={list(patch)}, {stage}.batch_size={batch_size}, "
            f"{stage}.steps_per_epoch={steps_per_epoch}, {stage}.foreground={foreground}: a patch has three edges, "
            "all are at least 1 and the last is in 0..1"
        )


def _refuse_balance(balance: str, delivered: float) -> None:
    if balance not in get_args(Balance):
        raise InputError(f"errormap.balance={balance}: must be one of {', '.join(get_args(Balance))}")
    if not 0 <= delivered <= 1:
        raise InputError(f"errormap.delivered={delivered}: must be in 0..1")


def _epochs_done(trainer: pl.Trainer | None) -> int:
    return 0 if trainer is None else cast(int, trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def _workers_for(trainer: pl.Trainer | None) -> int:
    if trainer is None or trainer.strategy.root_device.type == "cpu":
        return 0
    # one CPU stays with each training process
    return min(_WORKERS_A_GPU, max(0, cpus() // trainer.num_devices - 1))


def _by_item(masks: Sequence[MaskItem]) -> dict[Item, MaskItem]:
    found = {(m.case, m.kind): m for m in masks}
    if len(found) != len(masks):
        raise InputError(
            "masks under judgement: a kind occurs twice for one case; remove the masks of other segmenters"
        )
    return found

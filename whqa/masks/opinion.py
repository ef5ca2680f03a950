"""A second opinion: the softmax p_S of a segmenter that has not seen the case, kept beside its masks.

In an experiment without segmenters another program's may stand for it, see `whqa.masks.external_opinion`.

    runs/<experiment>/segmenter/<name>/masks/<case>/opinion.npz
        log_p              uint8 (C + 1, D, H, W)   round(-log p_S * 25.5): steps of 0.039, so p_S is known to 2 %;
                                                    what is below e^-10 = 0.00005 counts as that
        segmenter, unseen  who holds it; whether the case was outside the segmenter's training folds
    runs/<experiment>/segmenter/<name>/masks/<case>/views.npz
        the same of the mean of p_S over the image and shifted views of it (test-time augmentation)

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import sha256, write_arrays
from whqa.masks.plan import MaskPlan
from whqa.masks.run_state import made_again
from whqa.masks.store import mask_digests, mask_path, read_arrays, read_index, unseen_by_maker, whole_rows
from whqa.metrics.segmentation import pairwise_dice

OPINION, VIEWS = "opinion", "views"
MADE_INDEX = "made.csv"
"""Of masks made of another program's, see `whqa.masks.external_made`."""
LOWEST_LOG_P = -10.0
CODES = 255


def encode(log_p_CDHW: Tensor) -> npt.NDArray[np.uint8]:
    """Log-probabilities as they are stored."""
    codes = (log_p_CDHW.float() * (CODES / LOWEST_LOG_P)).clamp(0, CODES).round()
    return codes.to(torch.uint8).cpu().numpy()


def decode(codes: Tensor) -> Tensor:
    """Stored codes, any shape -> log p_S, float32; sums of p over the labels are 1 to within 2 %."""
    return codes.float() * (LOWEST_LOG_P / CODES)


@dataclass(frozen=True)
class Opinion:
    """Where the opinion on one case lies."""

    case: str
    path: Path
    segmenter: str

    def codes(self) -> npt.NDArray[np.uint8]:
        """uint8 (C + 1, D, H, W), see `decode`."""
        return read_arrays(self.path, "log_p")[0]

    def log_p(self) -> Tensor:
        """float32 (C + 1, D, H, W)."""
        return decode(torch.from_numpy(self.codes()))

    def mask(self) -> npt.NDArray[np.uint8]:
        """The final mask of a segmenter's opinion, uint8 (D, H, W)."""
        return read_arrays(mask_path(self.path.parents[2], self.case, "final"), "mask")[0]


def write_opinion(segmenter_dir: Path, case: str, log_p_CDHW: Tensor, unseen: bool, name: str = OPINION) -> None:
    """Keep a segmenter's opinion on a case, whole or not at all; `name` is `OPINION` or `VIEWS`."""
    path = mask_path(segmenter_dir, case, name)
    write_arrays(path, log_p=encode(log_p_CDHW), segmenter=segmenter_dir.name, unseen=unseen)


def collect_opinions(
    experiment_dir: Path, plan: MaskPlan, folds: Folds, test_fold: int, name: str = OPINION
) -> dict[str, Opinion]:
    """The opinion on every case that serves the error-map network of `test_fold`: of the segmenter of its masks.

    Args:
        experiment_dir: runs/<experiment>.
        name: `OPINION` or `VIEWS`.

    Raises:
        InputError: an opinion is missing, is not what the segmenter wrote, or its case had been seen in training
            although the plan forbids it.
    """
    found = {}
    for case_fold in range(folds.n):
        directory = experiment_dir / "segmenter" / plan.segmenter_of(test_fold, case_fold)
        digests = mask_digests(directory) or {}
        for case in folds.cases(case_fold):
            must_be_unseen = plan.asserts_unseen or case_fold == test_fold
            found[case] = _opinion(directory, case, must_be_unseen, digests, name)
    return found


def collect_tta(experiment_dir: Path, plan: MaskPlan, folds: Folds, test_fold: int) -> dict[str, Opinion] | None:
    """As `collect_opinions`, those of test-time augmentation; None where an older version's segmenters kept none.

    Raises:
        InputError: see `collect_opinions`; also where some segmenters kept theirs and others did not.
    """
    kept = [mask_digests(experiment_dir / "segmenter" / name) or {} for name in plan.needed_by(test_fold)]
    if not any(file.endswith(f"/{VIEWS}") for files in kept for file in files):
        return None
    return collect_opinions(experiment_dir, plan, folds, test_fold, VIEWS)


def collect_ensembles(
    experiment_dir: Path, plan: MaskPlan, folds: Folds, test_fold: int, name: str = OPINION
) -> dict[str, tuple[Opinion, ...]] | None:
    """The opinions of all segmenters that have seen neither the case nor the test fold; None where all are single ones.

    A case of the test fold has one of each segmenter trained without this fold, a training case that of its masks.

    Args:
        experiment_dir, name: see `collect_opinions`.

    Raises:
        InputError: see `collect_opinions`.
    """
    unseen = [job for job in plan.segmenters if test_fold in job.held_out and test_fold in job.masks_of]
    if len(unseen) < 2:
        return None
    single = collect_opinions(experiment_dir, plan, folds, test_fold, name)
    found: dict[str, tuple[Opinion, ...]] = {case: (opinion,) for case, opinion in single.items()}
    for case in folds.cases(test_fold):
        places = [experiment_dir / "segmenter" / job.name for job in unseen]
        found[case] = tuple(_opinion(place, case, True, mask_digests(place) or {}, name) for place in places)
    return found


def index_digests(directory: Path) -> dict[str, str]:
    """Digests of another program's masks, those made of them and its opinions: "<case>/<kind or opinion>" -> SHA-256.

    Raises:
        InputError: as `read_index`.
    """
    rows = read_index(directory)
    found = {f"{row['case']}/{directory.name}": row["mask_sha256"] for row in rows if "mask_sha256" in row}
    found |= {f"{row['case']}/{row['mask_kind']}": row["mask_sha256"] for row in whole_rows(directory, MADE_INDEX)}
    return found | {f"{row['case']}/{OPINION}": row["opinion_sha256"] for row in rows if row.get("opinion_sha256")}


def mean_opinion(opinions: Sequence[Opinion]) -> tuple[Tensor, float]:
    """Several opinions on one case: log of the mean of p_S, float32 (C + 1, D, H, W), and their pairwise Dice.

    This is between the segmenters' final masks, as the stored steps of p_S leave ties; nan for a single opinion.
    """
    mean = mean_log_p([opinion.log_p() for opinion in opinions])
    masks = [torch.from_numpy(opinion.mask()) for opinion in opinions] if len(opinions) > 1 else []
    return mean, pairwise_dice(masks, len(mean))


def mean_log_p(each: Sequence[Tensor]) -> Tensor:
    """log of the mean of p_S over several log p_S of one shape."""
    return torch.stack([log_p.exp() for log_p in each]).mean(dim=0).log_()


def _opinion(
    segmenter_dir: Path, case: str, must_be_unseen: bool, digests: Mapping[str, str], name: str = OPINION
) -> Opinion:
    path = mask_path(segmenter_dir, case, name)
    unseen_by_maker(path, case, must_be_unseen)
    if sha256(path) != digests.get(f"{case}/{name}"):
        raise InputError(f"{path}: not what the segmenter wrote here; {made_again(segmenter_dir)}")
    return Opinion(case, path, segmenter_dir.name)

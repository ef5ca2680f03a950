"""A segmenter's opinion on disk: as exact as is said, and none that is seen, foreign, replaced or missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from omegaconf import OmegaConf
from scipy.special import log_softmax, logsumexp

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import sha256, write_json
from whqa.masks.opinion import (
    LOWEST_LOG_P,
    OPINION,
    VIEWS,
    Opinion,
    collect_ensembles,
    collect_opinions,
    collect_tta,
    decode,
    encode,
    mean_opinion,
    write_opinion,
)
from whqa.masks.plan import MaskPlan
from whqa.masks.store import MASKS_RECORD, mask_path, write_mask
from whqa.stages.heard_opinions import heard_together

FOLDS = Folds((("a", "b"), ("c",), ("d", "e")), seed=0)
SHAPE = (3, 4, 5)
STEP = -LOWEST_LOG_P / 255


def _log_p(seed: int, n_classes: int = 4) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(0, 3, (n_classes, *SHAPE)), axis=0)


def _seed(segmenter: str, case: str) -> int:
    return sum(map(ord, segmenter + case))


def _write_segmenters(root: Path, plan: MaskPlan, names: tuple[str, ...] = (OPINION,)) -> None:
    """The opinions of a finished stage one, with the record of their digests."""
    for job in plan.segmenters:
        directory, seen = root / "segmenter" / job.name, set(FOLDS.without(job.held_out))
        cases = [case for fold in job.masks_of for case in FOLDS.cases(fold)]
        for case in cases:
            for name in names:
                write_opinion(
                    directory, case, torch.from_numpy(_log_p(_seed(job.name, case + name))), case not in seen, name
                )
        _record(directory)


def _record(directory: Path) -> None:
    files = directory.rglob("*.npz")
    write_json(directory / MASKS_RECORD, {f"{file.parent.name}/{file.stem}": sha256(file) for file in files})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    _write_segmenters(tmp_path, MaskPlan("out_of_fold", 3))
    return tmp_path


def _collect(root: Path, name: str = "out_of_fold", test_fold: int = 0) -> dict[str, Opinion]:
    return collect_opinions(root, MaskPlan(name, 3), FOLDS, test_fold)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_come_back_to_two_percent(seed: int) -> None:
    log_p = _log_p(seed, 8)
    codes = encode(torch.from_numpy(log_p))
    assert codes.dtype == np.uint8
    p, found = np.exp(log_p), np.exp(decode(torch.from_numpy(codes)).numpy())
    known = log_p > LOWEST_LOG_P
    assert known.any()
    assert not known.all()
    np.testing.assert_allclose(found[known], p[known], rtol=0.02)
    # what is too small to be kept counts as the smallest that is
    np.testing.assert_allclose(found[~known], np.exp(LOWEST_LOG_P), rtol=1e-5)
    assert found[~known].max() < 5e-5
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=0.021)


def test_certainty_and_impossibility_are_kept() -> None:
    codes = encode(torch.tensor([0.0, -1e-9, LOWEST_LOG_P, -50.0, float("-inf")]))
    assert codes.tolist() == [0, 0, 255, 255, 255]
    torch.testing.assert_close(decode(torch.tensor([0, 1, 255])), torch.tensor([0.0, -STEP, LOWEST_LOG_P]))


def test_bfloat16_is_encoded_as_what_it_says() -> None:
    log_p = torch.from_numpy(_log_p(0)).bfloat16()
    np.testing.assert_array_equal(encode(log_p), encode(log_p.float()))


def test_an_opinion_returns_as_it_was_written(tmp_path: Path) -> None:
    directory = tmp_path / "segmenter" / "0-1"
    write_opinion(directory, "a", torch.from_numpy(_log_p(1)), unseen=True)
    path = directory / "masks" / "a" / "opinion.npz"
    codes = Opinion("a", path, "0-1").codes()
    assert codes.shape == (4, *SHAPE)
    np.testing.assert_allclose(
        decode(torch.from_numpy(codes)), np.maximum(_log_p(1), LOWEST_LOG_P), atol=STEP / 2 + 1e-6
    )
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out_of_fold", "nested", "in_sample"])
@pytest.mark.parametrize("test_fold", range(3))
def test_every_case_has_the_opinion_of_the_segmenter_of_its_masks(tmp_path: Path, name: str, test_fold: int) -> None:
    plan = MaskPlan(name, 3)
    _write_segmenters(tmp_path, plan)
    found = _collect(tmp_path, name, test_fold)
    assert sorted(found) == list("abcde")
    fold_of = {case: fold for fold in range(3) for case in FOLDS.cases(fold)}
    for case, opinion in found.items():
        assert opinion.case == case
        assert opinion.segmenter == plan.segmenter_of(test_fold, fold_of[case])
        np.testing.assert_array_equal(
            opinion.codes(), encode(torch.from_numpy(_log_p(_seed(opinion.segmenter, case + OPINION))))
        )


def _replace(directory: Path, path: Path) -> None:
    write_opinion(directory, "c", torch.from_numpy(_log_p(99)), unseen=True)


def _from_another(directory: Path, path: Path) -> None:
    write_opinion(directory.with_name("2"), "c", torch.from_numpy(_log_p(0)), unseen=True)
    path.write_bytes(mask_path(directory.with_name("2"), "c", OPINION).read_bytes())
    _record(directory)


def _seen(directory: Path, path: Path) -> None:
    write_opinion(directory, "c", torch.from_numpy(_log_p(0)), unseen=False)
    _record(directory)


def _missing(directory: Path, path: Path) -> None:
    path.unlink()


def _damaged(directory: Path, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _older(directory: Path, path: Path) -> None:
    (directory / MASKS_RECORD).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_replace, "not what the segmenter wrote here; make it again: rm "),
        (_from_another, "made by segmenter '2', expected '1'; make it again: rm "),
        (_seen, "segmenter '1' was trained on case c; its masks and opinions must not be used here"),
        (_missing, "no such file; make it again: rm "),
        (_damaged, "not readable as a mask"),
        (_older, "not what the segmenter wrote here; make it again: rm "),
    ],
)
def test_an_opinion_that_must_not_be_used_is_refused_in_one_line(
    study: Path, spoil: Callable[[Path, Path], None], message: str
) -> None:
    directory = study / "segmenter" / "1"
    path = mask_path(directory, "c", OPINION)
    spoil(directory, path)
    with pytest.raises(InputError) as caught:
        _collect(study)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_the_plan_in_sample_allows_seen_training_cases_but_no_seen_test_case(tmp_path: Path) -> None:
    plan = MaskPlan("in_sample", 3)
    _write_segmenters(tmp_path, plan)
    assert len(_collect(tmp_path, "in_sample", 0)) == 5
    directory = tmp_path / "segmenter" / "0"
    write_opinion(directory, "a", torch.from_numpy(_log_p(0)), unseen=False)
    _record(directory)
    with pytest.raises(InputError, match="trained on case a; its masks and opinions must not be used"):
        _collect(tmp_path, "in_sample", 0)


# -- test-time augmentation


@pytest.mark.parametrize("name", ["out_of_fold", "nested"])
def test_the_opinion_by_augmentation_is_that_of_the_segmenter_of_the_masks(tmp_path: Path, name: str) -> None:
    plan = MaskPlan(name, 3)
    _write_segmenters(tmp_path, plan, (OPINION, VIEWS))
    found, single = collect_tta(tmp_path, plan, FOLDS, 1), _collect(tmp_path, name, 1)
    assert found is not None
    assert sorted(found) == list("abcde")
    for case, opinion in found.items():
        assert opinion.segmenter == single[case].segmenter
        expected = encode(torch.from_numpy(_log_p(_seed(opinion.segmenter, case + VIEWS))))
        np.testing.assert_array_equal(opinion.codes(), expected)


def test_segmenters_of_an_older_version_have_none(study: Path) -> None:
    assert collect_tta(study, MaskPlan("out_of_fold", 3), FOLDS, 0) is None


def test_where_some_segmenters_have_none_these_must_write_it(study: Path) -> None:
    directory = study / "segmenter" / "0"
    for case in FOLDS.cases(0):
        write_opinion(directory, case, torch.from_numpy(_log_p(0)), unseen=True, name=VIEWS)
    _record(directory)
    with pytest.raises(InputError, match=r"segmenter/1/masks/c/views\.npz: no such file; make it again: rm ") as caught:
        collect_tta(study, MaskPlan("out_of_fold", 3), FOLDS, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unseen", "recorded", "message"),
    [
        (True, False, "not what the segmenter wrote here"),
        (False, True, "was trained on case c; its masks and"),
    ],
)
def test_a_replaced_or_seen_opinion_by_augmentation_is_refused(
    tmp_path: Path, unseen: bool, recorded: bool, message: str
) -> None:
    plan = MaskPlan("out_of_fold", 3)
    _write_segmenters(tmp_path, plan, (OPINION, VIEWS))
    write_opinion(tmp_path / "segmenter" / "1", "c", torch.from_numpy(_log_p(99)), unseen, VIEWS)
    if recorded:
        _record(tmp_path / "segmenter" / "1")
    with pytest.raises(InputError, match=message):
        collect_tta(tmp_path, plan, FOLDS, 0)


# -- several segmenters


@pytest.mark.parametrize("name", [OPINION, VIEWS])
@pytest.mark.parametrize("test_fold", range(3))
def test_an_ensemble_is_of_all_segmenters_that_never_saw_the_test_fold(
    tmp_path: Path, test_fold: int, name: str
) -> None:
    plan = MaskPlan("nested", 3)
    _write_segmenters(tmp_path, plan, (OPINION, VIEWS))
    found = collect_ensembles(tmp_path, plan, FOLDS, test_fold, name)
    assert found is not None
    assert sorted(found) == list("abcde")
    single = collect_opinions(tmp_path, plan, FOLDS, test_fold, name)
    held_out = {job.name: job.held_out for job in plan.segmenters}
    for case, opinions in found.items():
        names = {opinion.segmenter for opinion in opinions}
        assert len(names) == len(opinions)
        assert all(test_fold in held_out[name] for name in names)
        if case in FOLDS.cases(test_fold):
            assert names == {name for name, folds in held_out.items() if test_fold in folds}
        else:
            assert opinions == (single[case],)


@pytest.mark.parametrize("name", ["out_of_fold", "in_sample"])
def test_one_segmenter_a_fold_is_no_ensemble(tmp_path: Path, name: str) -> None:
    plan = MaskPlan(name, 3)
    _write_segmenters(tmp_path, plan)
    assert collect_ensembles(tmp_path, plan, FOLDS, 0) is None


def test_the_mean_opinion_is_the_mean_of_probabilities(tmp_path: Path) -> None:
    opinions, masks = [], []
    for number in range(3):
        write_opinion(tmp_path / str(number), "a", torch.from_numpy(_log_p(number)), unseen=True)
        opinions.append(Opinion("a", mask_path(tmp_path / str(number), "a", OPINION), str(number)))
        # of the exact softmax, which the stored steps may not tell
        masks.append(np.random.default_rng(number).integers(0, 4, SHAPE))
        write_mask(mask_path(tmp_path / str(number), "a", "final"), masks[-1], None, str(number), True)
    kept = [decode(torch.from_numpy(opinion.codes())).double().numpy() for opinion in opinions]
    mean, alike = mean_opinion(opinions)
    np.testing.assert_allclose(mean, logsumexp(kept, axis=0) - np.log(3), atol=1e-5)
    n = len(kept[0])
    drawn = torch.from_numpy(np.stack(masks))
    hot = torch.nn.functional.one_hot(drawn, n).movedim(-1, 1)
    between = DiceMetric(include_background=False)(hot[[0, 0, 1]], hot[[1, 2, 2]])
    assert 0 < alike < 1
    assert alike == pytest.approx(float(between.nanmean(dim=1).mean()), rel=1e-5)
    assert np.isnan(mean_opinion(opinions[:1])[1])


# -- what a network hears of whole volumes


@pytest.mark.parametrize("views", [True, False])
def test_a_network_hears_all_of_a_test_case_and_one_of_a_training_case(tmp_path: Path, views: bool) -> None:
    plan, options = MaskPlan("nested", 3), OmegaConf.create({"inputs": None, "opinion_ensemble": True})
    _write_segmenters(tmp_path, plan, (OPINION, VIEWS))
    place = tmp_path, plan, FOLDS, 1
    found = heard_together(options, place, views)
    assert found is not None
    single = collect_opinions(*place, VIEWS if views else OPINION)
    for case, opinions in found.items():
        assert all(one.path.name == ("views.npz" if views else "opinion.npz") for one in opinions)
        assert (len(opinions) > 1) == (case in FOLDS.cases(1))
        assert single[case] in opinions


def test_who_hears_no_opinion_or_one_alone_hears_none_together(tmp_path: Path) -> None:
    for given in ({"inputs": ["image", "mask"], "opinion_ensemble": True}, {"inputs": None, "opinion_ensemble": False}):
        assert heard_together(OmegaConf.create(given), (tmp_path, MaskPlan("nested", 3), FOLDS, 1), views=True) is None

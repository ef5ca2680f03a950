import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

from whqa.errors import InputError
from whqa.judges import boundary
from whqa.judges.baseline import Baseline
from whqa.judges.boundary import Boundary, boundary_distance
from whqa.judges.constant import REGIONS, Constant
from whqa.judges.registry import BASELINES, make_baselines
from whqa.metrics.error_detection import error_dice
from whqa.metrics.verdict_row import judge
from whqa.quality import JudgedCase, QualityPrediction

SHAPE = (12, 10, 9)
BY_KIND = ("constant", "boundary", "entropy")
"""Baselines whose numbers are chosen for each kind of mask apart."""


def blobs(seed: int, n_classes: int = 4) -> torch.Tensor:
    """Smooth random labels in a margin of background."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, n_classes, 3, 3, 3)))
    labels = torch.nn.functional.interpolate(coarse, (8, 7, 6), mode="trilinear").argmax(1)[0]
    return torch.nn.functional.pad(labels, (2, 1, 1, 2, 3, 1))


def make_case(seed: int, kind: str = "final", spacing: tuple[float, float, float] = (1.0, 1.5, 2.0)) -> JudgedCase:
    rng = np.random.default_rng(seed)
    mask = blobs(seed)
    near = boundary_distance(mask, spacing).numpy() <= 2.0
    wrong = torch.from_numpy(near & (rng.random(SHAPE) < 0.5))
    entropy = torch.from_numpy(np.where(wrong, 0.6, 0.2) + 0.3 * rng.random(SHAPE) - 0.1).float()
    reference = torch.where(wrong, (mask + 1) % 4, mask)
    said = torch.from_numpy(log_softmax(rng.normal(0, 1, (4, *SHAPE)) + 3 * one_hot(reference), axis=0)).float()
    mask = mask.to(torch.uint8)
    image, opinions = torch.zeros(SHAPE), (said, said - 0.1, said - 0.2)
    return JudgedCase(f"c{seed}", kind, image, mask, reference, entropy, spacing, *opinions)


def one_hot(labels: torch.Tensor) -> np.ndarray:
    return np.arange(4)[:, None, None, None] == labels.numpy()


def source(*cases: JudgedCase) -> Callable[[], Iterator[JudgedCase]]:
    return lambda: iter(cases)


def fitted(name: str, *cases: JudgedCase) -> Baseline:
    baseline = BASELINES[name]()
    baseline.fit(source(*cases))
    return baseline


def brute_force_distance(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    places = np.argwhere(np.ones(labels.shape)) * spacing
    apart = labels.ravel()[:, None] != labels.ravel()[None, :]
    return np.where(apart, cdist(places, places), np.inf).min(axis=1).reshape(labels.shape)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.5, 4.0), (10.0, 1.6, 1.6)])
@pytest.mark.parametrize("limit", [3.0, 12.0])
@pytest.mark.parametrize("seed", range(3))
def test_boundary_distance_is_brute_force(seed: int, limit: float, spacing: tuple[float, float, float]) -> None:
    mask = blobs(seed)
    expected = brute_force_distance(mask.numpy(), spacing)
    expected[expected > limit] = np.inf
    np.testing.assert_allclose(boundary_distance(mask, spacing, limit).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.25, 1.25, 10.0), (1.5, 1.375, 0.75)])
def test_where_single_precision_is_exact_distances_are_those_of_double_precision(
    spacing: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = [blobs(seed) for seed in range(3)]
    assert boundary._is_exact(spacing, 12.0)
    found = [boundary_distance(mask, spacing) for mask in masks]
    monkeypatch.setattr(boundary, "_is_exact", lambda spacing, limit_mm: False)
    for mask, one in zip(masks, found, strict=True):
        assert torch.equal(one, boundary_distance(mask, spacing))


@pytest.mark.parametrize("spacing", [(0.7, 1.5, 4.0), (1.0, 1.0, 30.0), (0.01, 1.0, 1.0)])
def test_elsewhere_double_precision_is_taken(spacing: tuple[float, float, float]) -> None:
    assert not boundary._is_exact(spacing, 12.0)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_boundary_distance_of_noise(n_classes: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, n_classes, (6, 7, 5)).astype(np.uint8))
    expected = brute_force_distance(mask.numpy(), (1, 2, 3))
    np.testing.assert_allclose(boundary_distance(mask, (1, 2, 3)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("label", [0, 3])
def test_a_mask_of_one_label_has_no_boundary(label: int) -> None:
    mask = torch.full(SHAPE, label, dtype=torch.uint8)
    assert boundary_distance(mask, (1, 1, 1)).isinf().all()
    case = JudgedCase("c", "final", torch.zeros(SHAPE), mask, None, None, (1, 1, 1))
    verdict = Boundary().predict(case, 1)
    assert not verdict.error_map.any()
    assert (verdict.probability == 0).all()


def test_boundary_width_is_the_best_of_all() -> None:
    cases = [make_case(seed, spacing=spacing) for seed, spacing in enumerate([(1, 1.5, 2), (2, 2, 2), (3.3, 0.8, 0.8)])]
    baseline = fitted("boundary", *cases)

    def mean_dice(width: float) -> float:
        return float(np.mean([error_dice(boundary_distance(c.mask, c.spacing) <= width, c.error) for c in cases]))

    best = max(mean_dice(width) for width in np.arange(0.25, 12.01, 0.25))
    found = np.mean([error_dice(baseline.predict(c).error_map, c.error) for c in cases])
    assert found == pytest.approx(best, abs=1e-12)
    assert 0.25 <= baseline.parameters()["width_mm"] <= 12.0


def test_boundary_probability_falls_with_distance() -> None:
    case = make_case(0)
    baseline, distance = fitted("boundary", case), boundary_distance(case.mask, case.spacing)
    verdict, width = baseline.predict(case), baseline.parameters()["width_mm"]
    order = distance.flatten().argsort()
    assert (verdict.probability.flatten()[order].diff() <= 1e-6).all()
    assert torch.equal(verdict.error_map, distance <= width)
    assert torch.equal(verdict.error_map, verdict.probability >= 0.5)


def test_entropy_takes_the_threshold_that_separates() -> None:
    cases = [make_case(seed) for seed in range(3)]
    baseline = fitted("entropy", *cases)
    # wrong voxels have 0.5 .. 0.8, the others 0.1 .. 0.4
    assert 0.4 <= baseline.parameters()["threshold"] <= 0.5
    verdict = baseline.predict(cases[0])
    assert error_dice(verdict.error_map, cases[0].error) == 1.0
    assert torch.equal(verdict.probability, cases[0].entropy)


def test_entropy_says_what_it_lacks() -> None:
    case = make_case(0)
    bare = JudgedCase("c7", "early", case.image, case.mask, case.reference, None, case.spacing)
    with pytest.raises(InputError, match="case c7, mask early: no segmenter entropy"):
        fitted("entropy", case).predict(bare)
    with pytest.raises(InputError, match="no segmenter entropy"):
        fitted("entropy", bare)


def test_constant_is_the_training_mean() -> None:
    # thick slices, so that the heart's margin of 10 mm leaves a part of the volume out
    cases = [make_case(seed, kind, (6.0, 1.5, 2.0)) for seed, kind in enumerate(("final", "final", "side1"))]
    assert not any(case.heart.all() for case in cases)
    baseline = Constant()
    baseline.fit(source(*cases))
    rows = [judge(case, baseline.predict(case)) for case in cases]
    for region in ("volume", "heart"):
        acc = [row[f"acc_{region}"] for row in rows]
        assert baseline.parameters()[f"acc_{region}"] == pytest.approx(np.mean(acc))
        assert baseline.parameters()[f"acc_{region}/final"] == pytest.approx(np.mean(acc[:2]))
        assert baseline.accuracy(region, "side1") == pytest.approx(acc[2])
        assert baseline.accuracy(region, "never seen") == baseline.accuracy(region)
        quality = baseline.quality()
        assert quality[f"qi_{region}"] == quality[f"qi_soft_{region}"] == baseline.accuracy(region)
    assert set(baseline.parameters()) == {f"acc_{r}{k}" for r in ("volume", "heart") for k in ("", "/final", "/side1")}


def test_constant_finds_no_voxel_and_ranks_none() -> None:
    case = make_case(0)
    baseline = Constant()
    baseline.fit(source(make_case(1)))
    row = judge(case, baseline.predict(case))
    assert row["predicted_voxels"] == 0
    assert row["error_dice"] == 0
    assert row["error_auprc"] == pytest.approx(float(case.error.float().mean())), "AUPRC of chance"
    assert row["qi_soft_volume"] == pytest.approx(baseline.accuracy("volume"), abs=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_interface(name: str) -> None:
    case = make_case(3)
    baseline = BASELINES[name]()
    assert baseline.name == name
    with pytest.raises(RuntimeError, match="not fitted"):
        baseline.predict(case)
    baseline.fit(source(make_case(1), make_case(2, kind="early")))
    verdict = baseline.predict(case)
    if isinstance(verdict, QualityPrediction):
        assert verdict.quality.keys() == set(REGIONS)
        assert all(0 <= qi <= 1 for qi in (*verdict.quality.values(), *verdict.expected_dice.values()))
    else:
        assert verdict.probability.dtype == torch.float32
        assert 0 <= float(verdict.probability.min()) <= float(verdict.probability.max()) <= 1
    parameters = baseline.parameters()
    assert json.loads(json.dumps(parameters)).keys() == parameters.keys()
    if name in BY_KIND:
        assert {key.partition("/")[2] for key in parameters} == {"", "final", "early"}


@pytest.mark.parametrize("name", BASELINES)
def test_predictions_do_not_look_at_the_reference(name: str) -> None:
    case = make_case(3)
    blind = replace(case, reference=None)
    baseline = BASELINES[name]()
    baseline.fit(source(make_case(1)))
    seeing, found = baseline.predict(case), baseline.predict(blind)
    if isinstance(seeing, QualityPrediction):
        assert seeing == found
    else:
        assert torch.equal(seeing.error_map, found.error_map)


@pytest.mark.parametrize("name", BASELINES)
def test_bad_training(name: str) -> None:
    baseline = BASELINES[name]()
    with pytest.raises(ValueError, match="no case"):
        baseline.fit(source())
    case = make_case(0)
    with pytest.raises(ValueError, match="no reference"):
        baseline.fit(source(replace(case, reference=None)))


def test_a_run_has_the_constant_whatever_it_asks_for() -> None:
    assert list(BASELINES) == [
        "constant",
        "boundary",
        "entropy",
        "opinion",
        "tta",
        "ensemble",
        "ensemble_by_doubt",
        "dice_regressor",
        "reverse",
    ]
    asked = ["entropy", "boundary", "entropy"]
    assert [b.name for b in make_baselines(asked, {"entropy"})] == ["constant", "entropy", "boundary"]
    with pytest.raises(
        InputError,
        match=r"no baseline 'entropie'; there are boundary, constant, .*, ensemble_by_doubt, entr",
    ):
        make_baselines(["entropie"], {"entropy"})


def test_the_ensemble_is_told_error_rates_by_what_the_network_hears() -> None:
    for there, needs in (
        ({"log_p", "tta", "ensemble"}, {"tta", "ensemble"}),
        ({"log_p", "ensemble"}, {"log_p", "ensemble"}),
    ):
        (_, ensemble) = make_baselines(["ensemble"], there)
        assert ensemble.needs == needs


@pytest.mark.parametrize(
    ("there", "left_out"),
    [
        ({"entropy", "log_p", "tta", "ensemble"}, set()),
        ({"entropy", "log_p", "tta"}, {"ensemble", "ensemble_by_doubt"}),
        ({"entropy", "log_p", "ensemble"}, {"tta"}),
        ({"log_p"}, {"ensemble", "ensemble_by_doubt", "entropy", "tta"}),
        (set(), {"ensemble", "ensemble_by_doubt", "entropy", "opinion", "tta"}),
    ],
)
def test_a_baseline_is_left_out_where_no_mask_has_what_it_needs(there: set[str], left_out: set[str]) -> None:
    assert {b.name for b in make_baselines(list(BASELINES), there)} == set(BASELINES) - left_out


@pytest.mark.parametrize("name", BASELINES)
def test_two_of_a_kind_are_fitted_apart(name: str) -> None:
    first, second = fitted(name, make_case(1)), BASELINES[name]()
    with pytest.raises(RuntimeError, match="not fitted"):
        second.predict(make_case(1))
    before = first.parameters()
    second.fit(source(make_case(5, kind="early")))
    assert first.parameters() == before

"""Stage two's callbacks on hand-made logits, against scikit-learn, scipy and numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn
from scipy.stats import pearsonr
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from whqa.callbacks.calibrating import OPINION_SHARES, Calibrate
from whqa.callbacks.judging import JudgeMasks
from whqa.callbacks.monitoring import MonitorErrorMap
from whqa.judges.calibration import (
    Calibration,
    MaskLogits,
    fit_calibration,
    fit_stacked,
    read_calibration,
    stacked_logit,
)
from whqa.judges.correction import RULES, MaskGains, harmless_rule, other_probabilities, true_gains
from whqa.judges.registry import make_baselines
from whqa.judges.second_opinion import count_opinions, opinion_rate
from whqa.modules.errormap import RawVerdict
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction, JudgedCase, stratum
from whqa.results.held_back_gains import read_gains

SHAPE = (6, 7, 8)
ITEMS = [("a", "final"), ("a", "early"), ("b", "final"), ("b", "early")]


class _Module(SimpleNamespace):
    device = torch.device("cpu")
    is_joint = False

    def log_dict(self, values: dict[str, Tensor], **kwargs: Any) -> None:
        self.logged = {k: float(v) for k, v in values.items()}

    def log(self, name: str, value: float, **kwargs: Any) -> None:
        self.logged = {name: value}


def _batch(index: int) -> dict[str, Any]:
    rng = np.random.default_rng(index)
    label = rng.integers(0, 3, SHAPE)
    mask = np.where(rng.random(SHAPE) < 0.1 + 0.1 * index, 0, label)
    return {
        "image": torch.from_numpy(rng.standard_normal((1, 1, *SHAPE))).float(),
        "label": torch.from_numpy(label)[None],
        "mask": torch.from_numpy(mask)[None],
        "entropy": torch.from_numpy(rng.random((1, *SHAPE))).float(),
        "spacing": torch.tensor([[4.0, 4.0, 4.0]]),
        "index": torch.tensor([index]),
        "case": [ITEMS[index][0]],
        "kind": [ITEMS[index][1]],
    }


def _error(index: int) -> np.ndarray:
    batch = _batch(index)
    return (batch["mask"] != batch["label"])[0].numpy()


def _logit(index: int) -> Tensor:
    noise = np.random.default_rng(100 + index).normal(-1, 1.5, SHAPE)
    return torch.from_numpy(noise + 2.5 * _error(index)).float()


def _raw(index: int) -> RawVerdict:
    return RawVerdict(_logit(index), None)


def _trainer(fn: TrainerFn = TrainerFn.FITTING, zero: bool = True) -> Any:
    cases = {case: SimpleNamespace(patient=case) for case, _ in ITEMS}
    data = SimpleNamespace(test_items=ITEMS, val_items=ITEMS, cases=cases)
    return SimpleNamespace(datamodule=data, is_global_zero=zero, state=SimpleNamespace(fn=fn))


def _run(callback: Any, outputs: Callable[[int], Any], module: Any, trainer: Any, phase: str) -> None:
    """One epoch over all masks, the first twice as under a padding sampler."""
    for index in (0, 1, 2, 3, 0):
        if phase == "test":
            callback.on_test_batch_start(trainer, module)
        getattr(callback, f"on_{phase}_batch_end")(trainer, module, outputs(index), _batch(index), index)
    getattr(callback, f"on_{phase}_epoch_end")(trainer, module)


def test_validation_logs_the_numbers_of_sklearn_and_scipy() -> None:
    monitor, module = MonitorErrorMap(), _Module()
    for _ in range(2):
        monitor.on_validation_epoch_start(_trainer(), module)
        _run(monitor, _raw, module, _trainer(), "validation")
    error, logit = [_error(i) for i in range(4)], [_logit(i).numpy() for i in range(4)]
    dice = np.mean([f1_score(e.ravel(), x.ravel() > 0) for e, x in zip(error, logit, strict=True)])
    precision = np.mean([average_precision_score(e.ravel(), x.ravel()) for e, x in zip(error, logit, strict=True)])
    qi, acc = [1 - (x > 0).mean() for x in logit], [1 - e.mean() for e in error]
    assert module.logged["val/error_dice"] == pytest.approx(dice, rel=1e-5)
    assert module.logged["val/error_auprc"] == pytest.approx(precision, rel=1e-5)
    assert module.logged["val/qi_pcc"] == pytest.approx(pearsonr(qi, acc).statistic, rel=1e-4)
    assert module.logged["val/qi_mae"] == pytest.approx(np.abs(np.subtract(qi, acc)).mean(), rel=1e-4)


def test_calibration_waits_for_the_validation_after_the_training(tmp_path: Path) -> None:
    module = _Module(calibration=None)
    calibrate = Calibrate(tmp_path / "calibration.json", "dice", 10, 0, ("lv", "rv"))
    calibrate.on_validation_epoch_start(_trainer(), module)
    _run(calibrate, _raw, module, _trainer(), "validation")
    assert module.calibration is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rule", ["dice", "expected"])
def test_calibration_weighs_families_of_masks_alike(tmp_path: Path, rule: Any) -> None:
    calibrate, module, trainer = _calibrated(tmp_path, rule, _raw)
    masks = [MaskLogits.of(_logit(i), judged_case(_batch(i))) for i in range(4)]
    n = Counter(kind for _, kind in ITEMS)
    expected = fit_calibration(masks, [1 / n[kind] for _, kind in ITEMS], rule)
    assert expected.rate is not None
    assert module.calibration == read_calibration(tmp_path / "calibration.json", "") == expected
    # what a later test takes up
    module.calibration = None
    Calibrate(tmp_path / "calibration.json", rule, 10, 0, ("lv", "rv")).setup(trainer, module, "test")
    assert module.calibration == expected
    calibrate.path = tmp_path / "another.json"
    calibrate.setup(trainer, module, "test")
    assert module.calibration == expected


def test_held_back_cases_are_fitted_on_with_error_rates_that_have_not_seen_them(tmp_path: Path) -> None:
    def heard(item: tuple[str, str]) -> JudgedCase:
        index = ITEMS.index((item[0][-1], item[1]))
        said = 2.0 * torch.nn.functional.one_hot(_batch(index)["label"][0], 3).movedim(-1, 0).float()
        noise = torch.randn(said.shape, generator=torch.Generator().manual_seed(index + 10 * len(item[0])))
        return replace(judged_case(_batch(index)), log_p=(said + noise).log_softmax(dim=0), case=item[0])

    def raw(index: int) -> RawVerdict:
        label = _batch(index)["label"][0]
        return RawVerdict(_logit(index), 8.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float())

    asked: list[tuple[str, str]] = []

    def judged(items: Sequence[tuple[str, str]], extras: Collection[str]) -> Iterator[JudgedCase]:
        asked.extend(items)
        assert set(extras) == {"log_p"}
        return (replace(heard(item), log_p=None) for item in items)

    trainer, others = _trainer(TrainerFn.VALIDATING), [(f"other {case}", kind) for case, kind in ITEMS]
    trainer.datamodule.train_items, trainer.datamodule.judged = others, judged
    module = _Module(
        calibration=None,
        hears_opinion=True,
        opinion="log_p",
        judged=lambda batch: heard(ITEMS[int(batch["index"][0])]),
        heard=lambda case: heard((case.case, case.kind)),
    )
    patients = [case for case, _ in ITEMS]
    for at_most in (100, 5):
        asked.clear()
        calibrate = Calibrate(tmp_path / "calibration.json", "expected", at_most, 0, ("lv", "rv"))
        calibrate.on_validation_epoch_start(trainer, module)
        _run(calibrate, raw, module, trainer, "validation")
        assert len(asked) == min(at_most, 8)
        unseen = [item for item in asked if item in others]
        assert 0 < len(unseen) < len(asked)
        rate, held_back = (opinion_rate(count_opinions(map(heard, items))) for items in (asked, unseen))
        assert rate != held_back
        masks = {
            share: [MaskLogits.of(stacked_logit(_logit(i), heard(ITEMS[i]), share), heard(ITEMS[i])) for i in range(4)]
            for share in OPINION_SHARES
        }
        fitted = fit_stacked(masks, [0.5] * 4, patients, "expected", held_back)
        expected = replace(fitted, rate=rate, held_back=held_back)
        assert module.calibration == expected
        assert module.calibration.of_held_back == fitted
        calibrate.on_validation_epoch_start(trainer, module)
        _run(calibrate, raw, module, trainer, "validation")
        rule = harmless_rule(_gains_of(fitted, raw, heard), [0.5] * 4)
        assert module.calibration == replace(expected, correction=rule)
        assert read_calibration(tmp_path / "calibration.json", "") == module.calibration


def _gains_of(
    calibration: Calibration, raw: Callable[[int], Any], heard: Callable[[tuple[str, str]], JudgedCase]
) -> list[MaskGains]:
    masks = []
    for index, item in enumerate(ITEMS):
        case = heard(item)
        p = calibration.predict(_logit(index), case).probability
        q = other_probabilities(raw(index).label_logits, case.mask)
        gains = true_gains(p, q, case.mask, case.reference, RULES)
        masks.append(MaskGains(item[0], item[0], item[1], _stratum_of(case), gains))
    return masks


def _stratum_of(case: JudgedCase) -> Any:
    mask, reference = case.mask.numpy().ravel(), case.reference.numpy().ravel()
    dice = [f1_score(mask == c, reference == c) for c in (1, 2)]
    return stratum(float(np.mean(dice)), True)


def test_a_second_loop_chooses_the_correction_of_calibrated_probabilities(tmp_path: Path) -> None:
    def raw(index: int) -> RawVerdict:
        """The network is sure of the right label, where the mask is wrong."""
        label = _batch(index)["label"][0]
        return RawVerdict(_logit(index), 8.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float())

    calibrate, module, trainer = _calibrated(tmp_path, "expected", raw)
    first = module.calibration
    assert first.correction is None
    assert first.of_held_back == first
    calibrate.on_validation_epoch_start(trainer, module)
    _run(calibrate, raw, module, trainer, "validation")
    masks = _gains_of(first, raw, lambda item: judged_case(_batch(ITEMS.index(item))))
    rule = harmless_rule(masks, [0.5] * 4)
    assert rule is not None
    # what others may choose by
    kept = read_gains([tmp_path], ("lv", "rv"))
    assert [(m.case, m.patient, m.kind, m.stratum) for m in kept] == [
        (m.case, m.patient, m.kind, m.stratum) for m in masks
    ]
    np.testing.assert_allclose([m.gains for m in kept], [m.gains for m in masks], rtol=1e-8)
    assert module.calibration == replace(first, correction=rule)
    assert read_calibration(tmp_path / "calibration.json", "") == module.calibration


def test_other_processes_calibrate_but_write_nothing(tmp_path: Path) -> None:
    _, module, _ = _calibrated(tmp_path, "expected", _raw, zero=False)
    assert module.calibration.rate is not None
    assert not list(tmp_path.iterdir())


def _calibrated(root: Path, rule: Any, outputs: Callable[[int], Any], zero: bool = True) -> tuple[Calibrate, Any, Any]:
    module = _Module(calibration=None, judged=judged_case, hears_opinion=False)
    trainer, calibrate = (
        _trainer(TrainerFn.VALIDATING, zero),
        Calibrate(root / "calibration.json", rule, 10, 0, ("lv", "rv")),
    )
    calibrate.on_validation_epoch_start(trainer, module)
    _run(calibrate, outputs, module, trainer, "validation")
    return calibrate, module, trainer


def _judged(root: Path, trainer: Any) -> tuple[JudgeMasks, _Module]:
    cases = [judged_case(_batch(i)) for i in range(4)]
    baselines = make_baselines(["entropy"], {"entropy"})
    for baseline in baselines:
        baseline.fit(lambda: iter(cases))
    identity = {(c, k): {"fold": 1, "patient": f"p{c}", "modality": "mr", "segmenter": "0-1"} for c, k in ITEMS}
    judge, module = JudgeMasks(root, baselines, ("lv", "rv"), identity), _Module()
    judge.on_test_start(trainer, module)
    _run(judge, lambda i: Calibration().predict(_logit(i), cases[i]), module, trainer, "test")
    return judge, module


def test_every_method_gets_one_row_a_mask(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]) -> None:
    _, module = _judged(tmp_path, _trainer())
    rows = rows_of(tmp_path / "cases.csv")
    assert [(r["method"], r["case"], r["mask_kind"]) for r in rows] == [
        (m, c, k) for m in ("errormap", "constant", "entropy") for c, k in ITEMS
    ]
    dice = []
    for row in rows[:4]:
        index = ITEMS.index((row["case"], row["mask_kind"]))
        error, predicted = _error(index), _logit(index).numpy() >= 0
        dice.append(f1_score(error.ravel(), predicted.ravel()))
        assert float(row["error_dice"]) == pytest.approx(dice[-1], rel=1e-5)
        labels = [_batch(index)[name][0].numpy() for name in ("mask", "label")]
        for structure, key in ((1, "lv"), (2, "rv")):
            among = (labels[0] == structure) | (labels[1] == structure)
            found = float(row[f"error_dice_{key}"])
            assert found == pytest.approx(f1_score(error[among], predicted[among]), rel=1e-5)
        assert float(row["acc_volume"]) == pytest.approx(1 - error.mean(), rel=1e-6)
        assert float(row["qi_volume"]) == pytest.approx(1 - predicted.mean(), rel=1e-6)
        assert int(float(row["hit_voxels"])) == (error & predicted).sum()
        assert (row["fold"], row["patient"], row["modality"], row["segmenter"]) == ("1", f"p{row['case']}", "mr", "0-1")
        with np.load(tmp_path / "masks" / row["case"] / f"{row['mask_kind']}.npz") as arrays:
            np.testing.assert_array_equal(arrays["error_map"].astype(bool), predicted)
            probability = 1 / (1 + np.exp(-_logit(index).numpy()))
            np.testing.assert_allclose(arrays["error_probability"] / 255, probability, atol=0.5 / 255 + 1e-6)
    assert module.logged["test/error_dice"] == pytest.approx(np.mean(dice), rel=1e-5)
    accuracy = {kind: np.mean([1 - _error(i).mean() for i in range(4) if ITEMS[i][1] == kind]) for _, kind in ITEMS}
    for row in rows:
        assert float(row["constant_volume_kind"]) == pytest.approx(accuracy[row["mask_kind"]], rel=1e-6)
        assert float(row["constant_volume"]) == pytest.approx(np.mean(list(accuracy.values())), rel=1e-6)


def test_other_processes_store_their_maps_but_not_the_table(tmp_path: Path) -> None:
    _judged(tmp_path, _trainer(zero=False))
    assert not (tmp_path / "cases.csv").exists()
    assert len(list(tmp_path.rglob("*.npz"))) == 4


def test_a_mask_without_errors_leaves_its_auprc_empty(
    tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    (constant,), batch, trainer, module = make_baselines([], ()), _batch(0), _trainer(), _Module()
    constant.fit(lambda: iter([judged_case(batch)]))
    batch["mask"] = batch["label"]
    judge = JudgeMasks(tmp_path, [constant], ("lv", "rv"), {ITEMS[0]: {"fold": 0}})
    judge.on_test_start(trainer, module)
    judge.on_test_batch_start(trainer, module)
    nothing = ErrorPrediction(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))
    judge.on_test_batch_end(trainer, module, nothing, batch, 0)
    judge.on_test_epoch_end(trainer, module)
    row = rows_of(tmp_path / "cases.csv")[0]
    assert row["error_auprc"] == ""
    assert (float(row["error_dice"]), float(row["acc_volume"]), float(row["dice_lv"])) == (1.0, 1.0, 1.0)

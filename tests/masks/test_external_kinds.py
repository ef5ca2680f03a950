"""Another program's masks among the segmenters' own: drawn and weighed as delivered masks, judged without entropy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.trainer.states import TrainerFn

from whqa.callbacks import calibrating
from whqa.callbacks.calibrating import Calibrate
from whqa.callbacks.fitting import FitBaselines, fitting_items
from whqa.callbacks.judging import JudgeMasks
from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.judges.baseline import Baseline
from whqa.judges.calibration import Calibration
from whqa.judges.registry import BASELINES, make_baselines
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.loading.sampling import quality_bins
from whqa.masks.plan import (
    MASK_KINDS,
    ChosenKinds,
    choose_kinds,
    chosen_by,
    family,
    is_delivered,
    refuse_unlearnable,
    refuse_untestable,
)
from whqa.masks.store import MaskItem, write_mask
from whqa.modules.errormap import RawVerdict
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction, JudgedCase

FOLDS = Folds((("a", "b"), ("c", "d"), ("e",)), seed=0)
KINDS = ("final", "early", "nnunet")
SHAPE = (9, 8, 7)


class _Case(SimpleNamespace):
    """Stands for a prepared case."""

    def image(self) -> np.ndarray:
        return np.random.default_rng(ord(self.id)).standard_normal(SHAPE).astype(np.float16)

    def label(self) -> np.ndarray:
        return np.random.default_rng(1000 + ord(self.id)).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> list[MaskItem]:
    root, found = tmp_path_factory.mktemp("masks"), []
    for case in "abcde":
        for k, kind in enumerate(KINDS):
            rng = np.random.default_rng((ord(case), k))
            label = _Case(id=case).label()
            wrong = rng.random(SHAPE) < (0.05, 0.5, 0.2)[k]
            path = root / case / f"{kind}.npz"
            entropy = None if kind == "nnunet" else np.where(wrong, 0.8, 0.1)
            write_mask(path, np.where(wrong, (label + 1) % 3, label), entropy, kind, True)
            found.append(MaskItem(case, kind, path, kind, True, wrong.mean(), has_entropy=kind != "nnunet"))
    return found


def _data(masks: list[MaskItem], **options: Any) -> WholeHeartDataModule:
    cases = {c: _Case(id=c, patient=c, shape=SHAPE, spacing=(2.0, 2.0, 3.0)) for c in "abcde"}
    settings: dict[str, Any] = {"patch": (4, 4, 4), "batch_size": 2, "steps_per_epoch": 4, "validation_fraction": 0.25}
    settings["n_classes"] = 3
    return WholeHeartDataModule(cases, FOLDS, (0,), masks=masks, **settings | options)


def test_kinds_are_told_apart() -> None:
    assert choose_kinds(None, ["nnunet"]) == ChosenKinds(None, ("nnunet",))
    assert choose_kinds(["nnunet", "early", "final"], ["nnunet", "other"]) == ChosenKinds(
        ("final", "early"), ("nnunet",)
    )
    assert [k for k in KINDS if is_delivered(k)] == ["final", "nnunet"]


def test_programs_alone_get_masks_of_any_quality_and_need_no_segmenter() -> None:
    alone = choose_kinds(["nnunet"], ["nnunet", "other"])
    made = tuple(kind for kind in MASK_KINDS if family(kind) not in ("final", "augmented", "unfinished"))
    assert alone == ChosenKinds(made, ("nnunet",))
    assert {"reference", "corrupted1", "novel2", "mixed4"} < set(made)
    assert (alone.needs_segmenters, alone.made_of_external) == (False, made)
    some = choose_kinds(["nnunet", "novel", "corrupted2"], ["nnunet"])
    assert some == ChosenKinds(("corrupted2", "novel1", "novel2"), ("nnunet",))
    assert (some.needs_segmenters, some.made_of_external) == (False, some.own)


def test_of_programs_that_give_their_softmax_masks_are_drawn_too() -> None:
    alone = choose_kinds(["nnunet"], ["nnunet", "other"], ["nnunet"])
    assert alone.own == ("augmented1", "augmented2", *(choose_kinds(["nnunet"], ["nnunet"]).own or ()))
    assert (alone.needs_segmenters, alone.made_of_external, alone.speaking) == (False, alone.own, ("nnunet",))
    some = choose_kinds(["nnunet", "augmented"], ["nnunet"], ["nnunet"])
    assert (some.own, some.needs_segmenters) == (("augmented1", "augmented2"), False)
    # another program's softmax is not heard where its masks are not judged
    silent = choose_kinds(["other"], ["nnunet", "other"], ["nnunet"])
    assert silent == choose_kinds(["other"], ["nnunet", "other"])


@pytest.mark.parametrize("external", [{}, {"nnunet": {"root": "x"}}, {"nnunet": {"root": "x", "probabilities": "y"}}])
def test_a_configuration_tells_who_gives_a_softmax(external: dict[str, dict[str, str]]) -> None:
    kinds = ["nnunet", "augmented"] if external else ["augmented"]
    found = chosen_by(OmegaConf.create({"kinds": kinds, "external": external}))
    speaking = [name for name, program in external.items() if "probabilities" in program]
    assert found == chosen_by({"kinds": kinds, "external": external}) == choose_kinds(kinds, list(external), speaking)
    assert found.needs_segmenters == (not speaking)


@pytest.mark.parametrize(
    "kinds",
    [None, ["final"], ["nnunet", "early"], ["nnunet", "augmented"], ["corrupted"], ["reference"], ["unfinished"]],
)
def test_segmenters_are_needed_where_no_program_takes_their_place(kinds: list[str] | None) -> None:
    chosen = choose_kinds(kinds, ["nnunet"])
    assert (chosen.needs_segmenters, chosen.made_of_external) == (True, ())


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_share_of_the_training_goes_to_delivered_masks(masks: list[MaskItem], share: float) -> None:
    data = _data(masks, delivered=share)
    bins = data.train_dataloader().sampler.bins
    assert bins is not None
    by_quality = quality_bins([data.masks[i].error_rate for i in data.train_items])  # type: ignore[index]
    delivered = [i for i, (_, kind) in enumerate(data.train_items) if kind != "early"]
    n = round(share * len(bins))
    assert bins[-n:] == [delivered] * n
    assert sorted(bins[:-n]) == sorted(by_quality * ((len(bins) - n) // len(by_quality)))


def test_without_final_masks_the_other_programs_are_delivered(masks: list[MaskItem]) -> None:
    data = _data([m for m in masks if m.kind != "final"])
    bins = data.train_dataloader().sampler.bins
    assert bins is not None
    assert {data.train_items[i][1] for i in bins[-1]} == {"nnunet"}


def test_volumes_have_entropy_where_there_is_one(masks: list[MaskItem]) -> None:
    data = _data(masks)
    found = Counter()
    for batch in data.test_dataloader():
        assert ("entropy" in batch) == (batch["kind"][0] != "nnunet")
        found[batch["kind"][0]] += 1
    assert found == dict.fromkeys(KINDS, 2)
    for case in data.judged(data.test_items):
        assert (case.entropy is None) == (case.kind == "nnunet")
    assert [data.extras(("a", kind)) for kind in KINDS] == [{"entropy"}, {"entropy"}, set()]


def _fitted(names: list[str], masks: list[MaskItem], path: Path, at_most: int = 100) -> dict[str, Baseline]:
    """What a run would judge the test masks with."""
    data = _data(masks)
    baselines = make_baselines(names, set().union(*map(data.extras, fitting_items(data))))
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True)
    FitBaselines(path, baselines, at_most, seed=0).setup(trainer, SimpleNamespace(), "test")  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {b.name: b.parameters() for b in baselines}
    return {b.name: b for b in baselines}


def test_the_entropy_is_fitted_on_masks_that_have_it(tmp_path: Path, masks: list[MaskItem]) -> None:
    fitted = _fitted(["boundary", "entropy"], masks, tmp_path / "b.json")
    assert list(fitted) == ["constant", "boundary", "entropy"]
    alone = _fitted(["entropy"], [m for m in masks if m.has_entropy], tmp_path / "b.json")
    assert fitted["entropy"].parameters() == alone["entropy"].parameters()
    assert "width_mm/nnunet" in fitted["boundary"].parameters()
    few = _fitted(["entropy"], masks, tmp_path / "b.json", at_most=2)
    assert few["entropy"].parameters()["threshold"] > 0


def test_a_baseline_is_fitted_on_masks_that_come_with_what_it_needs_alone(masks: list[MaskItem]) -> None:
    data, seen = _data([m for m in masks if m.has_entropy]), list[JudgedCase]()
    for needs in (frozenset[str](), frozenset({"entropy"})):
        rival: Any = SimpleNamespace(
            name="rival", needs=needs, wants_all=True, fit=lambda cases: seen.extend(cases()), parameters=dict
        )
        trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=False)
        FitBaselines(Path(), [rival], 100, seed=0).setup(trainer, SimpleNamespace(), "test")  # type: ignore[arg-type]
        assert [(case.case, case.kind) for case in seen] == fitting_items(data)
        assert all((case.entropy is not None) == ("entropy" in needs) for case in seen)
        seen.clear()


def test_where_no_mask_has_entropy_its_baseline_is_left_out(tmp_path: Path, masks: list[MaskItem]) -> None:
    fitted = _fitted(list(BASELINES), [m for m in masks if m.kind == "nnunet"], tmp_path / "b.json")
    assert list(fitted) == ["constant", "boundary", "dice_regressor", "reverse"]


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_nothing_is_fitted_before_the_test(stage: str, tmp_path: Path, masks: list[MaskItem]) -> None:
    baselines = make_baselines(["boundary"], {"entropy"})
    trainer: Any = SimpleNamespace(datamodule=_data(masks), is_global_zero=True)
    FitBaselines(tmp_path / "b.json", baselines, 100, seed=0).setup(trainer, SimpleNamespace(), stage)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="not fitted"):
        baselines[1].predict(next(_data(masks).judged([("a", "final")])))


def test_another_programs_masks_weigh_as_much_as_any_other_family_in_the_calibration(
    tmp_path: Path, masks: list[MaskItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = _data(masks), {}
    monkeypatch.setattr(calibrating, "fit_stacked", lambda h, w, *_, **__: seen.update(weights=w) or Calibration())
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True, state=SimpleNamespace(fn=TrainerFn.VALIDATING))
    calibrate, module = (
        Calibrate(tmp_path / "calibration.json", "dice", 10, 0, ("lv", "rv")),
        SimpleNamespace(judged=judged_case, hears_opinion=False, is_joint=False),
    )
    calibrate.on_validation_epoch_start(trainer, module)  # type: ignore[arg-type]
    for index, batch in enumerate(data.val_dataloader()):
        outputs = RawVerdict(torch.zeros(SHAPE), None)
        calibrate.on_validation_batch_end(trainer, module, outputs, batch, index)  # type: ignore[arg-type]
    calibrate.on_validation_epoch_end(trainer, module)  # type: ignore[arg-type]
    kinds = [kind for _, kind in data.val_items]
    assert sorted(kinds) == sorted(KINDS)
    assert seen["weights"] == [1, 1, 1]
    assert json.loads((tmp_path / "calibration.json").read_text())


def test_a_baseline_that_needs_entropy_gets_no_row_without(tmp_path: Path, masks: list[MaskItem], rows_of: Any) -> None:
    data = _data(masks)
    judges = list(_fitted(["boundary", "entropy"], masks, tmp_path / "b.json").values())
    identity = {i: {"fold": 0, "patient": i[0], "modality": "ct", "segmenter": "0"} for i in data.test_items}
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True)
    module = SimpleNamespace(device=torch.device("cpu"), log=lambda *args, **kwargs: None, is_joint=False)
    callback: Any = JudgeMasks(tmp_path, judges, ("x", "y"), identity)
    callback.on_test_start(trainer, module)
    for index, batch in enumerate(data.test_dataloader()):
        callback.on_test_batch_start(trainer, module)
        verdict = ErrorPrediction(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))
        callback.on_test_batch_end(trainer, module, verdict, batch, index)
    callback.on_test_epoch_end(trainer, module)
    found = Counter((r["method"], r["mask_kind"]) for r in rows_of(tmp_path / "cases.csv"))
    methods = ("errormap", "constant", "boundary", "entropy")
    assert found == {(m, k): 2 for m in methods for k in KINDS if (m, k) != ("entropy", "nnunet")}


@pytest.mark.parametrize(
    ("there", "learned", "said"),
    [
        (["novel1", "novel2"], None, "masks.kinds: nothing is learned from novel1, novel2, which only test"),
        (["final"], ["finall"], r"errormap.train_kinds=\['finall'\]: must be some of final$"),
        (["final", "nnunet"], ["corrupted"], "must be some of final, nnunet$"),
        (["final", "novel1"], ["novel"], "must be some of final$"),
        (["final"], [], r"errormap.train_kinds=\[\]: must be some of final$"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(there: list[str], learned: list[str] | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        refuse_unlearnable(there, learned)
    refuse_unlearnable([*there, "corrupted3", "final"], ["corrupted", "final"])


def test_what_there_will_be_no_masks_of_is_not_tested() -> None:
    chosen = choose_kinds(["nnunet", "reference"], ["nnunet"])
    for kinds in (["augmented", "corrupted"], ["finall"], ["nnunet"], []):
        with pytest.raises(InputError, match=r"^errormap\.test_kinds=.*: must be some of reference that there are"):
            refuse_untestable(chosen.all, kinds)
    refuse_untestable(chosen.all, ["reference"])
    refuse_untestable(choose_kinds(None).all, ["side2", "novel"])

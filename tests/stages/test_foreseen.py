"""What cannot go well is refused before the first segmenter is trained."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from whqa.config.words import compose_config
from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.masks.importing import Imported
from whqa.masks.plan import MaskPlan
from whqa.masks.store import MaskItem
from whqa.stages.foreseen import refuse_bare_folds
from whqa.stages.from_config import refuse_unmakeable

PROGRAM = ["masks.kinds=[nnunet]", "+masks.external.nnunet.root=/x", "+masks.external.nnunet.unseen=true"]
SPEAKS = "+masks.external.nnunet.probabilities=/y"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["masks.kinds=[novel]"], r"^masks\.kinds: nothing is learned from novel1, novel2"),
        (["errormap.train_kinds=[finall]"], r"^errormap\.train_kinds=\['finall'\]: must be some of final"),
        (["masks.kinds=[final]", "errormap.train_kinds=[corrupted]"], "train_kinds=.* must be some of final$"),
        (["errormap.test_kinds=[finall]"], r"^errormap\.test_kinds=\['finall'\]: must be some of final"),
        (["errormap.inputs=[image,mask]", "errormap.opinion_dropout=0.5"], "no opinion is heard; set it to 0"),
        ([*PROGRAM, "errormap.opinion_dropout=0.5"], "no opinion is heard; set it to 0"),
        (["errormap.head=binary", "errormap.mask_dropout=0.2"], "wants a network that sees the mask and says which"),
        ([*PROGRAM, "errormap.train_kinds=[augmented]"], "must be some of nnunet|must be some of reference"),
    ],
)
def test_settings_that_do_not_go_together_cost_no_training(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        refuse_unmakeable(compose_config(["experiment=demo", *words]))


@pytest.mark.parametrize(
    "words",
    [
        ["masks.kinds=[final,novel]", "errormap.train_kinds=[final]", "errormap.test_kinds=[novel]"],
        [*PROGRAM, SPEAKS, "errormap.opinion_dropout=0.5", "errormap.train_kinds=[nnunet,augmented]"],
    ],
)
def test_those_that_do_are_not_refused(words: list[str]) -> None:
    refuse_unmakeable(compose_config(["experiment=demo", *words]))


def _study(*folds: tuple[str, ...]) -> Any:
    cases = {case: SimpleNamespace(patient=case[0]) for fold in folds for case in fold}
    return SimpleNamespace(folds=Folds(folds, seed=0), plan=MaskPlan("out_of_fold", len(folds)), cases=cases)


def _refuse(study: Any, *words: str, imported: Any = ()) -> None:
    refuse_bare_folds(compose_config(["experiment=demo", *words]), study, imported)


def test_a_fold_without_enough_patients_costs_no_training() -> None:
    study = _study(("a1", "b1"), ("c1", "d1"), ("e1", "f1"))
    _refuse(study, "errormap.shuffled=[mask]")
    for stage in ("segmenter", "errormap"):
        with pytest.raises(InputError, match=rf"^{stage}\.validation_fraction=0\.9 takes 4 of 4 training patients"):
            _refuse(study, f"{stage}.validation_fraction=0.9")
    one = _study(("a1", "b1"), ("c1", "c2"), ("e1", "f1"))
    _refuse(one)
    with pytest.raises(InputError, match=r"^errormap\.shuffled: fold 1 has one patient"):
        _refuse(one, "errormap.shuffled=[image]")


def test_a_case_without_a_mask_or_an_opinion_costs_no_training(tmp_path: Any) -> None:
    study = _study(("a1", "b1"), ("c1", "d1"))

    def brought(items: str, opinions: str) -> list[Imported]:
        found = [MaskItem(f"{c}1", "nnunet", tmp_path, "nnunet", True, 0.1, has_entropy=False) for c in items]
        told: dict[str, Any] = {f"{c}1": None for c in opinions}
        return [Imported("nnunet", tuple(found), {}, told)]

    _refuse(study, *PROGRAM, SPEAKS, imported=brought("abcd", "abcd"))
    with pytest.raises(InputError, match="case d1: no mask under judgement"):
        _refuse(study, *PROGRAM, SPEAKS, imported=brought("abc", "abc"))
    with pytest.raises(InputError, match="case d1: no second opinion, as of 1 case"):
        _refuse(study, *PROGRAM, SPEAKS, imported=brought("abcd", "abc"))


class _Bare(torch.nn.Module):
    """Lacks what both stages ask of a network."""

    def __init__(self, in_channels: int, out_channels: int, width: int, strides: object) -> None:
        super().__init__()
        self.n_sides, self.divisor = 0, (1, 1, 1)


def test_a_network_that_lacks_what_both_stages_ask_is_refused_before_a_scan_is_read() -> None:
    cfg = compose_config(["experiment=demo"])
    cfg.network._target_ = "whqa.networks.bare_for_a_test.Bare"
    with pytest.MonkeyPatch.context() as patch:
        module = ModuleType("whqa.networks.bare_for_a_test")
        module.Bare = _Bare  # type: ignore[attr-defined]
        patch.setitem(sys.modules, module.__name__, module)
        with pytest.raises(InputError, match=r"network: .*bare_for_a_test\.Bare has no classifiers, which both stages"):
            refuse_unmakeable(cfg)

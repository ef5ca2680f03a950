"""Which places forbid to accept a mask that is good enough by its score."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from whqa.assessment.input_findings import InputFindings
from whqa.assessment.verdict import _score_reason, doubtful_above, verdict_of
from whqa.contract.quality_json import Place, Verdict
from whqa.results.triage import TriageRule

N = 24
CERTAINTY = np.linspace(0.3, 0.76, N).round(4)
"""Of the surest place in the right mask of each patient; the 23rd of them is 0.74: (24 + 1) x 0.9, rounded up."""


def _run(**columns: Any) -> Any:
    right = {"mask_kind": "reference", "error_voxels": 0, "mean_dice": 1.0, "place_certainty": CERTAINTY}
    poor = {"mask_kind": "early", "error_voxels": 900, "mean_dice": 0.3, "place_certainty": 0.99}
    scores = {"reference": np.linspace(0.8, 0.9, N), "early": np.linspace(0.2, 0.3, N)}
    tables = [
        pd.DataFrame({"patient": list(map(str, range(N))), "fold": np.arange(N) % 3, **kind})
        for kind in ({**right, **columns}, poor)
    ]
    cases = pd.concat(tables, ignore_index=True)
    cases["mean_dice_predicted"] = np.concatenate(list(scores.values()))
    return SimpleNamespace(head="label", cases=cases)


def _verdict(run: Any, certainty: float, *places: float) -> Verdict:
    structures: Any = {"lv": {"name": "left ventricle", "dice_expected": 0.85}}
    told: list[Place] = [
        {"ml": 2.0 - i / 10, "structure": "lv", "voxel": [0, 0, 0], "certainty": p} for i, p in enumerate(places)
    ]
    fine = InputFindings(image=(), mask=())
    return verdict_of(
        run,
        {},  # type: ignore[typeddict-item]
        structures,
        told,
        certainty=certainty,
        doubt_above=doubtful_above(run),
        lost=False,
        unfamiliar=False,
        outside=0.0,
        findings=fine,
    )


def test_a_place_no_surer_than_those_of_right_masks_does_not_forbid_to_accept() -> None:
    found = _verdict(_run(), 0.74, 0.74, 0.6)
    assert found["doubt_above"] == pytest.approx(0.74)
    assert (found["decision"], len(found["reasons"])) == ("accept", 1)


def test_a_surer_one_does_and_is_named_whatever_larger_ones_there_are() -> None:
    found = _verdict(_run(), 0.9, 0.6, 0.69, 0.55)
    assert found["decision"] == "review"
    assert found["reasons"][0] == "A piece of 1.9 ml in the left ventricle looks wrong, and 2 more."
    assert "more suspect than 0.74" in found["rule"]


def test_places_of_most_networks_are_a_doubt_also_where_their_mean_has_none() -> None:
    found = _verdict(_run(), 0.9)
    assert found["decision"] == "review"
    assert found["reasons"][0] == "Most networks hold a piece of 1 ml for wrong, which their mean does not."


@pytest.mark.parametrize("run", [_run(error_voxels=1), "older"])
def test_where_nobody_knows_the_places_of_right_masks_every_place_is_a_doubt(run: Any) -> None:
    if run == "older":
        run = _run()
        run.cases = run.cases.drop(columns="place_certainty")
    found = _verdict(run, 0.51, 0.51)
    assert (found["doubt_above"], found["decision"]) == (0.5, "review")


def test_a_score_below_a_threshold_is_not_written_as_the_threshold() -> None:
    rule = TriageRule(0.75847, 0.33996)
    for score, decision, said in (
        (0.7570, "review", "The QI of 0.757 is below 0.758, from which on masks are accepted."),
        (0.5, "review", "The QI of 0.50 is below 0.76, from which on masks are accepted."),
        (0.33995, "reject", "The QI of 0.3399 is below 0.3400, under which masks are rejected."),
    ):
        assert rule.decide(score) == decision
        assert _score_reason(score, "QI", rule, decision) == said

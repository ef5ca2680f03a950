"""What judging a new mask knows of a run, and that it is what the run's own page says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from whqa.errors import InputError
from whqa.results.breakdown import measured_correction
from whqa.results.case_table import case_table
from whqa.results.failure_score import MEAN_DICE, confidence
from whqa.results.mean_dice import expected_mean_dice
from whqa.results.tables import read_run
from whqa.results.worst_masks import worst_first
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")

STRUCTURES = ("lv", "rv", "myo")


def _spoil(run: Path, seed: int) -> None:
    """Structures that nobody has, that the correction invents, and that it rightly removes, here and there."""
    rng = np.random.default_rng(seed)
    for path in run.glob("errormap/*/cases.csv"):
        table = pd.read_csv(path, dtype={"case": str})
        table["patient"] = table["case"].map(read_run(run).folds["patients"])
        for key in STRUCTURES:
            before, after = f"dice_{key}", f"dice_{key}_corrected"
            fate, judged = rng.integers(0, 5, len(table)), table[after].notna()
            table.loc[(fate == 0) & judged, [before, after]] = np.nan
            table.loc[(fate == 1) & judged, [before, after]] = np.nan, 0.0
            table.loc[(fate == 2) & judged, [before, after]] = 0.0, np.nan
        table.to_csv(path, index=False)


@pytest.mark.parametrize("seed", range(3))
def test_the_page_of_a_run_and_the_judge_of_a_new_mask_state_the_same_gain(tmp_path, write_run, seed):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True)
    _spoil(run, seed)
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    stated = summary["methods"]["errormap"]["final"]["correction"]
    known = measured_correction(case_table(run, [0, 1, 2], STRUCTURES), STRUCTURES)
    assert known["final"]
    for name in ("dice_before", "dice_after", "gain"):
        assert known[name] == pytest.approx(stated[name]["mean"], abs=1e-12)
        assert known["n"] == stated[name].get("n", 12)
    assert known["ci95"] == pytest.approx(stated["gain"]["ci95"], abs=1e-12)
    assert known["improved_share"] == stated["improved_share"]
    assert known["gain"] == pytest.approx(known["dice_after"] - known["dice_before"], abs=1e-12)
    numbers = f"mean Dice {known['dice_before']:.3f} to {known['dice_after']:.3f}, gain {known['gain']:+.3f}"
    assert numbers in output.getvalue()


def test_means_are_over_structures_that_have_a_dice(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True)
    _spoil(run, 0)
    table = case_table(run, [0, 1, 2], STRUCTURES)
    assert set(table["method"]) == {"errormap"}
    true, expected = (table[[f"dice_{k}{x}" for k in STRUCTURES]].to_numpy() for x in ("", "_predicted"))
    some = ~np.isnan(true).all(axis=1)
    assert some.sum() < len(table) or np.isnan(true).any()
    np.testing.assert_allclose(table["mean_dice"][some], np.nanmean(true[some], axis=1))
    assert (np.isnan(true) & ~np.isnan(expected)).any(), "what is expected does not depend on the truth"
    for row, values in zip(table["mean_dice_predicted"], expected, strict=True):
        said = {k: {"dice_expected": None if np.isnan(v) else v} for k, v in zip(STRUCTURES, values, strict=True)}
        assert row == pytest.approx(expected_mean_dice(said)), "the verdict's score is the one that its rule is made of"
    ranked = confidence(table, MEAN_DICE, STRUCTURES)
    np.testing.assert_array_equal(ranked, table["mean_dice_predicted"].fillna(0.0))
    final = table[table["mask_kind"] == "final"].set_index("case")
    worst = worst_first(read_run(run)).set_index("case")
    for column in ("mean_dice", "mean_dice_predicted"):
        pd.testing.assert_series_equal(worst[column].sort_index(), final[column].sort_index())


def test_without_final_masks_all_count_and_without_a_correction_none(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True)
    cases = case_table(run, [1], STRUCTURES)
    others = cases[cases["mask_kind"] == "side1"]
    known = measured_correction(others, STRUCTURES)
    assert (known["n"], known["final"]) == (len(others), False)
    corrected = [f"dice_{key}_corrected" for key in STRUCTURES]
    assert measured_correction(cases.drop(columns=corrected), STRUCTURES) is None


@pytest.mark.parametrize("column", ["patient", "qi_heart", "method"])
def test_a_damaged_table_is_named(tmp_path, write_run, column):
    run = write_run(tmp_path / "demo", kinds=("final",))
    path = run / "errormap" / "1" / "cases.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"errormap/1/cases\.csv: not readable as a case table"):
        case_table(run, [1], STRUCTURES)


def test_names_that_pandas_takes_for_nothing_are_names(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final",))
    path = run / "errormap" / "1" / "cases.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    names = dict(zip(sorted(set(table["case"])), ("NA", "nan", "null", "None"), strict=False))
    renamed = table.assign(case=table["case"].map(names), patient=table["case"].map(names), mask_kind="n/a")
    renamed.to_csv(path, index=False)
    found = case_table(run, [1], STRUCTURES)
    assert set(found["case"]) == set(names.values())
    assert set(found["patient"]) == set(names.values())
    assert set(found["mask_kind"]) == {"n/a"}
    assert found["qi_heart"].dtype == float

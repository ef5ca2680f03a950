"""Summaries of tables with gaps: of older versions, of methods without a map, of folds that do not belong together."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from rich.console import Console
from summarised import STRUCTURES, all_rows, edit_table, walk

from whqa.assessment.worst_reports import write_worst_reports
from whqa.errors import InputError
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(tmp_path, write_run):
    return write_run(tmp_path / "demo", kinds=("final", "side1"))


def test_what_is_not_defined_is_null_with_a_reason(run):
    for k in range(3):
        perfect = {"error_auprc": "", "acc_volume": "1.0", "qi_soft_heart": "", "seconds": ""}
        perfect |= {f"dice_{key}": "0.9" for key in STRUCTURES}
        edit_table(run / f"errormap/{k}/cases.csv", lambda t, values=perfect: t.assign(**values))
        edit_table(run / f"segmenter/{k}/cases.csv", lambda t: t.drop(columns=["hd95_lv", "hd95_rv", "hd95_myo"]))
    summary = summarize(run, Console(file=io.StringIO()))
    walk(summary)
    found = summary["methods"]["errormap"]["final"]
    for entry in (found["error_auprc"], found["volume"]["pcc"], found["failure"]["auroc"], found["seconds_per_case"]):
        assert entry["mean"] is None
        assert entry["reason"]
    assert "one class only" in found["failure"]["auroc"]["reason"]
    assert "heart_soft" not in found
    assert summary["segmentation"]["hd95_mm"]["mean"] is None


def test_places_are_counted_mask_by_mask(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"))
    found = summarize(run, Console(file=io.StringIO()))["methods"]["boundary"]["all"]["places"]
    rows = all_rows(run)
    rows = rows[rows["method"] == "boundary"]
    wrong = rows[rows["true_places"] > 0]
    assert 0 < len(wrong) < len(rows), "some masks have no wrong place"
    assert found["recall"]["mean"] == pytest.approx((wrong["found_places"] / wrong["true_places"]).mean())
    assert found["recall"]["n"] == len(wrong)
    assert found["false_per_mask"]["mean"] == pytest.approx(rows["false_places"].mean())


def test_errors_are_told_apart_by_size(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), regressor=True, labels=True)
    methods = summarize(run, Console(file=io.StringIO()))["methods"]
    rows = all_rows(run)
    rows = rows[rows["method"] == "boundary"]
    for size, found in methods["boundary"]["all"]["places"]["by_size"].items():
        there = rows[rows[f"{size}_voxels"] > 0]
        assert 0 < len(there) < len(rows) or size != "missing"
        assert found["share"]["mean"] == pytest.approx((rows[f"{size}_voxels"] / rows["error_voxels"]).mean())
        shown = there[f"{size}_hit_voxels"] / there[f"{size}_voxels"]
        assert found["voxel_recall"]["mean"] == pytest.approx(shown.mean())
        wrong = rows[rows[f"{size}_places"] > 0]
        assert found["recall"]["mean"] == (
            pytest.approx((wrong[f"found_{size}_places"] / wrong[f"{size}_places"]).mean()) if len(wrong) else None
        )
    of_regressor = methods["dice_regressor"]["all"]["places"]["by_size"]["thin"]
    assert {entry["reason"] for entry in of_regressor.values()} == {"the method predicts no error map"}


def test_tables_of_older_runs_count_no_places(tmp_path, write_run):
    run = write_run(tmp_path / "demo")
    for path in run.glob("errormap/*/cases.csv"):
        lacking = ["true_places", "found_places", "false_places", "thin_voxels"]
        pd.read_csv(path).drop(columns=lacking).to_csv(path, index=False)
    found = summarize(run, Console(file=io.StringIO()))["methods"]["errormap"]["all"]["places"]
    sizes = found.pop("by_size")
    assert sizes["thin"]["share"]["reason"] == "a table of an older run, which lacks `thin_voxels`"
    assert {entry["mean"] for entry in found.values()} == {None}
    assert {entry["reason"] for entry in found.values()} == {"a table of an older run, which lacks `true_places`"}


def test_a_method_without_an_error_map_is_judged_by_its_quality_alone(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=True, regressor=True)
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    assert list(summary["methods"])[-1] == "dice_regressor"
    assert "dice_regressor" in output.getvalue()
    rows = all_rows(run)
    rows = rows[rows["method"] == "dice_regressor"]
    for part, own in (("all", rows), ("final", rows[rows["mask_kind"] == "final"])):
        found = summary["methods"]["dice_regressor"][part]
        assert found["n"] == len(own)
        maps = [found["error_dice"], found["error_auprc"]]
        maps += [numbers["error_dice"] for numbers in found["by_structure"].values()]
        maps += [numbers["error_dice"] for numbers in found["by_kind"].values()]
        maps += [found["places"][name] for name in ("recall", "false_per_mask")]
        strata = [numbers for numbers in found["strata"].values() if numbers["n"]]
        maps += [numbers[name] for numbers in strata for name in ("error_dice", "false_alarm")]
        assert {entry["mean"] for entry in maps} == {None}
        assert {entry["reason"] for entry in maps} == {"the method predicts no error map"}
        assert found["error_dice"]["pooled"] is None
        assert found["lead"]["reason"].startswith("one of the two has no error_dice")
        gap = (own["qi_heart"] - own["acc_heart"]).abs()
        assert found["heart"]["mae"]["mean"] == pytest.approx(gap.mean())
        assert found["failure"]["aurc"]["mean"] is not None
        assert "volume_soft" not in found
    network = summary["methods"]["errormap"]["all"]
    assert network["error_dice"]["mean"] is not None


def test_a_gap_in_the_rows_of_a_method_with_an_error_map_is_refused(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final",), regressor=True)
    path = run / "errormap" / "0" / "cases.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[table.index[table["method"] == "boundary"][0], "hit_voxels"] = ""
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"boundary\) has no hit_voxels"):
        summarize(run, Console(file=io.StringIO()))


def test_reports_of_folds_of_other_data_are_written_where_these_are_put_together(run, monkeypatch):
    monkeypatch.setattr("whqa.assessment.worst_reports.cohort_of_run", lambda directory: None)
    path = run / "errormap" / "1" / "made_from.json"
    record = json.loads(path.read_text())
    record["cases"]["1003"]["image"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="saw other data"):
        list(write_worst_reports(run, 0))
    assert list(write_worst_reports(run, 0, mixed=True)) == []


def test_folds_of_other_data_are_put_together_only_on_demand_and_said_to_be(run, unlike_contract, capsys):
    assert "mixed" not in summarize(run, Console(file=io.StringIO()), mixed=True)
    path = run / "errormap" / "1" / "made_from.json"
    record = json.loads(path.read_text())
    record["cases"]["1003"]["image"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"errormap/1 saw other data .*\(image of case 1003 changed.*rm -r"):
        summarize(run, Console(file=io.StringIO()))
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160), mixed=True)
    assert "image of case 1003 changed" in summary["mixed"]
    assert "rm -r" not in summary["mixed"]
    assert unlike_contract(summary, "summary.schema.json") == []
    for told in (output.getvalue(), (run / "summary.html").read_text(), capsys.readouterr().err):
        assert "image of case 1003 changed" in told

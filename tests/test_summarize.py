"""Summaries of a synthetic run against numpy, scipy and scikit-learn."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from sklearn.metrics import roc_auc_score

from whqa.errors import InputError
from whqa.results.tables import read_run
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")

KINDS = ("final", "side1", "side2", "side3", "side4", "early")
METHODS = ("errormap", "constant", "boundary", "entropy")
STRUCTURES = ("lv", "rv", "myo")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_run):
    run = write_run(tmp_path_factory.mktemp("runs") / "demo")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    return run, summary, output.getvalue()


@pytest.fixture
def run(tmp_path, write_run):
    return write_run(tmp_path / "demo", kinds=("final", "side1"))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_is_cut_in_a_narrow_terminal(run, width):
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=width))
    tables = output.getvalue().partition("\nsegmentation")[0]
    assert "…" not in tables
    shown = summary["methods"]["errormap"]["final"]
    for numbers, digits in ((shown["error_dice"], 3), (shown["volume"]["mae"], 4), (shown["heart"]["mae_constant"], 4)):
        assert f"{numbers['mean']:.{digits}f}" in tables


def test_a_run_behind_a_link_has_the_name_of_the_link(run, tmp_path):
    link = tmp_path / "mine"
    link.symlink_to(run)
    output = io.StringIO()
    assert summarize(link, Console(file=output, width=160))["experiment"] == "mine"
    assert str(link / "summary.html") in output.getvalue()
    assert "mine" in (run / "summary.html").read_text()


def _all_rows(run: Path) -> pd.DataFrame:
    tables = [pd.read_csv(run / "errormap" / str(k) / "cases.csv", dtype={"case": str}) for k in range(3)]
    return pd.concat(tables)


@pytest.mark.parametrize(("labels", "regressor"), [(False, False), (True, False), (True, True)])
def test_what_is_written_is_what_the_contract_says(tmp_path, write_run, unlike_contract, labels, regressor):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), labels=labels, regressor=regressor)
    summarize(run, Console(file=io.StringIO()))
    summary = json.loads((run / "summary.json").read_text())
    assert unlike_contract(summary, "summary.schema.json") == []
    assert ("volume_soft" in summary["methods"]["errormap"]["final"]) is True
    without = [entry for entry in _dicts(summary) if None in entry.values()]
    assert without, "a constant has no correlation"
    assert all(entry.get("reason") for entry in without), "null has a reason beside it"
    del summary["methods"]["errormap"]["all"]["heart"]["pcc"]["ci95"]
    assert len(unlike_contract(summary, "summary.schema.json")) == 1


def _dicts(value):
    """All dictionaries within."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(part)


def _aurc(confidence, risk):
    ordered = [r for _, r in sorted(zip(confidence, risk, strict=True), key=lambda pair: -pair[0])]
    return float(np.mean([np.mean(ordered[: i + 1]) for i in range(len(ordered))]))


@pytest.mark.parametrize("masks", ["final", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_numbers_equal_independent_references(finished, method, masks):
    run, summary, _ = finished
    rows = _all_rows(run)
    rows = rows[(rows["method"] == method) & ((rows["mask_kind"] == "final") | (masks == "all"))]
    found = summary["methods"][method][masks]
    suffix = "_kind" if masks == "final" else ""
    assert found["n"] == len(rows) == (12 if masks == "final" else 72)
    assert found["error_dice"]["mean"] == pytest.approx(rows["error_dice"].mean())
    hits, size = rows["hit_voxels"].sum(), rows["error_voxels"].sum() + rows["predicted_voxels"].sum()
    assert found["error_dice"]["pooled"] == pytest.approx(2 * hits / size)
    assert found["error_auprc"]["mean"] == pytest.approx(np.nanmean(rows["error_auprc"]))
    assert found["seconds_per_case"]["mean"] == pytest.approx(rows["seconds"].mean())
    for region in ("volume", "heart"):
        acc, constant = rows[f"acc_{region}"], rows[f"constant_{region}{suffix}"]
        qi = constant if method == "constant" else rows[f"qi_{region}"]
        q = found[region]
        assert q["acc"] == {"mean": pytest.approx(acc.mean()), "std": pytest.approx(acc.std())}
        assert q["mae"]["mean"] == pytest.approx(np.abs(qi - acc).mean())
        assert q["mae_constant"]["mean"] == pytest.approx(np.abs(constant - acc).mean())
        if method == "constant":
            assert q["pcc"]["mean"] is None
            assert "constant" in q["pcc"]["reason"]
            assert q["mae"] == q["mae_constant"]
        else:
            assert q["pcc"]["mean"] == pytest.approx(stats.pearsonr(qi, acc).statistic)
            assert q["spearman"]["mean"] == pytest.approx(stats.spearmanr(qi, acc).statistic)
            soft = stats.pearsonr(rows[f"qi_soft_{region}"], acc).statistic
            assert found[f"{region}_soft"]["pcc"]["mean"] == pytest.approx(soft)
    dice = rows[[f"dice_{key}" for key in STRUCTURES]]
    risk, poor = 1 - dice.mean(axis=1), (dice < 0.7).any(axis=1)
    if method == "constant":
        assert found["failure"]["aurc"]["mean"] == pytest.approx(risk.mean())
        assert found["failure"]["auroc"]["mean"] == pytest.approx(0.5)
    else:
        score = rows[found["failure"]["score"]]
        aurc = _aurc(score, risk)
        assert found["failure"]["aurc"]["mean"] == pytest.approx(aurc)
        assert found["failure"]["e_aurc"]["mean"] == pytest.approx(aurc - _aurc(-risk, risk))
        assert found["failure"]["auroc"]["mean"] == pytest.approx(roc_auc_score(poor, -score))
        lv = found["failure"]["auroc_per_structure"]["lv"]
        assert lv["positives"] == (dice["dice_lv"] < 0.7).sum()
        assert lv["mean"] == pytest.approx(roc_auc_score(dice["dice_lv"] < 0.7, -score))


def test_intervals_are_those_of_a_plain_bootstrap_over_patients(finished):
    run, summary, _ = finished
    rows = _all_rows(run).query("method == 'errormap'")
    patients = json.loads((run / "folds.json").read_text())["patients"]
    groups = [g for _, g in rows.groupby(rows["case"].map(patients))]
    assert len(groups) == 11
    rng = np.random.default_rng(1)
    draws = [pd.concat([groups[i] for i in rng.integers(0, 11, 11)]) for _ in range(1000)]
    found = summary["methods"]["errormap"]["all"]
    spread = {
        "error_dice": ([d["error_dice"].mean() for d in draws], found["error_dice"]),
        "mae": ([np.abs(d["qi_heart"] - d["acc_heart"]).mean() for d in draws], found["heart"]["mae"]),
        "pcc": ([np.corrcoef(d["qi_heart"], d["acc_heart"])[0, 1] for d in draws], found["heart"]["pcc"]),
    }
    for values, entry in spread.values():
        low, high = np.percentile(values, [2.5, 97.5])
        assert entry["ci95"] == pytest.approx([low, high], abs=0.15 * (high - low))
        assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]


def test_segmentation_is_that_of_final_masks(finished):
    run, summary, _ = finished
    tables = pd.concat([pd.read_csv(run / "segmenter" / str(k) / "cases.csv") for k in range(3)])
    final = tables[tables["mask_kind"] == "final"]
    for name, prefix in (("dice", "dice_"), ("hd95_mm", "hd95_")):
        found = summary["segmentation"][name]
        assert found["mean"] == pytest.approx(final[[prefix + key for key in STRUCTURES]].to_numpy().mean())
        assert list(found["per_structure"]) == list(STRUCTURES)
        assert found["per_structure"]["rv"]["mean"] == pytest.approx(final[f"{prefix}rv"].mean())


def test_summary_holds_to_the_contract(finished):
    run, summary, _ = finished
    assert json.loads((run / "summary.json").read_text()) == summary
    assert summary["experiment"] == "demo"
    assert summary["cohort"] == {"name": "phantom", "cases": 12, "folds": 3, "structures": list(STRUCTURES)}
    packages = {"python", "torch", "pytorch_lightning", "torchmetrics", "whqa", "device", "platform", "git"}
    assert packages <= set(summary["environment"])
    assert {"dice", "hd95_mm"} <= set(summary["segmentation"])
    for name in ("dice", "hd95_mm"):
        assert set(summary["segmentation"][name]["per_structure"]) == set(STRUCTURES)
        entries = [summary["segmentation"][name], *summary["segmentation"][name]["per_structure"].values()]
        assert all({"mean", "ci95"} <= set(e) for e in entries)
    assert tuple(summary["methods"]) == METHODS
    for method in summary["methods"].values():
        assert set(method) == {"final", "all"}
        for k in method.values():
            assert {"mean", "ci95", "pooled"} <= set(k["error_dice"])
            assert list(k["strata"]) == ["reference", "mild", "good", "fair", "bad"]
            assert sum(stratum["n"] for stratum in k["strata"].values()) == k["n"]
            assert sum(part["n"] for part in k["reliability"]["heart"]) == k["n"]
            entries = [k["error_dice"], k["error_auprc"], k["seconds_per_case"]]
            entries += [k["failure"][name] for name in ("aurc", "e_aurc", "auroc")]
            for region in ("volume", "heart", "volume_soft", "heart_soft"):
                assert set(k[region]["acc"]) == {"mean", "std"}
                entries += [k[region][name] for name in ("pcc", "spearman", "mae", "mae_constant")]
            assert all({"mean", "ci95"} <= set(e) for e in entries)
    _walk(summary)


def _walk(node, path="summary"):
    """Every null has a reason beside it, every interval is two ordered numbers, every number is finite."""
    if isinstance(node, dict):
        if any(v is None for v in node.values()):
            assert any(key.endswith("reason") and value for key, value in node.items()), path
        if node.get("ci95") is not None:
            low, high = node["ci95"]
            assert low <= high, path
        for key, value in node.items():
            _walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            _walk(value, path)
    elif isinstance(node, float):
        assert math.isfinite(node), path


def test_joined_table_has_the_columns_of_the_contract_and_loses_no_digit(finished):
    run, _, _ = finished
    joined = pd.read_csv(run / "cases.csv", dtype=str, keep_default_na=False)
    names = "case, fold, mask_kind, method, error_dice, error_auprc, acc_volume, qi_volume, acc_heart, qi_heart"
    assert list(joined.columns)[:13] == [*names.split(", "), *(f"dice_{key}" for key in STRUCTURES)]
    assert len(joined) == 12 * len(KINDS) * len(METHODS)
    assert list(joined["case"]) == sorted(joined["case"])
    assert list(joined["mask_kind"][:24:4]) == list(KINDS)
    source = pd.read_csv(run / "errormap/1/cases.csv", dtype=str, keep_default_na=False)
    key = ["case", "mask_kind", "method"]
    both = source.merge(joined, on=key, suffixes=("", "_joined"))
    assert len(both) == len(source)
    assert (both["qi_volume"] == both["qi_volume_joined"]).all()


def test_corrections_and_structures_are_in_the_summary_and_in_the_terminal(tmp_path, write_run):
    run = write_run(tmp_path / "demo", labels=True)
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    _walk(summary)
    rows = _all_rows(run).query("method == 'errormap' and mask_kind == 'final'")
    before, after = (rows[[f"dice_{key}{x}" for key in STRUCTURES]].mean(axis=1) for x in ("", "_corrected"))
    found = summary["methods"]["errormap"]["final"]
    assert found["correction"]["gain"]["mean"] == pytest.approx((after - before).mean())
    assert found["by_structure"]["rv"]["error_dice"]["mean"] == pytest.approx(rows["error_dice_rv"].mean())
    assert list(found["by_kind"]) == ["final"]
    everything = summary["methods"]["errormap"]["all"]["by_kind"]
    assert list(everything) == list(KINDS)
    assert everything["final"]["correction"] == found["correction"]
    assert summary["methods"]["entropy"]["all"]["correction"]["gain"]["mean"] is None
    assert set(summary["intervals"]["final"]) == {"acc_volume", "acc_heart", *(f"dice_{key}" for key in STRUCTURES)}
    gain = f"gain {(after - before).mean():+.3f}"
    for words in ("correction (errormap, final): mean Dice", gain):
        assert words in output.getvalue()
    # seven patients of the other folds are too few for 90 %
    assert summary["intervals"]["final"]["acc_volume"]["coverage"]["mean"] is None
    assert "intervals for Acc" not in output.getvalue()


def test_predicted_dice_stands_behind_the_true_one(run):
    path = run / "errormap/0/cases.csv"
    table = pd.read_csv(path)
    table["dice_lv_predicted"] = np.where(table["method"] == "errormap", 0.9, np.nan)
    table.to_csv(path, index=False)
    columns = list(read_run(run).text.columns)
    assert columns[10:14] == ["dice_lv", "dice_rv", "dice_myo", "dice_lv_predicted"]


def test_a_second_summary_is_the_same(finished):
    run, first, _ = finished
    table = (run / "cases.csv").read_bytes()
    assert summarize(run, Console(file=io.StringIO())) == first
    assert (run / "cases.csv").read_bytes() == table


def test_terminal_table_names_every_method_and_the_files(finished):
    run, _, printed = finished
    for word in (
        *METHODS,
        "strata (errormap, all)",
        "AURC by: errormap ",
        "segmentation",
        "HD95",
        str(run / "summary.html"),
        str(run / "summary.json"),
    ):
        assert word in printed


def _edit(path: Path, change) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def test_what_is_not_defined_is_null_with_a_reason(run):
    for k in range(3):
        perfect = {"error_auprc": "", "acc_volume": "1.0", "qi_soft_heart": "", "seconds": ""}
        perfect |= {f"dice_{key}": "0.9" for key in STRUCTURES}
        _edit(run / f"errormap/{k}/cases.csv", lambda t, values=perfect: t.assign(**values))
        _edit(run / f"segmenter/{k}/cases.csv", lambda t: t.drop(columns=["hd95_lv", "hd95_rv", "hd95_myo"]))
    summary = summarize(run, Console(file=io.StringIO()))
    _walk(summary)
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
    rows = _all_rows(run)
    rows = rows[rows["method"] == "boundary"]
    wrong = rows[rows["true_places"] > 0]
    assert 0 < len(wrong) < len(rows), "some masks have no wrong place"
    assert found["recall"]["mean"] == pytest.approx((wrong["found_places"] / wrong["true_places"]).mean())
    assert found["recall"]["n"] == len(wrong)
    assert found["false_per_mask"]["mean"] == pytest.approx(rows["false_places"].mean())


def test_errors_are_told_apart_by_size(tmp_path, write_run):
    run = write_run(tmp_path / "demo", kinds=("final", "side1"), regressor=True, labels=True)
    methods = summarize(run, Console(file=io.StringIO()))["methods"]
    rows = _all_rows(run)
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
    rows = _all_rows(run)
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

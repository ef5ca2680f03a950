"""Summaries of a synthetic run against numpy, scipy and scikit-learn."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from sklearn.metrics import roc_auc_score
from summarised import STRUCTURES, all_rows, walk

from whqa.results.tables import read_run
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")

KINDS = ("final", "side1", "side2", "side3", "side4", "early")
METHODS = ("errormap", "constant", "boundary", "entropy")


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


@pytest.mark.parametrize("name", ["C\rR", "C\nN", 'a,"b"', "007"])
def test_the_joined_table_holds_a_name_as_it_is(tmp_path, write_run, name):
    run = write_run(tmp_path / "demo", kinds=("final",), hostile=name)
    summarize(run, Console(file=io.StringIO()))
    with (run / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert {row["case"] for row in rows} >= {name}
    assert all(None not in row and None not in row.values() for row in rows)


def test_a_structure_that_no_mask_has_is_named(run):
    for path in run.glob("segmenter/*/cases.csv"):
        table = pd.read_csv(path, dtype={"case": str})
        if "dice_lv" in table:
            table.assign(dice_lv="").to_csv(path, index=False)
    lv = summarize(run, Console(file=io.StringIO()))["segmentation"]["dice"]["per_structure"]["lv"]
    assert lv["reason"] == "no final mask has a value of dice_lv"


def test_a_run_behind_a_link_has_the_name_of_the_link(run, tmp_path):
    link = tmp_path / "mine"
    link.symlink_to(run)
    output = io.StringIO()
    assert summarize(link, Console(file=output, width=160))["experiment"] == "mine"
    assert str(link / "summary.html") in output.getvalue()
    assert "mine" in (run / "summary.html").read_text()


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
    rows = all_rows(run)
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
    rows = all_rows(run).query("method == 'errormap'")
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
    walk(summary)


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
    walk(summary)
    rows = all_rows(run).query("method == 'errormap' and mask_kind == 'final'")
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

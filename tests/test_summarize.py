"""Summaries of a synthetic run against numpy, scipy and scikit-learn, and everything that must be refused."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats
from sklearn.metrics import roc_auc_score

from whqa.errors import InputError
from whqa.report.tables import read_run
from whqa.summarize import summarize

KINDS = ("final", "side1", "side2", "side3", "side4", "early")
METHODS = ("errormap", "constant", "boundary", "entropy")
STRUCTURES = ("lv", "rv", "myo")
HOSTILE = '<script>alert("x")</script>&$x_1$'


def write_run(run: Path, n_cases: int = 12, n_folds: int = 3, kinds=KINDS, hostile: bool = False) -> Path:
    """A finished run: two cases of patient p0, structured random numbers, no network involved."""
    rng = np.random.default_rng(3)
    cases = [f"{1001 + i}" for i in range(n_cases)]
    if hostile:
        cases[4] = HOSTILE
    patients = {case: f"p{max(0, i - 1)}" for i, case in enumerate(cases)}
    # patient p0 is cases 0 and 1, so both belong to fold 0
    folds = [[c for i, c in enumerate(cases) if max(0, i - 1) % n_folds == k] for k in range(n_folds)]
    (run / "errormap").mkdir(parents=True)
    cohort = {"name": "phantom", "structures": list(STRUCTURES), "cases": n_cases}
    modalities = dict.fromkeys(cases, "ct")
    content = {"cohort": cohort, "plan": "nested", "seed": 0, "patients": patients, "modalities": modalities}
    (run / "folds.json").write_text(json.dumps(content | {"folds": folds}))
    for k, fold in enumerate(folds):
        judged, segmented = [], []
        for case in fold:
            for kind in kinds:
                quality = (0.97 if kind == "final" else 0.9) - 0.1 * rng.random()
                dice = {f"dice_{key}": float(np.clip(quality - 0.35 * rng.random(), 0, 1)) for key in STRUCTURES}
                hd95 = {f"hd95_{key}": 10 * rng.random() if kind == "final" else "" for key in STRUCTURES}
                segmented.append({"case": case, "patient": patients[case], "fold": k, "mask_kind": kind} | dice | hd95)
                judged += [_row(rng, case, k, kind, m, quality, dice) for m in METHODS]
        for stage, rows in (("errormap", judged), ("segmenter", segmented)):
            directory = run / stage / str(k)
            directory.mkdir(parents=True)
            pd.DataFrame(rows).sample(frac=1, random_state=k).to_csv(directory / "cases.csv", index=False)
            (directory / "COMPLETED").touch()
    pair = run / "segmenter" / "0-1"
    pair.mkdir()
    (pair / "cases.csv").write_text("case\n")
    return run


def _row(rng, case, fold, kind, method, quality, dice):
    acc, noise = 0.9 + 0.1 * quality, {"errormap": 0.002, "boundary": 0.01, "entropy": 0.005, "constant": 0.0}[method]
    true, predicted = int(rng.integers(500, 900)), int(rng.integers(400, 1000))
    constant, constant_kind = 0.981 + fold / 1000, 0.99 + fold / 1000
    return {
        "case": case,
        "fold": fold,
        "mask_kind": kind,
        "method": method,
        "error_dice": rng.random(),
        "error_auprc": rng.random() if rng.random() > 0.1 else "",
        "acc_volume": acc,
        "qi_volume": constant if method == "constant" else acc + (0.02 if case == HOSTILE else noise * rng.normal()),
        "acc_heart": quality,
        "qi_heart": constant - 0.1 if method == "constant" else quality + 5 * noise * rng.standard_normal(),
        **dice,
        "patient": "ignored",
        "modality": "ct",
        "qi_soft_volume": acc + noise * rng.standard_normal(),
        "qi_soft_heart": quality + noise * rng.standard_normal(),
        "error_voxels": true,
        "predicted_voxels": predicted,
        "hit_voxels": int(rng.integers(0, min(true, predicted))),
        "constant_volume": constant,
        "constant_heart": constant - 0.1,
        "constant_volume_kind": constant_kind,
        "constant_heart_kind": constant_kind - 0.1,
        "seconds": rng.random(),
        "segmenter": str(fold),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "demo", hostile=True)
    plane = Figure(figsize=(1, 1))
    FigureCanvasAgg(plane)
    for k in range(3):
        for i in range(3):
            (run / "errormap" / str(k) / "figures").mkdir(exist_ok=True)
            plane.savefig(run / "errormap" / str(k) / "figures" / f"case{i}-final.png")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    return run, summary, output.getvalue()


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "demo", kinds=("final", "side1"))


def _all_rows(run: Path) -> pd.DataFrame:
    tables = [pd.read_csv(run / "errormap" / str(k) / "cases.csv", dtype={"case": str}) for k in range(3)]
    return pd.concat(tables)


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
        aurc = _aurc(rows["qi_volume"], risk)
        assert found["failure"]["aurc"]["mean"] == pytest.approx(aurc)
        assert found["failure"]["e_aurc"]["mean"] == pytest.approx(aurc - _aurc(-risk, risk))
        assert found["failure"]["auroc"]["mean"] == pytest.approx(roc_auc_score(poor, -rows["qi_volume"]))


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
    for word in (*METHODS, "segmentation", "HD95", str(run / "summary.html"), str(run / "summary.json")):
        assert word in printed


def _edit(path: Path, change) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def _refused(run: Path) -> str:
    with pytest.raises(InputError) as caught:
        summarize(run, Console(file=io.StringIO()))
    assert not (run / "summary.json").exists()
    assert not (run / "cases.csv").exists()
    return str(caught.value)


def test_refuses_all_missing_folds_at_once(run):
    shutil.rmtree(run / "errormap" / "1")
    (run / "errormap" / "2" / "COMPLETED").unlink()
    (run / "segmenter" / "0" / "cases.csv").unlink()
    message = _refused(run)
    for word in ("errormap/1", "errormap/2 (not completed)", "segmenter/0 (no cases.csv)", "make cv EXP=demo"):
        assert word in message


@pytest.mark.parametrize("stage", ["errormap", "segmenter"])
def test_refuses_a_case_judged_twice(run, stage):
    other = pd.read_csv(run / stage / "0" / "cases.csv", dtype=str, keep_default_na=False).head(1)
    _edit(run / stage / "2" / "cases.csv", lambda t: pd.concat([t, other]))
    message = _refused(run)
    assert other["case"].iloc[0] in message
    assert "judged twice, in fold 0 and fold 2" in message


def test_refuses_a_case_in_a_foreign_fold(run):
    case = json.loads((run / "folds.json").read_text())["folds"][0][0]
    rows = pd.read_csv(run / "errormap/0/cases.csv", dtype=str, keep_default_na=False)
    _edit(run / "errormap/0/cases.csv", lambda t: t[t["case"] != case])
    _edit(run / "errormap/1/cases.csv", lambda t: pd.concat([t, rows[rows["case"] == case].assign(fold="1")]))
    assert f"case {case} belongs to fold 0" in _refused(run)


def test_refuses_an_unjudged_case_and_an_unknown_one(run):
    _edit(run / "errormap/0/cases.csv", lambda t: t[t["case"] != "1001"])
    assert "case 1001 lacks every row" in _refused(run)
    _edit(run / "errormap/0/cases.csv", lambda t: t.assign(case=t["case"].replace("1002", "nobody")))
    assert "case nobody is not in folds.json" in _refused(run)


def test_refuses_folds_that_differ_in_methods_or_kinds(run):
    _edit(run / "errormap/1/cases.csv", lambda t: t[(t["method"] != "entropy") | (t["mask_kind"] != "side1")])
    message = _refused(run)
    assert "errormap/1" in message
    assert "lacks side1 / entropy" in message


def test_refuses_a_surplus_fold_and_damaged_tables(run):
    shutil.copytree(run / "errormap/0", run / "errormap/7")
    assert "fold(s) 7 do not belong" in _refused(run)
    shutil.rmtree(run / "errormap/7")
    whole = (run / "errormap/0/cases.csv").read_text()
    _edit(run / "errormap/0/cases.csv", lambda t: t.drop(columns="qi_heart"))
    assert "lacks column(s) qi_heart" in _refused(run)
    (run / "errormap/0/cases.csv").write_text("")
    assert "not readable as CSV" in _refused(run)
    for value, word in (("", "has no qi_heart"), ("high", "column qi_heart"), ("inf", "infinite")):
        (run / "errormap/0/cases.csv").write_text(whole)
        _edit(run / "errormap/0/cases.csv", lambda t, value=value: t.assign(qi_heart=value))
        assert word in _refused(run)


def test_refuses_what_is_no_run(tmp_path, run):
    assert "is no run directory" in _refused(tmp_path / "nothing")
    content = json.loads((run / "folds.json").read_text())
    content["folds"][1].append(content["folds"][0][0])
    (run / "folds.json").write_text(json.dumps(content))
    assert "partition" in _refused(run)


def test_in_sample_segmenters_count_only_unseen_cases(run):
    content = json.loads((run / "folds.json").read_text())
    (run / "folds.json").write_text(json.dumps(content | {"plan": "in_sample"}))
    before = read_run(run).segmented
    foreign = pd.read_csv(run / "segmenter/1/cases.csv", dtype=str, keep_default_na=False).assign(dice_lv="1.0")
    _edit(run / "segmenter/0/cases.csv", lambda t: pd.concat([t, foreign]))
    pd.testing.assert_frame_equal(read_run(run).segmented, before)


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


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_self_contained_escaped_and_semantic(finished):
    run, _, _ = finished
    html = (run / "summary.html").read_text()
    page = _Page()
    page.feed(html)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base"} & set(names)
    assert HOSTILE in page.text
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert not re.search(r"https?://|url\(|@import", html)
    assert names.count("caption") == names.count("table") == 6
    text = " ".join(page.text)
    for word in ("not a medical device", "Definitions", "nested", "MAE of a constant", "10 mm", "Overlay"):
        assert word in text
    assert "reproduced" not in text
    assert len([1 for _, a in page.tags if (a.get("alt") or "").startswith("Overlay")]) == 6


def _with_masks_of(run: Path, method: str, kind: str = "side1", cases: int = 12) -> None:
    """Another program's masks: copies of those of a kind, without rows of the entropy, of the first cases."""
    made = sorted(json.loads((run / "folds.json").read_text())["patients"])[:cases]
    for k in range(3):
        path = run / f"errormap/{k}/cases.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        theirs = table[(table["mask_kind"] == kind) & (table["method"] != "entropy") & table["case"].isin(made)]
        pd.concat([table, theirs.assign(mask_kind=method, segmenter=method)]).to_csv(path, index=False)
        (run / f"errormap/{k}/external.json").write_text(json.dumps({method: "0123"}))
    (run / "external" / method).mkdir(parents=True)
    (run / "external" / method / "cases.csv").write_text("case\n" + "\n".join(made) + "\n")


def test_masks_of_another_program_are_a_part_of_their_own(run):
    before = summarize(run, Console(file=io.StringIO()))
    _with_masks_of(run, "nnUNet")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    _walk(summary)
    rows = _all_rows(run)
    for method, parts in summary["methods"].items():
        assert parts["final"] == before["methods"][method]["final"]
        of_method = rows[rows["method"] == method]
        assert parts["all"]["n"] == len(of_method) == (24 if method == "entropy" else 36)
    theirs = rows[(rows["mask_kind"] == "nnUNet") & (rows["method"] == "boundary")]
    found = summary["methods"]["boundary"]["nnUNet"]
    assert found["n"] == len(theirs) == 12
    assert found["error_dice"]["mean"] == pytest.approx(theirs["error_dice"].mean())
    assert found["volume"]["pcc"]["mean"] == pytest.approx(stats.pearsonr(theirs["qi_volume"], theirs["acc_volume"])[0])
    constant = np.abs(theirs["constant_volume_kind"] - theirs["acc_volume"]).mean()
    assert found["volume"]["mae_constant"]["mean"] == pytest.approx(constant)
    assert found["volume"]["acc"]["mean"] == pytest.approx(theirs["acc_volume"].mean())
    nothing = summary["methods"]["entropy"]["nnUNet"]
    assert nothing["n"] == 0
    assert nothing["error_dice"] | {"reason": 0} == {"mean": None, "ci95": None, "pooled": None, "reason": 0}
    assert "judged no masks of nnUNet" in nothing["error_dice"]["reason"]
    assert summary["segmentation"] == before["segmentation"]
    page = (run / "summary.html").read_text()
    assert "asks of nnUNet" in page
    assert "word of whoever ran this" in page
    assert " nnUNet " in output.getvalue()


def test_another_program_may_lack_masks_that_its_index_does_not_list(run):
    _with_masks_of(run, "nnunet", cases=7)
    summary = summarize(run, Console(file=io.StringIO()))
    assert summary["methods"]["errormap"]["nnunet"]["n"] == 7
    assert summary["methods"]["errormap"]["all"]["n"] == 31
    for name in ("summary.json", "cases.csv"):
        (run / name).unlink()
    listed = run / "external/nnunet/cases.csv"
    listed.write_text(listed.read_text() + "1012\n")
    assert "case 1012 lacks nnunet / boundary" in _refused(run)


def test_masks_of_other_programs_alone_need_no_segmenter(tmp_path):
    run = write_run(tmp_path / "demo", kinds=("side1",))
    _with_masks_of(run, "nnunet")
    for k in range(3):
        _edit(run / f"errormap/{k}/cases.csv", lambda t: t[t["mask_kind"] == "nnunet"])
    shutil.rmtree(run / "segmenter")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    _walk(summary)
    assert tuple(summary["methods"]) == ("errormap", "constant", "boundary")
    assert summary["segmentation"]["hd95_mm"]["per_structure"]["rv"]["reason"] == "no segmenter was trained"
    final, theirs = (summary["methods"]["errormap"][masks] for masks in ("final", "nnunet"))
    assert final["n"] == 0
    assert final["failure"]["aurc"]["mean"] is None
    assert theirs["n"] == 12
    assert "segmentation: no segmenter was trained" in output.getvalue()
    assert "final" not in output.getvalue()
    page = (run / "summary.html").read_text()
    assert "No segmenter was trained" in page
    assert "Methods, final masks" not in page


def test_segmenters_are_wanted_as_soon_as_their_masks_were_judged(run):
    _with_masks_of(run, "nnunet")
    shutil.rmtree(run / "segmenter")
    assert "missing fold(s) segmenter/0, segmenter/1, segmenter/2" in _refused(run)


def test_refuses_folds_that_judged_different_masks_of_another_program(run):
    _with_masks_of(run, "nnunet")
    (run / "errormap/2/external.json").write_text(json.dumps({"nnunet": "4567"}))
    assert "folds 0 and 2 judged different masks of nnunet" in _refused(run)

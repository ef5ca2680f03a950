"""What a summary refuses, and what other programs' masks make of it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from summarised import edit_table

from whqa.errors import InputError
from whqa.results.tables import read_run
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(tmp_path, write_run):
    return write_run(tmp_path / "demo", kinds=("final", "side1"))


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
    for word in (
        "errormap/1",
        "errormap/2 (not completed)",
        "segmenter/0 (no cases.csv)",
        "the same `whqa cv ...` again",
    ):
        assert word in message


@pytest.mark.parametrize("stage", ["errormap", "segmenter"])
def test_refuses_a_case_judged_twice(run, stage):
    other = pd.read_csv(run / stage / "0" / "cases.csv", dtype=str, keep_default_na=False).head(1)
    edit_table(run / stage / "2" / "cases.csv", lambda t: pd.concat([t, other]))
    message = _refused(run)
    assert other["case"].iloc[0] in message
    assert "judged twice, in fold 0 and fold 2" in message


def test_refuses_a_case_in_a_foreign_fold(run):
    case = json.loads((run / "folds.json").read_text())["folds"][0][0]
    rows = pd.read_csv(run / "errormap/0/cases.csv", dtype=str, keep_default_na=False)
    edit_table(run / "errormap/0/cases.csv", lambda t: t[t["case"] != case])
    edit_table(run / "errormap/1/cases.csv", lambda t: pd.concat([t, rows[rows["case"] == case].assign(fold="1")]))
    assert f"case {case} belongs to fold 0" in _refused(run)


def test_refuses_an_unjudged_case_and_an_unknown_one(run):
    edit_table(run / "errormap/0/cases.csv", lambda t: t[t["case"] != "1001"])
    assert "case 1001 lacks every row" in _refused(run)
    edit_table(run / "errormap/0/cases.csv", lambda t: t.assign(case=t["case"].replace("1002", "nobody")))
    assert "case nobody is not in folds.json" in _refused(run)


def test_refuses_folds_that_differ_in_methods_or_kinds(run):
    edit_table(run / "errormap/1/cases.csv", lambda t: t[(t["method"] != "entropy") | (t["mask_kind"] != "side1")])
    message = _refused(run)
    assert "errormap/1" in message
    assert "lacks side1 / entropy" in message


def test_refuses_a_surplus_fold_and_damaged_tables(run):
    shutil.copytree(run / "errormap/0", run / "errormap/7")
    assert "fold(s) 7 do not belong" in _refused(run)
    shutil.rmtree(run / "errormap/7")
    whole = (run / "errormap/0/cases.csv").read_text()
    edit_table(run / "errormap/0/cases.csv", lambda t: t.drop(columns="qi_heart"))
    assert "lacks column(s) qi_heart" in _refused(run)
    (run / "errormap/0/cases.csv").write_text("")
    assert "not readable as CSV" in _refused(run)
    for value, word in (("", "has no qi_heart"), ("high", "column qi_heart"), ("inf", "infinite")):
        (run / "errormap/0/cases.csv").write_text(whole)
        edit_table(run / "errormap/0/cases.csv", lambda t, value=value: t.assign(qi_heart=value))
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
    edit_table(run / "segmenter/0/cases.csv", lambda t: pd.concat([t, foreign]))
    pd.testing.assert_frame_equal(read_run(run).segmented, before)


def _record(run_dir: Path, **changed: Any) -> None:
    path = run_dir / "made_from.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _with_masks_of(run: Path, method: str, kind: str = "side1", cases: int = 12) -> None:
    """Another program's masks: copies of those of a kind, without rows of the entropy, of the first cases."""
    made = sorted(json.loads((run / "folds.json").read_text())["patients"])[:cases]
    for k in range(3):
        path = run / f"errormap/{k}/cases.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        theirs = table[(table["mask_kind"] == kind) & (table["method"] != "entropy") & table["case"].isin(made)]
        pd.concat([table, theirs.assign(mask_kind=method, segmenter=method)]).to_csv(path, index=False)
        _record(run / f"errormap/{k}", masks={method: {f"{case}/{method}": "0123" for case in made}})
    (run / "external" / method).mkdir(parents=True)
    (run / "external" / method / "cases.csv").write_text("case\n" + "\n".join(made) + "\n")


def test_masks_of_another_program_are_a_part_of_their_own(run, unlike_contract):
    before = summarize(run, Console(file=io.StringIO()))
    _with_masks_of(run, "nnUNet")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    assert unlike_contract(summary, "summary.schema.json") == []
    tables = [pd.read_csv(run / f"errormap/{k}/cases.csv", dtype={"case": str}) for k in range(3)]
    rows = pd.concat(tables)
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


def test_masks_of_other_programs_alone_need_no_segmenter(tmp_path, write_run, unlike_contract):
    run = write_run(tmp_path / "demo", kinds=("side1",))
    _with_masks_of(run, "nnunet")
    _with_masks_of(run, "corrupted1")
    # made of nnunet's
    theirs = ("nnunet", "corrupted1")
    for k in range(3):
        edit_table(run / f"errormap/{k}/cases.csv", lambda t: t[t["mask_kind"].isin(theirs)].assign(segmenter="nnunet"))
    shutil.rmtree(run / "external" / "corrupted1")
    shutil.rmtree(run / "segmenter")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    assert unlike_contract(summary, "summary.schema.json") == []
    assert tuple(summary["methods"]) == ("errormap", "constant", "boundary")
    assert summary["segmentation"]["hd95_mm"]["per_structure"]["rv"]["reason"] == "no segmenter was trained"
    final, theirs = (summary["methods"]["errormap"][masks] for masks in ("final", "nnunet"))
    assert final["n"] == 0
    assert final["failure"]["aurc"]["mean"] is None
    assert theirs["n"] == summary["methods"]["errormap"]["corrupted"]["n"] == 12
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
    rows = "".join(f"{1001 + i},0123\n" for i in range(12))
    (run / "external/nnunet/cases.csv").write_text(f"case,mask_sha256\n{rows}")
    read_run(run)
    _record(run / "errormap/2", masks={"nnunet": {f"{1001 + i}/nnunet": "0123" if i else "4567" for i in range(12)}})
    message = _refused(run)
    assert (
        "errormap/2 saw other data than the other runs, or than there are now (masks of nnunet: case 1001)" in message
    )
    assert message.endswith(f"train again: rm -r {run / 'errormap/2'} and the same `whqa cv ...`")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"1003": {"image": "other"}}, "image of case 1003 changed"),
        ({"1003": {"label": "1004l"}, "1004": {"label": "1003l"}}, "label of case 1003 changed (it was case 1004's)"),
        ({"1003": {"fold": 7}}, "fold of case 1003 changed"),
        ({"1003": None}, "case 1003 is new"),
        ({"1099": {"fold": 0}}, "case 1099 is gone"),
    ],
)
def test_refuses_a_run_that_saw_other_data_than_the_others(run, changes, told):
    record = run / "segmenter/1/made_from.json"
    cases = json.loads(record.read_text())["cases"]
    for case, change in changes.items():
        if change is None:
            del cases[case]
        else:
            cases[case] = cases.get(case, {}) | change
    _record(record.parent, cases=cases)
    message = _refused(run)
    assert f"{run}: segmenter/1 saw other data" in message
    assert told in message


def test_refuses_masks_that_were_made_again_after_they_were_judged(run):
    masks = {f"{case}/final": "0123" for case in ("1001", "1002")}
    for k in range(3):
        _record(run / f"errormap/{k}", masks={"0": masks})
    (run / "segmenter/0/masks.json").write_text(json.dumps(masks | {"1002/final": "4567"}))
    assert "errormap/0, errormap/1, errormap/2 saw other data" in (message := _refused(run))
    assert "(masks of 0: case 1002)" in message


def test_runs_of_an_older_version_are_told_and_summarized(run, capsys):
    (run / "segmenter/1/made_from.json").unlink()
    summarize(run, Console(file=io.StringIO()))
    assert capsys.readouterr().err == (
        f"note: {run}: segmenter/1 keep no made_from.json; whether their data changed since is not known\n"
    )


def test_faulty_masks_are_parts_of_their_own_and_no_other_programs(tmp_path, write_run, unlike_contract):
    kinds = ("final", "side1", "reference", "mixed1", "corrupted1", "corrupted2", "novel1")
    run = write_run(tmp_path / "demo", kinds=kinds)
    tables = read_run(run)
    assert tables.external == ()
    assert tables.views == ("final", "mixed", "corrupted", "novel", "all")
    output = io.StringIO()
    summary = summarize(run, Console(file=output, width=160))
    assert unlike_contract(summary, "summary.schema.json") == []
    rows = pd.concat([pd.read_csv(run / f"errormap/{k}/cases.csv", dtype={"case": str}) for k in range(3)])
    for part, of_part in (("corrupted", ("corrupted1", "corrupted2")), ("novel", ("novel1",)), ("all", kinds)):
        theirs = rows[rows["mask_kind"].isin(of_part) & (rows["method"] == "boundary")]
        found = summary["methods"]["boundary"][part]
        assert found["n"] == len(theirs) == 12 * len(of_part)
        assert found["error_dice"]["mean"] == pytest.approx(theirs["error_dice"].mean())
        network = rows[rows["mask_kind"].isin(of_part) & (rows["method"] == "errormap")]
        lead = network["error_dice"].mean() - theirs["error_dice"].mean()
        assert found["lead"]["mean"] == pytest.approx(lead)
        assert set(summary["intervals"][part]) == {"acc_volume", "acc_heart"}
    assert list(summary["methods"]["errormap"]["corrupted"]["by_kind"]) == ["corrupted1", "corrupted2"]
    assert " corrupted " in output.getvalue()
    page = (run / "summary.html").read_text()
    assert "Methods, masks with faults never seen in training" in page
    assert "word of whoever ran this" not in page

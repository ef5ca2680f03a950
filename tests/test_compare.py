"""`whqa compare` on small written tables, against pandas."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from whqa.cli.commands import main
from whqa.compare import compare, print_comparison
from whqa.errors import InputError


def _network(run: Path) -> pd.DataFrame:
    rows = pd.concat([pd.read_csv(run / f"errormap/{k}/cases.csv", dtype={"case": str}) for k in range(3)])
    return rows[rows["method"] == "errormap"].set_index(["case", "mask_kind"])


@pytest.fixture
def two(tmp_path: Path, write_run: Callable[..., Path]) -> tuple[Path, Path]:
    """The second finds a tenth less of every error."""
    first, second = (write_run(tmp_path / name, kinds=("final", "corrupted1")) for name in ("first", "second"))
    for path in second.glob("errormap/*/cases.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table["error_dice"] = [f"{0.9 * float(value):.12g}" for value in table["error_dice"]]
        table.to_csv(path, index=False)
    return first, second


def test_means_and_differences_mask_by_mask(two: tuple[Path, Path]) -> None:
    found = compare(two)
    assert list(found) == ["final", "corrupted", "all"]
    for masks, kinds in (("final", ["final"]), ("corrupted", ["corrupted1"]), ("all", ["final", "corrupted1"])):
        tables = [_network(run)["error_dice"].loc[:, kinds] for run in two]
        first, second = (found[masks][str(run)] for run in two)
        assert first["n"] == second["n"] == 12 * len(kinds)
        assert first["error_dice"]["mean"] == pytest.approx(tables[0].mean())
        assert second["error_dice"]["mean"] == pytest.approx(tables[1].mean())
        assert second["lead"]["mean"] == pytest.approx((tables[0] - tables[1]).mean())
        low, high = second["lead"]["ci95"] or (0, 0)
        assert 0 < low < second["lead"]["mean"] < high
        assert (first["lead"]["mean"], first["lead"]["reason"]) == (None, "it is the first experiment")
        assert first["mae"]["mean"] == second["mae"]["mean"]


def _make_masks(run: Path, digest: Callable[[str, str], str]) -> None:
    for k in range(3):
        table = pd.read_csv(run / f"errormap/{k}/cases.csv", dtype={"case": str})
        record = json.loads((run / f"errormap/{k}/made_from.json").read_text())
        pairs = zip(table["case"], table["mask_kind"], strict=True)
        record["masks"] = {str(k): {f"{case}/{kind}": digest(case, kind) for case, kind in pairs}}
        (run / f"errormap/{k}/made_from.json").write_text(json.dumps(record))


def test_a_difference_is_that_of_judges_not_of_masks(two: tuple[Path, Path]) -> None:
    _make_masks(two[0], lambda case, kind: f"{case} {kind}")
    _make_masks(two[1], lambda case, kind: f"{case} {kind}" if kind == "final" and case != "1003" else "another")
    found = compare(two)
    tables = [_network(run)["error_dice"].loc[:, ["final"]].drop("1003", level=0) for run in two]
    for masks in ("final", "all"):
        assert found[masks][str(two[1])]["lead"]["mean"] == pytest.approx((tables[0] - tables[1]).mean())
    other = found["corrupted"][str(two[1])]
    assert other["lead"]["mean"] is None
    assert other["lead"]["reason"] == "its masks are others than the first's: a difference would be one of the masks"
    assert other["error_dice"]["mean"] == pytest.approx(_network(two[1])["error_dice"].loc[:, ["corrupted1"]].mean())


def test_masks_that_an_older_version_made_are_not_taken_for_the_same(two: tuple[Path, Path]) -> None:
    for old in (two[1], two[0]):
        for path in old.glob("errormap/*/made_from.json"):
            path.unlink()
        lead = compare(two)["final"][str(two[1])]["lead"]
        assert lead["mean"] is None
        assert "kept no digests" in lead["reason"]


def test_other_labels_are_refused(two: tuple[Path, Path]) -> None:
    for path in two[1].glob("*/*/made_from.json"):
        record = json.loads(path.read_text())
        record["cases"]["1004"]["label"] = "another"
        path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"second: other labels than .*first \(1 case\(s\), such as '1004'\)"):
        compare(two)


def test_the_table_names_experiments_and_signs_differences(two: tuple[Path, Path]) -> None:
    output = io.StringIO()
    found = compare(two)
    print_comparison(found, Console(file=output, width=200))
    line = next(x for x in output.getvalue().splitlines() if "final" in x and "first" in x)
    assert f"{found['final'][str(two[0])]['error_dice']['mean']:.3f}" in line
    assert f"{found['final'][str(two[1])]['lead']['mean']:+.3f}" in output.getvalue()


def test_no_number_is_cut_in_a_narrow_terminal(two: tuple[Path, Path]) -> None:
    output = io.StringIO()
    found = compare(two)
    print_comparison(found, Console(file=output, width=80))
    assert "…" not in output.getvalue()
    assert max(map(len, output.getvalue().splitlines())) <= 80
    for experiments in found.values():
        for of_one in experiments.values():
            for key, digits in (("error_dice", 3), ("mae", 4)):
                assert f"{of_one[key]['mean']:.{digits}f}" in output.getvalue()


def test_experiments_of_one_name_are_told_apart(two: tuple[Path, Path], tmp_path: Path) -> None:
    again = tmp_path / "again" / "first"
    again.parent.mkdir()
    two[1].rename(again)
    output = io.StringIO()
    print_comparison(compare([two[0], again]), Console(file=output, width=400))
    assert str(two[0]) in output.getvalue()
    assert str(again) in output.getvalue()


def test_command_prints_json(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", *map(str, two), "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out) == compare(two)


@pytest.mark.parametrize("key", ["patients", "folds", "cohort"])
def test_other_data_are_refused(two: tuple[Path, Path], key: str) -> None:
    path = two[1] / "folds.json"
    folds = json.loads(path.read_text())
    if key == "patients":
        folds["patients"] = {case: f"p{case}" for case in folds["patients"]}
    elif key == "folds":
        folds["folds"] = [folds["folds"][k] for k in (1, 0, 2)]
        for stage in ("segmenter", "errormap"):
            _exchange(two[1] / stage / "0", two[1] / stage / "1")
    else:
        folds["cohort"]["name"] = "another"
    path.write_text(json.dumps(folds))
    with pytest.raises(InputError, match=f"second: other {key} than .*first; compare experiments of one cohort"):
        compare(two)


def _exchange(one: Path, other: Path) -> None:
    tables = [pd.read_csv(run / "cases.csv", dtype=str, keep_default_na=False) for run in (one, other)]
    for run, table in zip((other, one), tables, strict=True):
        table.assign(fold=run.name).to_csv(run / "cases.csv", index=False)
    # a run of an older version, which keeps no record of its folds
    for record in one.parents[1].glob("*/*/made_from.json"):
        record.unlink()


def test_one_experiment_is_nothing_to_compare(two: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="name two or more"):
        compare(two[:1])
    with pytest.raises(InputError, match="named twice"):
        compare([*two, two[0]])


def test_a_part_that_one_experiment_did_not_judge_is_told_as_such(
    two: tuple[Path, Path], tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    third = write_run(tmp_path / "third", kinds=("final", "novel1"))
    for order in ((two[0], third), (third, two[0])):
        found = compare(order)
        assert set(found) == {"final", "corrupted", "novel", "all"}
        assert list(found)[-1] == "all"
        lacking = found["corrupted"][str(third)]
        assert lacking["n"] == 0
        entries = [value for key, value in lacking.items() if key != "n"]
        assert {(e["mean"], e["reason"]) for e in entries} == {(None, "it judged no such mask")}
        assert found["corrupted"][str(two[0])]["n"] == 12
        print_comparison(found, Console(file=io.StringIO(), width=200))


def test_a_link_to_an_experiment_is_that_experiment(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(two[0])
    with pytest.raises(InputError, match="link: named twice"):
        compare([two[0], tmp_path / "link"])


@pytest.mark.parametrize("command", ["summarize", "compare"])
def test_a_sweep_is_called_one(two: tuple[Path, Path], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(two[0].parent), *([str(two[0])] if command == "compare" else [])]
    with pytest.raises(SystemExit) as left:
        main([command, *words])
    assert left.value.code == 2
    assert f"holds a sweep, not an experiment; name one of its points, such as {two[0]}" in capsys.readouterr().err

"""What the points of a sweep are sorted by, against pandas."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whqa.contract.sweep_json import SweepPoint
from whqa.errors import InputError
from whqa.results.sweep_table import PointRows, read_point, sweep_points

FOLDS = ("0", "1", "2")


@pytest.fixture
def finished(tmp_path: Path, write_run: Callable[..., Path]) -> Callable[..., PointRows]:
    """Rows of a point whose networks find `shift` more than random numbers, with segmenters of a validation Dice."""

    def make(name: str, shift: float = 0.0, dice: float | None = None, masks: str = "m") -> PointRows:
        run = write_run(tmp_path / name, kinds=("final", "corrupted1"))
        folds = json.loads((run / "folds.json").read_text())
        for k in FOLDS:
            others = [case for j, fold in enumerate(folds["folds"]) if str(j) != k for case in fold][:4]
            rng = np.random.default_rng(int(k))
            rows = pd.DataFrame({"case": others, "mask_kind": "final", "fold": 0, "segmenter": "9"})
            rows["patient"] = [folds["patients"][case] for case in others]
            rows["error_dice"] = 0.4 + 0.1 * rng.random(len(rows)) + shift
            rows.to_csv(run / "errormap" / k / "validation.csv", index=False)
            record = run / "errormap" / k / "made_from.json"
            made_from = json.loads(record.read_text())
            made_from["masks"] = {"9": {f"{case}/final": f"{masks}{case}" for case in folds["patients"]}}
            record.write_text(json.dumps(made_from))
            if dice is not None:
                rows = rows.drop(columns="error_dice").assign(
                    segmenter=k, dice_lv=dice, dice_rv=dice - 0.1, dice_myo=np.nan
                )
                rows.to_csv(run / "segmenter" / k / "validation.csv", index=False)
        for path in run.glob("errormap/*/cases.csv"):
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            # the test says the opposite of the validation
            table["error_dice"] = [f"{0.5 * float(value) - shift:.12g}" for value in table["error_dice"]]
            table.to_csv(path, index=False)
        return read_point(run)

    return make


def _points(done: dict[str, PointRows], failed: tuple[str, ...] = ()) -> tuple[list[SweepPoint], str | None, str]:
    names = sorted([*done, *failed])
    return sweep_points(names, {name: {"key": name} for name in names}, done, dict.fromkeys(failed, "no luck"))


def test_means_spread_and_paired_differences(finished: Callable[..., PointRows], tmp_path: Path) -> None:
    points, chosen_by, _ = _points({"a": finished("a"), "b": finished("b", shift=0.05)})
    assert chosen_by == "validation.error_dice"
    assert [point["name"] for point in points] == ["b", "a"]
    tables = [pd.read_csv(tmp_path / "b" / "errormap" / k / "validation.csv") for k in FOLDS]
    assert points[0]["validation"] is not None
    found = points[0]["validation"]["error_dice"]
    assert found["mean"] == pytest.approx(pd.concat(tables)["error_dice"].mean())
    assert found["fold_std"] == pytest.approx(np.std([table["error_dice"].mean() for table in tables], ddof=1))
    assert found["difference"]["mean"] == pytest.approx(0.05)
    assert found["difference"]["ci95"] == pytest.approx([0.05, 0.05])
    assert points[1]["validation"] is not None
    first = points[1]["validation"]["error_dice"]["difference"]
    assert (first["mean"], first["reason"]) == (None, "it is the first point")


def test_test_numbers_stand_beside_and_sort_nothing(finished: Callable[..., PointRows], tmp_path: Path) -> None:
    points, _, _ = _points({"a": finished("a", shift=0.05), "b": finished("b")})
    assert [point["name"] for point in points] == ["a", "b"]
    best, other = (point["test"] for point in points)
    assert best is not None
    assert other is not None
    assert (best["error_dice"]["mean"] or 0) < (other["error_dice"]["mean"] or 0)
    rows = pd.concat([pd.read_csv(tmp_path / "b" / "errormap" / k / "cases.csv") for k in FOLDS])
    network = rows[rows["method"] == "errormap"]
    final = network[network["mask_kind"] == "final"]
    assert other["error_dice"]["mean"] == pytest.approx(final["error_dice"].mean())
    assert other["error_dice_all"]["mean"] == pytest.approx(network["error_dice"].mean())
    assert other["error_dice"]["fold_std"] == pytest.approx(final.groupby("fold")["error_dice"].mean().std())
    segmented = final[["dice_lv", "dice_rv", "dice_myo"]].mean(axis=1)
    assert other["segmentation_dice"]["mean"] == pytest.approx(segmented.mean())
    assert other["error_dice"]["difference"]["mean"] == pytest.approx(0.05)


def test_masks_of_other_segmenters_are_sorted_by_the_segmenters(finished: Callable[..., PointRows]) -> None:
    done = {
        "a": finished("a", dice=0.7, masks="a"),
        "b": finished("b", shift=0.1, dice=0.6, masks="b"),
        "c": finished("c", shift=0.02, dice=0.7, masks="a"),
    }
    points, chosen_by, why = _points(done)
    assert chosen_by == "validation.segmenter_dice"
    assert "change the segmenters" in why
    # b finds more of what worse segmenters do wrong; c and a judge the same masks
    assert [point["name"] for point in points] == ["c", "a", "b"]
    validation = {point["name"]: point["validation"] for point in points}
    assert validation["b"] is not None
    assert validation["c"] is not None
    assert validation["b"]["error_dice"]["difference"]["mean"] is None
    assert "other masks" in validation["b"]["error_dice"]["difference"].get("reason", "")
    assert validation["b"]["segmenter_dice"]["mean"] == pytest.approx(0.55)
    assert validation["b"]["segmenter_dice"]["difference"]["mean"] == pytest.approx(-0.1)
    assert validation["c"]["error_dice"]["difference"]["mean"] == pytest.approx(0.02)


@pytest.mark.parametrize("dice", [0.7, None])
def test_where_nothing_can_be_compared_nothing_is_sorted(
    finished: Callable[..., PointRows], dice: float | None
) -> None:
    done = {"a": finished("a", dice=dice, masks="a"), "b": finished("b", shift=0.1, dice=dice, masks="b")}
    points, chosen_by, why = _points(done)
    assert (chosen_by, [point["name"] for point in points]) == (None, ["a", "b"])
    assert "no validation number compares them" in why


def test_numbers_of_other_held_back_cases_sort_nothing(finished: Callable[..., PointRows]) -> None:
    done = {"a": finished("a", dice=0.7, masks="a"), "b": finished("b", dice=0.9, masks="b")}
    fewer = done["b"].segmenter_validation.iloc[1:]
    points, chosen_by, why = _points({**done, "b": replace(done["b"], segmenter_validation=fewer)})
    assert (chosen_by, [point["name"] for point in points]) == (None, ["a", "b"])
    assert "hold other training cases back" in why


def test_failed_points_come_last_with_their_reason(finished: Callable[..., PointRows]) -> None:
    points, _, _ = _points({"b": finished("b"), "c": finished("c", shift=0.1)}, failed=("a",))
    assert [(point["name"], point["state"], point["why"]) for point in points] == [
        ("c", "done", None),
        ("b", "done", None),
        ("a", "failed", "no luck"),
    ]
    assert points[0]["validation"] is not None
    difference = points[0]["validation"]["error_dice"]["difference"]
    assert (difference["mean"], difference.get("reason")) == (None, "the first point, a, is not finished")
    assert _points({}, failed=("a",))[1:] == (None, "no point is finished")


def test_a_run_without_the_table_says_how_to_get_it(finished: Callable[..., PointRows], tmp_path: Path) -> None:
    finished("a")
    (tmp_path / "a" / "errormap" / "1" / "validation.csv").unlink()
    with pytest.raises(InputError, match=r"errormap/1/validation\.csv: no such file.*rm .*COMPLETED, then the same"):
        read_point(tmp_path / "a")
    (tmp_path / "a" / "errormap" / "1" / "validation.csv").write_text("case,error_dice\na,\n")
    with pytest.raises(InputError, match=r"errormap/1/validation\.csv: not readable"):
        read_point(tmp_path / "a")

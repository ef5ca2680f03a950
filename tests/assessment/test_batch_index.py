"""What a batch ends in: the table, the page and the worklist of its cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from batch_of_stubs import BARE, HOSTILE, Judge, pairs_in, stub_model

from whqa.assessment.batch import assess_many
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError
from whqa.report.batch_page import render_index
from whqa.results.correction_time import CorrectionTime


def test_the_table_of_results_is_a_table_of_pairs(tmp_path: Path) -> None:
    from whqa.assessment.pairs import pairs_of_table

    pairs = pairs_in(tmp_path, "a", HOSTILE)
    assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, Judge())
    again = pairs_of_table(tmp_path / "out" / "assessments.csv")
    assert again.found == tuple(replace(p, image=p.image.resolve(), mask=p.mask.resolve()) for p in pairs.found)


def test_the_page_lists_the_worst_first_and_escapes_what_files_say(tmp_path: Path) -> None:
    verdicts: dict[str, Any] = {
        "fine": ("accept", 0.9),
        HOSTILE: ("reject", 0.6),
        "worse": ("reject", 0.3),
        "unknown": ("review", None),
        "doubtful": ("review", 0.7),
    }
    names = [*verdicts, "broken"]
    judge = Judge(**verdicts, broken=InputError(f"{HOSTILE}: bad"))
    outcomes = assess_many(pairs_in(tmp_path, *names), stub_model(tmp_path), tmp_path / "out", BARE, judge)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img" not in page
    assert page.count("<script") == 1, "the page's own"
    links = [part.split('"')[0] for part in page.split('<th scope="row"><a href="')[1:]]
    folders = {o.name: o.folder for o in outcomes}
    order = ["worse", HOSTILE, "unknown", "doubtful", "fine"]
    assert links == [f"{folders[name]}/quality.json" for name in order]
    assert all((tmp_path / "out" / link).is_file() for link in links)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "The noise of the image is high." in page
    reported = [replace(o, report=True) for o in outcomes]
    assert 'href="fine/report.html"' in render_index(reported, "demo", CorrectionTime())


def test_a_mask_without_a_quality_of_the_heart_is_listed_and_kept(
    tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    class Lost(Judge):
        def __call__(self, *args: Any, **options: Any) -> Assessment:
            found = super().__call__(*args, **options)
            found.quality["qi"]["heart"] = {"value": None, "interval": None, "reason": "the mask has no voxel"}
            return found

    pairs, judge = pairs_in(tmp_path, "a"), Lost(a=("reject", None))
    assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
    (outcome,) = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
    assert outcome.kept
    assert '<td data-what="QI, heart">n/a</td>' in (tmp_path / "out" / "index.html").read_text()
    assert rows_of(tmp_path / "out" / "assessments.csv")[0]["qi_heart"] == ""


def test_the_page_says_where_its_links_lead_and_how_many_were_judged(tmp_path: Path) -> None:
    judge = Judge(b=InputError("no"), c=InputError("no"))
    outcomes = assess_many(pairs_in(tmp_path, "a", "b", "c"), stub_model(tmp_path), tmp_path / "out", BARE, judge)
    page = render_index(outcomes, "demo", CorrectionTime())
    assert page.count("3 cases, 1 judged by demo<") == 2, "title and headline"
    assert "Each name leads to what was found, in quality.json." in page
    assert "full report" not in page
    page = render_index([replace(outcome, report=True) for outcome in outcomes[:1]], "demo", CorrectionTime())
    assert page.count("1 case judged by demo<") == 2
    assert "Each name leads to the full report." in page
    assert "Each name" not in render_index(outcomes[1:], "demo", CorrectionTime())


def test_the_worklist_says_whom_to_look_at_first_where_and_for_how_long(
    tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    judge = Judge(fine=("accept", 0.9), bad=("reject", 0.3), broken=InputError("no"), odd=("review", None))
    pairs, out = pairs_in(tmp_path, "fine", "bad", "broken", "odd"), tmp_path / "out"
    assess_many(pairs, stub_model(tmp_path), out, BARE, judge, time=CorrectionTime(2, 0.5, 0.25))
    rows = rows_of(out / "worklist.csv")
    assert [(r["place"], r["name"], r["decision"]) for r in rows] == [
        ("1", "bad", "reject"),
        ("2", "odd", "review"),
        ("3", "fine", "accept"),
        ("4", "broken", ""),
    ]
    first = rows[0]
    assert (first["minutes"], first["pieces"], first["ml"]) == ("3.2", "1", "3")
    assert (first["look"], first["structure"]) == ("lv", "lv")
    assert (first["axial"], first["coronal"], first["sagittal"]) == ("4", "3", "2")
    assert (first["why"], first["page"], first["error"]) == ("Because of bad.", "bad/quality.json", "")
    assert (rows[3]["error"], rows[3]["minutes"]) == ("no", "")


def test_other_minutes_judge_nothing_again(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]) -> None:
    pairs, out, judge = pairs_in(tmp_path, "a"), tmp_path / "out", Judge()
    assess_many(pairs, stub_model(tmp_path), out, BARE, judge)
    assess_many(pairs, stub_model(tmp_path), out, BARE, judge, time=CorrectionTime(case=100))
    assert judge.names == ["a"]
    assert float(rows_of(out / "worklist.csv")[0]["minutes"]) > 100

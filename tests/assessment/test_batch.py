"""Many cases: one bad one does not stop the rest, what is done is kept, nothing leaves the output folder.

A stub stands for the networks; the files are real.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from whqa.assessment.batch import assess_many
from whqa.assessment.batch_case import AssessOptions
from whqa.assessment.output_folder import clear
from whqa.assessment.pairs import Pair, Pairs
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError
from whqa.judges.calibration import Calibration
from whqa.report.batch_page import render_index
from whqa.results.correction_time import CorrectionTime
from whqa.structures import ACDC

SHAPE = (6, 5, 4)
HOSTILE = "<img src=x onerror=alert(1)>"
OUTPUTS = {"error_probability.nii.gz", "error_map.nii.gz", "corrected_mask.nii.gz", "quality.json"}

PIECE = {"ml": 3.0, "structure": "lv", "opinion": None, "probability": 0.9, "voxel": [1, 2, 3]}


def _quality(name: str, decision: str, score: float | None) -> dict[str, Any]:
    structures = {
        key: {
            "name": key,
            "dice_expected": None if score is None else score - 0.1 * i,
            "dice_interval": None if score is None else [score - 0.1 * i - 0.05, score],
            "volume_ml": 10.0 + i,
            "volume_ml_corrected": 11.0 + i,
        }
        for i, key in enumerate(ACDC.keys)
    }
    return {
        "case": name,
        "confidence": 0.9,
        "qi": {r: {"value": 0.9, "interval": [0.8, 0.95], "reason": None} for r in ("volume", "heart")},
        "structures": structures,
        "verdict": {"decision": decision, "score": score, "reasons": [f"Because of {name}."]},
        "out_of_distribution": [{"feature": "noise", "message": "The noise of the image is high."}],
        "correction": {"applied": False},
        "warnings": [],
        "image": {"shape": list(SHAPE), "orientation": "RAS"},
        "opinion": None,
        "work": {"smallest_ml": 0.1, "pieces": 1, "voxels": 9, "ml": 3.0, "largest": [PIECE], "look": PIECE["voxel"]},
    }


class Judge:
    """A judge that knows its verdicts by name, notes what it was asked, and fails where it is told to."""

    def __init__(self, **verdicts: tuple[str, float | None] | Exception) -> None:
        self.verdicts = verdicts
        self.asked: list[dict[str, Any]] = []

    def __call__(self, image: Path, mask: Path, model: Any, *, name: str, **options: Any) -> Assessment:
        self.asked.append({"name": name, "image": image, "mask": mask} | options)
        verdict = self.verdicts.get(name, ("review", 0.5))
        if isinstance(verdict, Exception):
            raise verdict
        zeros = np.zeros(SHAPE, np.uint8)
        return Assessment(
            name=name,
            scheme=ACDC,
            image=zeros.astype(np.float32),
            mask=zeros,
            corrected=zeros,
            error_probability=zeros.astype(np.float32),
            error_map=zeros.astype(bool),
            affine=np.eye(4),
            header=None,
            quality=_quality(name, *verdict),
        )

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.asked]


def _model(root: Path, sha256: str = "a", opinion: str | None = None, noise: str = "0.1", **calibration: float) -> Any:
    module = SimpleNamespace(calibration=Calibration(**calibration))
    network = SimpleNamespace(fold=0, sha256=sha256, segmenter_sha256=opinion, module=module)
    return SimpleNamespace(
        path=root / "runs" / "demo",
        name="demo",
        networks=(network,),
        scheme=ACDC,
        cases=pd.DataFrame({"qi": [0.5]}),
        features=({"noise": noise},),
    )


def _pairs(root: Path, *names: str) -> Pairs:
    (root / "in").mkdir(exist_ok=True)
    found = []
    for i, name in enumerate(names):
        image, mask = root / "in" / f"{i}.nii", root / "in" / f"{i}_mask.nii"
        for path, value in ((image, i), (mask, 100 + i)):
            if not path.exists():
                nib.save(nib.Nifti1Image(np.full(SHAPE, value, np.uint8), np.eye(4)), path)
        found.append(Pair(name, image, mask))
    return Pairs(tuple(found))


BARE = AssessOptions(report=False)


def test_every_case_has_a_folder_and_a_row(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]) -> None:
    judge = Judge(a=("accept", 0.9), b=("reject", 0.4))
    pairs = _pairs(tmp_path, "a", "b")
    outcomes = assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, judge)
    assert [(o.name, o.folder, o.kept, o.error) for o in outcomes] == [
        ("a", "a", False, None),
        ("b", "b", False, None),
    ]
    assert {p.name for p in (tmp_path / "out" / "a").iterdir()} == {*OUTPUTS, "request.json"}
    rows = rows_of(tmp_path / "out" / "assessments.csv")
    assert [(r["name"], r["status"], r["decision"], r["score"]) for r in rows] == [
        ("a", "done", "accept", "0.9"),
        ("b", "done", "reject", "0.4"),
    ]
    assert (rows[1]["dice_lv_expected"], rows[1]["dice_lv_low"], rows[1]["dice_lv_high"]) == ("0.2", "0.15", "0.4")
    assert (rows[0]["qi_heart"], rows[0]["qi_heart_low"], rows[0]["qi_heart_high"]) == ("0.9", "0.8", "0.95")
    assert (rows[0]["volume_ml_myo"], rows[0]["volume_ml_myo_corrected"]) == ("11", "12")
    assert rows[0]["image"] == str(pairs.found[0].image.resolve())


def test_a_bad_case_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge(b=InputError("b.nii: truncated; copy it again"), c=RuntimeError("out of\nmemory"))
    pairs = replace(_pairs(tmp_path, "a", "b", "c", "d"), problems=(("e", "e.nii: no mask"),))
    pairs.found[3].mask.unlink()
    outcomes = assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, judge)
    assert [o.name for o in outcomes if o.error is None] == ["a"]
    assert capsys.readouterr().err.splitlines() == [
        "whqa assess: e: e.nii: no mask",
        "whqa assess: b: b.nii: truncated; copy it again",
        "whqa assess: c: RuntimeError: out of memory",
        f"whqa assess: d: {pairs.found[3].mask}: no such file; correct its name",
    ]
    assert not (tmp_path / "out" / "b").exists()
    assert [p.name for p in (tmp_path / "out" / "c").iterdir()] == ["error.txt"]
    assert "Traceback" in (tmp_path / "out" / "c" / "error.txt").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "b.nii: truncated; copy it again" in page


def test_a_full_disk_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge(a=OSError(errno.ENOSPC, "No space left on device", "/out/error_map.nii.gz"))
    assess_many(_pairs(tmp_path, "a", "b"), _model(tmp_path), tmp_path / "out", BARE, judge)
    (line,) = capsys.readouterr().err.splitlines()
    said = "/out/error_map.nii.gz: No space left on device; free some space or choose another -o"
    assert line == f"whqa assess: a: {said}"


def test_what_is_done_is_kept(tmp_path: Path) -> None:
    pairs, model, judge = _pairs(tmp_path, "a", "b"), _model(tmp_path), Judge(b=("accept", 0.8))
    assess_many(pairs, model, tmp_path / "out", BARE, judge)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*")}
    outcomes = assess_many(pairs, model, tmp_path / "out", BARE, judge)
    assert judge.names == ["a", "b"]
    assert [o.kept for o in outcomes] == [True, True]
    assert [o.quality["verdict"]["decision"] for o in outcomes if o.quality] == ["review", "accept"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*")} == before


def _changed_mask(root: Path) -> dict[str, Any]:
    nib.save(nib.Nifti1Image(np.full(SHAPE, 77, np.uint8), np.eye(4)), root / "in" / "0_mask.nii")
    return {}


def _quality_without(root: Path, *keys: str) -> dict[str, Any]:
    path = root / "out" / "a" / "quality.json"
    quality = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = None
    path.write_text(json.dumps(quality))
    return {}


@pytest.mark.parametrize(
    "change",
    [
        _changed_mask,
        lambda root: {"model": _model(root, sha256="b")},
        lambda root: {"model": _model(root, opinion="b")},
        lambda root: {"model": _model(root, slope=2.0)},
        lambda root: {"model": _model(root, noise="0.2")},
        lambda root: {"options": replace(BARE, confidence=0.8)},
        lambda root: {"options": replace(BARE, modality="mr")},
        lambda root: {"options": replace(BARE, label_map=ACDC)},
        lambda root: (root / "out" / "a" / "error_map.nii.gz").unlink() or {},
        lambda root: (root / "out" / "a" / "quality.json").write_text("{") and {},
        lambda root: (root / "out" / "a" / "quality.json").write_text("{}") and {},
        lambda root: _quality_without(root, "verdict", "decision"),
        lambda root: _quality_without(root, "qi", "heart"),
        lambda root: _quality_without(root, "structures", "lv"),
        lambda root: _quality_without(root, "warnings"),
        lambda root: _quality_without(root, "work"),
        lambda root: _quality_without(root, "image", "orientation"),
        lambda root: (root / "out" / "a" / "request.json").write_text("[]") and {},
    ],
)
def test_what_was_made_otherwise_is_made_again(tmp_path: Path, change: Callable[[Path], dict[str, Any]]) -> None:
    pairs, judge = _pairs(tmp_path, "a"), Judge()
    asked = {"model": _model(tmp_path), "options": BARE, "judge": judge, "out": tmp_path / "out"}
    assess_many(pairs, **asked)
    assess_many(pairs, **asked)
    assert judge.names == ["a"]
    changed = asked | change(tmp_path)
    (outcome,) = assess_many(pairs, **changed)
    assert judge.names == ["a", "a"]
    assert not outcome.kept
    assess_many(pairs, **changed)
    assert judge.names == ["a", "a"]


def test_a_failure_does_not_stand_beside_yesterday_s_verdict(tmp_path: Path) -> None:
    pairs, out = _pairs(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, _model(tmp_path), out, BARE, Judge())
    (out / "a" / "report.html").write_text("of an earlier batch")
    (out / "a" / "notes.txt").write_text("mine")
    assess_many(pairs, _model(tmp_path, "b"), out, BARE, Judge(a=InputError("no")))
    assert [p.name for p in (out / "a").iterdir()] == ["notes.txt"]


def test_what_is_left_of_a_failure_goes_when_the_case_is_judged(tmp_path: Path) -> None:
    pairs, out = _pairs(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, _model(tmp_path), out, BARE, Judge(a=RuntimeError("no")))
    assert (out / "a" / "error.txt").is_file()
    assess_many(pairs, _model(tmp_path), out, BARE, Judge())
    assert not (out / "a" / "error.txt").exists()


def test_of_our_own_folder_nothing_but_our_own_files_goes(tmp_path: Path) -> None:
    pairs, out = _pairs(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, _model(tmp_path), out, BARE, Judge())
    place = out / "a"
    asked = json.loads((place / "request.json").read_text())
    (place / "request.json").write_text(json.dumps(asked | {"outputs": [*asked["outputs"], "look.png", "notes.txt"]}))
    mine = {"mine.png", "notes.txt", "error.txt"}
    for name in ("look.png", "report.html", *mine):
        (place / name).write_text("x")
    clear(place, BARE.outputs)
    assert {path.name for path in place.iterdir()} == mine
    (place / "quality.json").write_text('{"case": "a", "verdict": {}, "versions": {}}')
    (place / "request.json").write_text('{"of": "somebody else"}')
    (place / "report.html").write_text("x")
    clear(place, BARE.outputs)
    assert {path.name for path in place.iterdir()} == {*mine, "request.json"}


def test_settings_reach_the_judge(tmp_path: Path) -> None:
    pairs, judge = _pairs(tmp_path, "a", "b"), Judge()
    pairs = Pairs((replace(pairs.found[0], modality="ct"), pairs.found[1]))
    options = AssessOptions("mr", ACDC, 0.8, report=False)
    assess_many(pairs, _model(tmp_path), tmp_path / "out", options, judge)
    assert [(c["modality"], c["label_map"], c["confidence"]) for c in judge.asked] == [
        ("ct", ACDC, 0.8),
        ("mr", ACDC, 0.8),
    ]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", "a/../../x", HOSTILE, "", "index.html", "con\x1b[2Jtrol"])
def test_nothing_is_written_outside_the_output_folder(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = _pairs(tmp_path, name, "b")
    before = set(tmp_path.rglob("*"))
    outcomes = assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, Judge(**{name: InputError(name)}))
    assert [o.error for o in outcomes] == [str(InputError(name)), None]
    assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, Judge())
    made = set(tmp_path.rglob("*")) - before
    assert all(p == tmp_path / "out" or tmp_path / "out" in p.parents for p in made)
    assert len([p for p in (tmp_path / "out").iterdir() if p.is_dir()]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    outcomes = assess_many(_pairs(tmp_path, "a", "b"), _model(tmp_path), tmp_path / "out", BARE, Judge())
    assert "leads out of" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "remove this link" in capsys.readouterr().err


def test_an_input_in_the_output_folder_is_not_overwritten(tmp_path: Path) -> None:
    pairs = _pairs(tmp_path, "a")
    inside = tmp_path / "out" / "a" / "corrected_mask.nii.gz"
    inside.parent.mkdir(parents=True)
    os.link(pairs.found[0].mask, inside)
    content = inside.read_bytes()
    pairs = Pairs((replace(pairs.found[0], mask=inside),))
    (outcome,) = assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, Judge())
    assert "is an input and would be overwritten" in str(outcome.error)
    assert inside.read_bytes() == content


def test_an_output_folder_that_takes_no_files_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(InputError, match=r"out: cannot be written to \(Read-only file system\); choose another -o"):
        assess_many(_pairs(tmp_path, "a"), _model(tmp_path), tmp_path / "out", BARE, Judge())


def test_the_table_of_results_is_a_table_of_pairs(tmp_path: Path) -> None:
    from whqa.assessment.pairs import pairs_of_table

    pairs = _pairs(tmp_path, "a", HOSTILE)
    assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, Judge())
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
    outcomes = assess_many(_pairs(tmp_path, *names), _model(tmp_path), tmp_path / "out", BARE, judge)
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

    pairs, judge = _pairs(tmp_path, "a"), Lost(a=("reject", None))
    assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, judge)
    (outcome,) = assess_many(pairs, _model(tmp_path), tmp_path / "out", BARE, judge)
    assert outcome.kept
    assert '<td data-what="QI, heart">n/a</td>' in (tmp_path / "out" / "index.html").read_text()
    assert rows_of(tmp_path / "out" / "assessments.csv")[0]["qi_heart"] == ""


def test_the_page_says_where_its_links_lead_and_how_many_were_judged(tmp_path: Path) -> None:
    judge = Judge(b=InputError("no"), c=InputError("no"))
    outcomes = assess_many(_pairs(tmp_path, "a", "b", "c"), _model(tmp_path), tmp_path / "out", BARE, judge)
    page = render_index(outcomes, "demo", CorrectionTime())
    assert page.count("3 cases, 1 judged by demo<") == 2, "title and headline"
    assert "Each name leads to what was found, in quality.json." in page
    assert "full report" not in page
    page = render_index([replace(outcome, report=True) for outcome in outcomes[:1]], "demo", CorrectionTime())
    assert page.count("1 case judged by demo<") == 2
    assert "Each name leads to the full report." in page
    assert "Each name" not in render_index(outcomes[1:], "demo", CorrectionTime())


def test_a_batch_that_is_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Interrupted(Judge):
        def __call__(self, *args: Any, **options: Any) -> Assessment:
            if options["name"] == "b":
                raise KeyboardInterrupt
            return super().__call__(*args, **options)

    pairs, model = _pairs(tmp_path, "a", "b"), _model(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        assess_many(pairs, model, tmp_path / "out", BARE, Interrupted())
    judge = Judge()
    assess_many(pairs, model, tmp_path / "out", BARE, judge)
    assert judge.names == ["b"]
    with (tmp_path / "out" / "assessments.csv").open(newline="") as file:
        assert [r["status"] for r in csv.DictReader(file)] == ["kept", "done"]
    assert json.loads((tmp_path / "out" / "a" / "request.json").read_text())["name"] == "a"


def test_the_worklist_says_whom_to_look_at_first_where_and_for_how_long(
    tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    judge = Judge(fine=("accept", 0.9), bad=("reject", 0.3), broken=InputError("no"), odd=("review", None))
    pairs, out = _pairs(tmp_path, "fine", "bad", "broken", "odd"), tmp_path / "out"
    assess_many(pairs, _model(tmp_path), out, BARE, judge, time=CorrectionTime(2, 0.5, 0.25))
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
    pairs, out, judge = _pairs(tmp_path, "a"), tmp_path / "out", Judge()
    assess_many(pairs, _model(tmp_path), out, BARE, judge)
    assess_many(pairs, _model(tmp_path), out, BARE, judge, time=CorrectionTime(case=100))
    assert judge.names == ["a"]
    assert float(rows_of(out / "worklist.csv")[0]["minutes"]) > 100

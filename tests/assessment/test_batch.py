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
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from batch_of_stubs import BARE, HOSTILE, OUTPUTS, SHAPE, Judge, pairs_in, stub_model

from whqa.assessment.batch import assess_many, usual_jobs
from whqa.assessment.batch_case import AssessOptions
from whqa.assessment.input_places import InputFile
from whqa.assessment.output_folder import clear
from whqa.assessment.pairs import Pairs
from whqa.contract.quality_json import Assessment
from whqa.errors import InputError
from whqa.structures import ACDC


def test_every_case_has_a_folder_and_a_row(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]) -> None:
    judge = Judge(a=("accept", 0.9), b=("reject", 0.4))
    pairs = pairs_in(tmp_path, "a", "b")
    outcomes = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
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
    pairs = replace(pairs_in(tmp_path, "a", "b", "c", "d"), problems=(("e", "e.nii: no mask"),))
    pairs.found[3].mask.unlink()
    outcomes = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
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
    assess_many(pairs_in(tmp_path, "a", "b"), stub_model(tmp_path), tmp_path / "out", BARE, judge)
    (line,) = capsys.readouterr().err.splitlines()
    said = "/out/error_map.nii.gz: No space left on device; free some space or choose another -o"
    assert line == f"whqa assess: a: {said}"


def test_what_is_done_is_kept(tmp_path: Path) -> None:
    pairs, model, judge = pairs_in(tmp_path, "a", "b"), stub_model(tmp_path), Judge(b=("accept", 0.8))
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
        lambda root: {"model": stub_model(root, sha256="b")},
        lambda root: {"model": stub_model(root, opinion="b")},
        lambda root: {"model": stub_model(root, slope=2.0)},
        lambda root: {"model": stub_model(root, noise="0.2")},
        lambda root: {"options": replace(BARE, confidence=0.8)},
        lambda root: {"options": replace(BARE, modality="mr")},
        lambda root: {"options": replace(BARE, label_map=ACDC)},
        lambda root: (root / "out" / "a" / "error_map.nii.gz").unlink() or {},
        lambda root: (root / "out" / "a" / "error_map.nii.gz").write_bytes(b"") or {},
        lambda root: (root / "out" / "a" / "corrected_mask.nii.gz").write_bytes(b"edited") and {},
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
    pairs, judge = pairs_in(tmp_path, "a"), Judge()
    asked = {"model": stub_model(tmp_path), "options": BARE, "judge": judge, "out": tmp_path / "out"}
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
    pairs, out = pairs_in(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, stub_model(tmp_path), out, BARE, Judge())
    (out / "a" / "report.html").write_text("of an earlier batch")
    (out / "a" / "notes.txt").write_text("mine")
    assess_many(pairs, stub_model(tmp_path, "b"), out, BARE, Judge(a=InputError("no")))
    assert [p.name for p in (out / "a").iterdir()] == ["notes.txt"]


def test_a_case_whose_mask_is_gone_keeps_no_verdict_of_before(tmp_path: Path) -> None:
    pairs, out = pairs_in(tmp_path, "a", "b"), tmp_path / "out"
    assess_many(pairs, stub_model(tmp_path), out, BARE, Judge())
    (out / "a" / "notes.txt").write_text("mine")
    pairs.found[0].mask.unlink()
    outcomes = {case.name: case.error for case in assess_many(pairs, stub_model(tmp_path), out, BARE, Judge())}
    assert outcomes["b"] is None
    assert "no such file" in str(outcomes["a"])
    assert [path.name for path in (out / "a").iterdir()] == ["notes.txt"]
    assert (out / "b" / "quality.json").is_file()


def test_what_is_left_of_a_failure_goes_when_the_case_is_judged(tmp_path: Path) -> None:
    pairs, out = pairs_in(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, stub_model(tmp_path), out, BARE, Judge(a=RuntimeError("no")))
    assert (out / "a" / "error.txt").is_file()
    assess_many(pairs, stub_model(tmp_path), out, BARE, Judge())
    assert not (out / "a" / "error.txt").exists()


def test_of_our_own_folder_nothing_but_our_own_files_goes(tmp_path: Path) -> None:
    pairs, out = pairs_in(tmp_path, "a"), tmp_path / "out"
    assess_many(pairs, stub_model(tmp_path), out, BARE, Judge())
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
    pairs, judge = pairs_in(tmp_path, "a", "b"), Judge()
    pairs = Pairs((replace(pairs.found[0], modality="ct"), pairs.found[1]))
    options = AssessOptions("mr", ACDC, 0.8, report=False)
    assess_many(pairs, stub_model(tmp_path), tmp_path / "out", options, judge)
    assert [(c["modality"], c["label_map"], c["confidence"]) for c in judge.asked] == [
        ("ct", ACDC, 0.8),
        ("mr", ACDC, 0.8),
    ]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", "a/../../x", HOSTILE, "", "index.html", "con\x1b[2Jtrol"])
def test_nothing_is_written_outside_the_output_folder(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pairs_in(tmp_path, name, "b")
    before = set(tmp_path.rglob("*"))
    outcomes = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, Judge(**{name: InputError(name)}))
    assert [o.error for o in outcomes] == [str(InputError(name)), None]
    assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, Judge())
    made = set(tmp_path.rglob("*")) - before
    assert all(p == tmp_path / "out" or tmp_path / "out" in p.parents for p in made)
    assert len([p for p in (tmp_path / "out").iterdir() if p.is_dir()]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    outcomes = assess_many(pairs_in(tmp_path, "a", "b"), stub_model(tmp_path), tmp_path / "out", BARE, Judge())
    assert "leads out of" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "remove this link" in capsys.readouterr().err


def test_an_input_in_the_output_folder_is_not_overwritten(tmp_path: Path) -> None:
    pairs = pairs_in(tmp_path, "a")
    inside = tmp_path / "out" / "a" / "corrected_mask.nii.gz"
    inside.parent.mkdir(parents=True)
    os.link(pairs.found[0].mask, inside)
    content = inside.read_bytes()
    pairs = Pairs((replace(pairs.found[0], mask=inside),))
    (outcome,) = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, Judge())
    assert "is an input and would be overwritten" in str(outcome.error)
    assert inside.read_bytes() == content


def test_an_output_folder_that_takes_no_files_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(InputError, match=r"out: cannot be written to \(Read-only file system\); choose another -o"):
        assess_many(pairs_in(tmp_path, "a"), stub_model(tmp_path), tmp_path / "out", BARE, Judge())


def test_a_batch_that_is_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Interrupted(Judge):
        def __call__(self, *args: Any, **options: Any) -> Assessment:
            if options["name"] == "b":
                raise KeyboardInterrupt
            return super().__call__(*args, **options)

    pairs, model = pairs_in(tmp_path, "a", "b"), stub_model(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        assess_many(pairs, model, tmp_path / "out", BARE, Interrupted())
    judge = Judge()
    assess_many(pairs, model, tmp_path / "out", BARE, judge)
    assert judge.names == ["b"]
    with (tmp_path / "out" / "assessments.csv").open(newline="") as file:
        assert [r["status"] for r in csv.DictReader(file)] == ["kept", "done"]
    assert json.loads((tmp_path / "out" / "a" / "request.json").read_text())["name"] == "a"


def test_what_could_not_be_written_as_dicom_is_not_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, judge = pairs_in(tmp_path, "a"), Judge()
    monkeypatch.setattr(InputFile, "is_dicom", True)
    for _ in range(2):
        (case,) = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
        assert case.error is None
    assert (judge.names, case.kept) == (["a"], True)
    place = tmp_path / "out" / "a"
    for written, lost in (([], "error_map.nii.gz"), ([[1]], "quality.json"), (3, None)):
        # whatever somebody made of the list
        request = json.loads((place / "request.json").read_text())
        (place / "request.json").write_text(json.dumps(request | {"written": written}))
        if lost:
            (place / lost).unlink()
        judge.asked.clear()
        (case,) = assess_many(pairs, stub_model(tmp_path), tmp_path / "out", BARE, judge)
        assert (judge.names, case.error) == (["a"], None)


@pytest.mark.parametrize(("gib", "jobs"), [(4.5, 2), (0.5, 1), (float("inf"), 8)])
def test_as_many_cases_at_a_time_as_a_container_has_memory_for(
    monkeypatch: pytest.MonkeyPatch, gib: float, jobs: int
) -> None:
    monkeypatch.setattr("whqa.assessment.batch.memory_gib", lambda: gib)
    monkeypatch.setattr("whqa.assessment.batch.cpus", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert usual_jobs() == jobs

"""`whqa data check` and `whqa data preview`: exit codes, what is said where, records for machines, pictures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from whqa.cli.commands import main
from whqa.cli.findings_text import _shortened
from whqa.structures import MMWHS


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@pytest.fixture
def spoilt(mixed_phantoms: Path, tmp_path: Path) -> Path:
    """A truncated image, three label maps without pulmonary artery."""
    root = Path(shutil.copytree(mixed_phantoms, tmp_path / "data"))
    image = root / "ct_train_1001_image.nii.gz"
    image.write_bytes(image.read_bytes()[:-2000])
    for case in ("ct_train_1002", "mr_train_1001", "mr_train_1002"):
        label = nib.load(root / f"{case}_label.nii.gz")
        array = np.asanyarray(label.dataobj)
        nib.save(nib.Nifti1Image(np.where(array == 850, 0, array), label.affine), root / f"{case}_label.nii.gz")
    return root


def test_a_sound_folder(mixed_phantoms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "check", str(mixed_phantoms), "--source", "mmwhs", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    row = next(line for line in out.splitlines() if "mr_train_1002" in line)
    image = nib.load(mixed_phantoms / "mr_train_1002_image.nii.gz")
    assert "28x28x28" in row
    assert "6x6x6" in row
    assert "".join(nib.aff2axcodes(image.affine)) in row.split()
    label = np.asanyarray(nib.load(mixed_phantoms / "mr_train_1002_label.nii.gz").dataobj)
    volumes = [float(word) for word in row.split()[-7:]]
    assert volumes == pytest.approx([(label == v).sum() * 0.216 for v in MMWHS.values.values()], abs=0.5)
    assert out.splitlines()[-1] == "4 cases: 0 errors, 0 warnings, 0 notes"
    assert "looked at in" in err


def test_findings_and_their_counts(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "check", str(spoilt), "--source", "mmwhs", "--jobs", "1") == 1
    out = capsys.readouterr().out
    assert "error unreadable [ct_train_1001]: ct_train_1001_image.nii.gz: " in out, "paths start at the folder"
    shared = [line for line in out.splitlines() if "missing-structure" in line]
    assert len(shared) == 1
    assert shared[0].startswith("warning missing-structure [3 of 4 cases; e.g. ct_train_1002]: no pa in")
    assert out.splitlines()[-1] == "4 cases: 1 error, 3 warnings, 0 notes"


def test_a_folder_named_as_the_end_of_another_is_shortened_alone(
    mixed_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mixed_phantoms, tmp_path / "a" / "data")
    (tmp_path / "a" / "data" / "ct_train_1001_label.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    assert _run("data", "check", "a", "--source", "mmwhs", "--jobs", "1") == 1
    assert "error layout: data/ct_train_1001_image.nii.gz: label file" in capsys.readouterr().out


def test_the_record_for_machines(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "check", str(spoilt), "--json", "--jobs", "1", "name=mine", "--source", "mmwhs") == 1
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert err == ""
    assert list(record) == ["cohort", "cases", "findings", "counts"]
    assert record["cohort"] == {
        "name": "mine",
        "source": "mmwhs",
        "root": str(spoilt),
        "cases": 4,
        "labelled": 4,
        "patients": 4,
        "modalities": ["ct", "mr"],
        "scheme": "mmwhs",
        "structures": dict(MMWHS.values),
        "spacing_rule": "pixdim",
    }
    case = record["cases"][1]
    assert set(case) == {
        *("id", "patient", "modality", "image", "label"),
        *("shape", "spacing_mm", "orientation", "oblique_degrees", "labels_ml"),
    }
    assert (case["id"], case["shape"], case["spacing_mm"]) == ("ct_train_1002", [28, 28, 28], [6.0, 6.0, 6.0])
    assert set(case["labels_ml"]) == set(MMWHS.keys) - {"pa"}
    assert record["counts"] == {"error": 1, "warning": 3, "note": 0}
    assert {(f["severity"], f["code"], f["case"]) for f in record["findings"]} == {
        ("error", "unreadable", "ct_train_1001"),
        *(("warning", "missing-structure", c) for c in ("ct_train_1002", "mr_train_1001", "mr_train_1002")),
    }
    assert all(set(f) == {"severity", "code", "case", "message"} for f in record["findings"])


def test_the_layout_is_recognised_and_named(mixed_phantoms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "check", str(mixed_phantoms), "--json", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["cohort"]["source"] == "mmwhs"
    assert err == "read as --source mmwhs\n"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["check", "/no/such/folder", "--source", "mmwhs"], "/no/such/folder: data folder does not exist"),
        (["check", "/no/such/folder"], "/no/such/folder: data folder does not exist"),
        (["check", "{empty}"], "not the layout of any source"),
        (["check", "{empty}", "--source", "mmwhs"], "no MMWHS images found"),
        (["check", "{data}", "--source", "mmwsh"], "did you mean 'mmwhs'?"),
        (["check", "{data}", "--source", "mmwhs", "modalty=ct"], "did you mean 'data.modality'?"),
        (["check", "{data}", "--source", "mmwhs", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["check", "{data}", "--source", "mmwhs", "--jsn"], "unknown argument '--jsn'"),
        (["check"], "DIR"),
        (["check", ""], "no data folder stated"),
        (["preview", "", "--source", "mmwhs"], "no data folder stated"),
        (["preview", "{data}", "--source", "mmwhs", "--case", "ct_train_101"], "did you mean 'ct_train_1001'?"),
        (["preview", "{data}", "--source", "mmwhs", "--limit", "0"], "--limit 0: must be at least 1"),
        (
            ["preview", "{data}", "--source", "mmwhs", "--out", "{data}"],
            "must be the name of a picture, ending in .png",
        ),
        (["preview", "{data}", "--source", "mmwhs", "--out", "{scan}"], "1001_image.nii.gz: must be the name of a pic"),
        (["phantom", "--out", "{scan}"], "ct_train_1001_image.nii.gz: is a file; phantoms need a folder of their own"),
        (["phantom", "--out", "{empty}", "--seed", "-1"], "phantom seed -1: must not be negative"),
        (["phantom", "--out", "{empty}", "--faults", "-2"], "--faults -2: must not be negative"),
        (["phantom", "--out", "{empty}", "--preview", "x.txt"], "x.txt: must be the name of a picture"),
        (["preview", "{data}", "--source", "mmwhs", "--out", "/proc/no/x.png"], "/proc/no/x.png: cannot be written"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_end_with_2_and_say_which(
    words: list[str], cause: str, mixed_phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    scan = mixed_phantoms / "ct_train_1001_image.nii.gz"
    before = scan.read_bytes()
    places = {"{data}": str(mixed_phantoms), "{empty}": str(tmp_path / "empty"), "{scan}": str(scan)}
    assert _run("data", *(places.get(w, w) for w in words)) == 2
    assert not list((tmp_path / "empty").iterdir())
    assert scan.read_bytes() == before
    out, err = capsys.readouterr()
    assert out == ""
    assert cause in err.splitlines()[-1], err


def test_a_sheet_shows_what_cannot_be_read_too(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert _run("data", "preview", str(spoilt), "--source", "mmwhs", "--out", str(sheet), "--jobs", "1") == 1
    out, err = capsys.readouterr()
    assert out == f"{sheet}\n"
    assert err.startswith("case ct_train_1001: ")
    picture = imread(sheet)
    assert min(picture.shape[:2]) > 300
    assert sorted(sheet.parent.iterdir()) == [sheet]


def test_a_sheet_of_one_case_in_the_folder_where_it_is_called(
    mixed_phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("data", "preview", str(mixed_phantoms), "--source", "mmwhs", "--case", "mr_train_1002") == 0
    assert capsys.readouterr().out == "preview-mr_train_1002.png\n"
    assert imread(tmp_path / "preview-mr_train_1002.png").shape[1] > 1000


def test_several_processes_from_the_console_script(spoilt: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from whqa.cli.commands import main; main()",
            "data",
            "check",
            str(spoilt),
            "--jobs",
            "2",
        ],
        env=os.environ | {"COLUMNS": "60"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"read as --source mmwhs\nlooked at in \d+\.\d s\n", done.stderr), "no bar in a pipe"
    assert re.search(r"^ ?ct_train_1001 +ct +28x28x28 ", done.stdout, re.MULTILINE), "lines of a pipe are not cut"


@pytest.mark.parametrize("words", [["--json"], []], ids=["json", "table"])
def test_output_that_nobody_reads_to_its_end(mixed_phantoms: Path, words: list[str]) -> None:
    command = ["data", "check", str(mixed_phantoms), "--source", "mmwhs", "--jobs", "1", *words]
    run = subprocess.Popen(
        [sys.executable, "-c", "from whqa.cli.commands import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    said = run.stderr.read()
    assert run.wait(60) == 1
    assert "Traceback" not in said
    assert "Broken" not in said
    run.stderr.close()


def test_a_command_in_a_finding_runs_where_it_is_read() -> None:
    said = "some/data/a.nii.gz: has two volumes; take the first: python -c 'x' some/data/a.nii.gz some/data/b.nii.gz"
    expected = "a.nii.gz: has two volumes; take the first: python -c 'x' some/data/a.nii.gz some/data/b.nii.gz"
    assert _shortened(said, "some/data/") == expected

"""`whqa assess` as a person types it: exit codes, one line on standard error, files of the contract."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.cli.assess import exit_code
from whqa.cli.commands import main
from whqa.structures import MMWHS, TOTALSEGMENTATOR_V1

Read = Callable[[Path], list[dict[str, str]]]
CONTRACT = {"error_probability.nii.gz", "error_map.nii.gz", "corrected_mask.nii.gz", "quality.json", "report.html"}


def _assess(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main(["assess", *map(str, words)])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def run(judged: Path) -> Path:
    return judged / "runs" / "tiny"


@pytest.fixture
def scans(phantoms: Path, tmp_path: Path) -> Path:
    """images/ and masks/ of three phantoms, the second image cut short."""
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    for kind, folder in (("image", "images"), ("label", "masks")):
        (tmp_path / folder).mkdir()
        for path in sorted(root.rglob(f"*_{kind}.nii.gz"))[:3]:
            shutil.copy(path, tmp_path / folder)
    second = sorted((tmp_path / "images").iterdir())[1]
    second.write_bytes(second.read_bytes()[:5000])
    return tmp_path


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _digests(*folders: Path) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for f in folders for p in f.iterdir()}


def test_one_case_with_report_and_picture(run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = _files(scans / "images")[0], _files(scans / "masks")[0]
    before = _digests(image.parent, mask.parent)
    assert _assess(image, mask, "--model", run, "-o", scans / "out", "--preview", "look.png") == 0
    assert {p.name for p in (scans / "out").iterdir()} == {*CONTRACT, "look.png"}
    assert (scans / "out" / "look.png").read_bytes().startswith(b"\x89PNG")
    assert _digests(image.parent, mask.parent) == before, "the input is never changed"
    printed = capsys.readouterr()
    quality = json.loads((scans / "out" / "quality.json").read_text())
    assert printed.out.startswith(f"{quality['case']}: {quality['verdict']['decision']}, QI over the heart")
    assert printed.out.splitlines()[-1] == str(scans / "out" / "report.html")
    assert "could not be checked: the run has 2 case(s)" in printed.out
    assert printed.err == ""


def test_what_was_said_is_printed_beside_the_truth(run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = _files(scans / "images")[0], _files(scans / "masks")[0]
    options = ("--model", run, "-o", scans / "out", "--no-report")
    assert _assess(image, mask, *options, "--reference", mask) == 0
    *_, line, last = capsys.readouterr().out.splitlines()
    assert last == str(scans / "out" / "quality.json")
    quality = json.loads((scans / "out" / "quality.json").read_text())
    assert line.startswith(f"said / true: QI over the heart {quality['qi']['heart']['value']:.3f}")
    assert "volume" in line
    assert " / 1.000;" in line
    assert _assess(scans / "images", scans / "masks", *options, "--reference", mask) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"whqa assess: --reference {mask}: is the truth of one mask; IMAGE and MASK are folders or a table"


def test_a_reference_in_the_output_folder_is_not_compared_with_itself(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = _files(scans / "images")[0], _files(scans / "masks")[0]
    (scans / "out").mkdir()
    mine = scans / "out" / "corrected_mask.nii.gz"
    shutil.copy(mask, mine)
    before = _digests(scans / "out")
    words = (image, mask, "--model", run, "-o", scans / "out")
    assert _assess(*words, "--reference", mine) == 2
    said = capsys.readouterr().err
    assert said == f"whqa assess: {mine}: is an input and would be overwritten; choose another -o\n"
    assert _digests(scans / "out") == before
    assert _assess(*words, "--reference", scans / "none.nii.gz") == 2
    assert "none.nii.gz: no such file" in capsys.readouterr().err
    assert _digests(scans / "out") == before


def test_a_folder_with_one_corrupt_case(
    run: Path, scans: Path, phantoms: Path, capsys: pytest.CaptureFixture[str], rows_of: Read
) -> None:
    words = (scans / "images", scans / "masks", "--model", run, "-o", scans / "out", "--no-report", "--jobs", "1")
    before = _digests(scans / "images", scans / "masks")
    assert _assess(*words) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("whqa assess: ct_train_1002: ")
    assert "image.nii.gz: truncated" in line
    rows = rows_of(scans / "out" / "assessments.csv")
    assert [(r["name"], r["status"]) for r in rows] == [
        ("ct_train_1001", "done"),
        ("ct_train_1002", "failed"),
        ("ct_train_1003", "done"),
    ]
    for name in ("ct_train_1001", "ct_train_1003"):
        assert {p.name for p in (scans / "out" / name).iterdir()} == {*CONTRACT, "request.json"} - {"report.html"}
    assert "3 case(s): " in printed.out
    assert "1 failed" in printed.out
    assert _digests(scans / "images", scans / "masks") == before
    shutil.copy(next(phantoms.rglob("ct_train_1002_image.nii.gz")), scans / "images")
    assert _assess(*words) == 0
    assert capsys.readouterr().out.splitlines()[-2].endswith("; 2 kept from before")


@pytest.mark.parametrize("name", ["case7_img.nii.gz", "case7_0000.NII.GZ", "case7_image.nii.gz"])
def test_a_case_has_one_name_alone_and_in_a_batch(run: Path, scans: Path, name: str) -> None:
    for folder in ("i", "m"):
        (scans / folder).mkdir()
    image = Path(shutil.copy(_files(scans / "images")[0], scans / "i" / name))
    mask = Path(shutil.copy(_files(scans / "masks")[0], scans / "m" / "case7_seg.nii.gz"))
    options = ("--model", run, "--no-report")
    assert _assess(image, mask, *options, "-o", scans / "one") == 0
    assert _assess(image.parent, mask.parent, *options, "-o", scans / "many") == 0
    found = [json.loads((scans / d / "quality.json").read_text())["case"] for d in ("one", "many/case7")]
    assert found == ["case7", "case7"]


def test_a_mask_without_a_voxel_on_the_run_s_grid_is_rejected_in_words(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = _files(scans / "images")[0], nib.load(_files(scans / "masks")[0])
    values = np.zeros(mask.shape, np.int16)
    values[5, 5, 5] = MMWHS.values["lv"]
    nib.save(nib.Nifti1Image(values, mask.affine), scans / "lost.nii.gz")
    words = (image, scans / "lost.nii.gz", "--model", run, "--no-report", "-o", scans / "out")
    assert _assess(*words) == 0
    said = "ct_train_1001: reject, no QI over the heart (the mask has no voxel on the grid of the run)"
    assert capsys.readouterr().out.splitlines()[0] == said
    assert _assess(*words, "--fail-on", "reject") == 3
    printed = capsys.readouterr()
    assert printed.err == "whqa assess: --fail-on reject: 1 of 1 mask(s): ct_train_1001\n"
    assert printed.out.splitlines()[0] == said


@pytest.mark.parametrize(
    ("decisions", "fail_on", "code"),
    [
        (("accept", "accept"), "review", 0),
        (("accept", "review"), "reject", 0),
        (("accept", "review"), "review", 3),
        (("reject", "accept"), "reject", 3),
        (("reject", "reject"), None, 0),
    ],
)
def test_the_exit_code_says_what_a_pipeline_asked_for(
    decisions: tuple[str, ...], fail_on: str | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # masks of one scan may have one name
    judged = [("case\n1", {"verdict": {"decision": decision}}) for decision in decisions]
    assert exit_code(fail_on, judged) == code
    assert len(capsys.readouterr().err.splitlines()) == (code == 3)


def test_a_name_that_no_text_can_hold_is_refused_before_the_work(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = (_files(scans / f)[0] for f in ("images", "masks"))
    bad = Path(f"{scans}/bad\udcff.nii.gz")
    shutil.copy(image, bad)
    assert _assess(bad, mask, "--model", run, "-o", scans / "out") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "bad\\udcff.nii.gz': the name is no text (UTF-8)" in said
    assert not (scans / "out").exists()


def test_a_table_of_pairs_with_a_name_that_wants_out(run: Path, scans: Path, rows_of: Read) -> None:
    table = scans / "pairs.csv"
    image, mask = (_files(scans / f)[0].relative_to(scans) for f in ("images", "masks"))
    table.write_text(f"image,mask,name,modality\n{image},{mask},../../wants out,ct\n")
    assert _assess(table, "--model", run, "-o", scans / "out", "--no-report") == 0
    (row,) = rows_of(scans / "out" / "assessments.csv")
    assert (row["name"], row["folder"]) == ("../../wants out", "wants_out")
    assert {p.name for p in scans.iterdir()} == {"images", "masks", "out", "pairs.csv"}
    assert json.loads((scans / "out" / "wants_out" / "quality.json").read_text())["case"] == "../../wants out"


def test_another_program_s_label_values(run: Path, scans: Path) -> None:
    image, mask = _files(scans / "images")[0], _files(scans / "masks")[0]
    label = nib.load(mask)
    values = np.asanyarray(label.dataobj).astype(int)
    theirs = TOTALSEGMENTATOR_V1.to_values(MMWHS.to_indices(values, "mask"))
    theirs[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(theirs, label.affine), scans / "theirs.nii.gz")
    options = ("--model", run, "--no-report")
    assert _assess(image, mask, *options, "-o", scans / "own") == 0
    words = ("--label-map", "totalsegmentator_v1", "--fold", "0", "--confidence", "0.8", "--modality", "ct")
    assert _assess(image, scans / "theirs.nii.gz", *options, *words, "-o", scans / "other") == 0
    own, other = (json.loads((scans / d / "quality.json").read_text()) for d in ("own", "other"))
    assert other["structures"] == own["structures"]
    assert other["confidence"] == 0.8
    assert other["model"]["folds"] == [0]
    written = np.asanyarray(nib.load(scans / "other" / "corrected_mask.nii.gz").dataobj)
    assert set(np.unique(written)) <= {*TOTALSEGMENTATOR_V1.values.values(), 0, 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{image} {mask} -o {out}", "no --model: `make demo` trains one"),
        ("{image} {mask} -o {out} --model {none}", "no run directory"),
        ("{none} {mask} -o {out} --model {run}", "none: no such file or folder"),
        ("{image} {none} -o {out} --model {run}", "none: no such file or folder"),
        ("{image} -o {out} --model {run}", "MASK is missing; only a CSV table"),
        ("{images} {mask} -o {out} --model {run}", "images: not a volume but a folder; give one file, such as"),
        ("{images} {empty} -o {out} --model {run}", "no image with a mask of the same name"),
        ("{image} {mask} -o {image} --model {run}", "cannot be made a folder"),
        ("{image} {mask} -o {image}/out --model {run}", "cannot be made a folder (Not a directory); choose another"),
        ("{image} {mask} -o /proc/x --model {run}", "/proc/x: cannot be made a folder"),
        ("{image} {cut} -o {out}/new --model {run}", "cut.nii.gz: truncated"),
        ("{image} {mask} -o {out} --model {run} --fold 7", "error-map network of fold 7 is not complete"),
        ("{image} {mask} -o {out} --model {run} --confidence 1", "--confidence 1: must be between"),
        ("{image} {mask} -o {out} --model {run} --preview ../x.png", "must be a file name such as preview.png"),
        ("{image} {mask} -o {out} --model {run} --preview x.jpg", "must be a file name such as preview.png"),
        ("{image} {mask} -o {out} --model {run} --label-map acdc", "does not say which value stands for la"),
        ("{image} {mask} -o {out} --model {run} --label-map lv=x", "no whole number"),
        ("{image} {mask} -o {out} --model {run} --modality mr", "was trained on ct"),
        ("{image} {cut} -o {out} --model {run}", "cut.nii.gz: truncated"),
        ("{image} {mask} -o {out} --model {run} what=else", "unknown argument 'what=else'"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(
    words: str, says: str, run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "empty").mkdir()
    (scans / "cut.nii.gz").write_bytes(gzip.compress(b"x" * 1000)[:-5])
    places = {
        "image": _files(scans / "images")[0],
        "mask": _files(scans / "masks")[0],
        "images": scans / "images",
        "empty": scans / "empty",
        "none": scans / "none",
        "cut": scans / "cut.nii.gz",
        "out": scans / "out",
        "run": run,
    }
    assert _assess(*(word.format(**places) for word in words.split())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("whqa assess: ")
    assert says in line
    assert not (scans / "out").exists()


def test_the_corrected_mask_may_be_judged_but_not_in_its_own_place(
    run: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "out").mkdir()
    mask = Path(shutil.copy(_files(scans / "masks")[0], scans / "out" / "corrected_mask.nii.gz"))
    before = mask.read_bytes()
    assert _assess(_files(scans / "images")[0], mask, "--model", run, "-o", scans / "out") == 2
    assert "is an input and would be overwritten" in capsys.readouterr().err
    assert mask.read_bytes() == before
    table = scans / "out" / "assessments.csv"
    table.write_text("image,mask\na,b\n")
    assert _assess(table, "--model", run, "-o", scans / "out") == 2
    assert table.read_text() == "image,mask\na,b\n"


def test_files_of_others_in_the_output_folder_stay(run: Path, scans: Path) -> None:
    mine = {"error.txt": "mine", "report.html": "mine", "request.json": '{"outputs": ["mine.png"]}', "mine.png": "x"}
    (scans / "out").mkdir()
    for name, text in mine.items():
        (scans / "out" / name).write_text(text)
    words = (_files(scans / "images")[0], _files(scans / "masks")[0], "--model", run, "-o", scans / "out")
    assert _assess(*words, "--no-report", "--confidence", "0.99") == 0
    assert {name: (scans / "out" / name).read_text() for name in mine} == mine
    assert _assess(*words) == 0
    assert _assess(*words, "--no-report") == 0
    assert not (scans / "out" / "report.html").exists(), "the folder is known to be ours by its quality.json"


def test_a_missing_interval_is_explained(run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (_files(scans / "images")[0], _files(scans / "masks")[0], "--model", run, "-o", scans / "out")
    assert _assess(*words, "--no-report", "--confidence", "0.99") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith(" (no interval: too few unseen cases in the run for an interval of this confidence)")


def test_a_disk_that_is_full_ends_with_one_line(
    run: Path, scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("whqa.data.formats.volume_files.nib.Nifti1Image.to_stream", full)
    words = (_files(scans / "images")[0], _files(scans / "masks")[0], "--model", run, "-o", scans / "new" / "out")
    assert _assess(*words, "--no-report") == 2
    (line,) = capsys.readouterr().err.splitlines()
    path = scans / "new" / "out" / "error_probability.nii.gz"
    assert line == f"whqa assess: {path}: No space left on device; free some space or choose another path"
    assert not (scans / "new").exists()


def test_the_help_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess

    code = "import sys\nfrom whqa.cli.commands import main\n"
    code += "try: main(['assess', '--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "IMAGE" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def _without_seconds(content: dict[str, Any]) -> dict[str, Any]:
    """quality.json, or request.json with the digest of one."""
    written = {name: digest for name, digest in content.get("written", {}).items() if name != "quality.json"}
    return content | {"seconds": None, "written": written}


def test_a_batch_gives_the_same_whatever_the_number_of_processes(
    run: Path, scans: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second case is corrupt: it fails in its own process, and the others are judged."""
    told = []
    for jobs in ("1", "2"):
        out = scans / jobs
        assert _assess(scans / "images", scans / "masks", "--model", run, "-o", out, "--no-report", "--jobs", jobs) == 1
        printed = capfd.readouterr()
        told.append((printed.out.replace(str(out), "OUT"), printed.err))
    assert told[0] == told[1]
    files = sorted(p.relative_to(scans / "1") for p in (scans / "1").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(scans / "2") for p in (scans / "2").rglob("*") if p.is_file())
    for file in files:
        one, two = ((scans / jobs / file).read_bytes() for jobs in ("1", "2"))
        if file.name in ("quality.json", "request.json"):
            one, two = (json.dumps(_without_seconds(json.loads(text))).encode() for text in (one, two))
        assert one == two, file


def test_jobs_below_one_are_refused(run: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _assess(scans / "images", scans / "masks", "--model", run, "-o", scans / "out", "--jobs", "0") == 2
    assert capsys.readouterr().err == "whqa assess: --jobs 0: must be at least 1\n"


def test_judging_needs_none_of_what_only_training_needs() -> None:
    """Each of these takes from half a second to two seconds to import."""
    code = (
        "import sys, whqa.assessment.pipeline, whqa.assessment.batch, whqa.report.assessment_page;"
        "print(sorted({'pytorch_lightning', 'torchmetrics', 'monai', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

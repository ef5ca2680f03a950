"""The console script: exit codes, one line on standard error, and what every command says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning_fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

import whqa
from whqa.cli.commands import main
from whqa.config.instantiate import config_dir
from whqa.judges.registry import BASELINES


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def test_info_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("info", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    for group in ("experiment", "network", "data", "masks", "trainer"):
        assert found[group] == sorted(p.stem for p in (config_dir() / group).glob("*.yaml"))
    assert found["baselines"] == sorted(BASELINES)
    assert found["label_schemes"]["mmwhs"]["lv"] == 500
    assert found["mask_kinds"][0] == "final"


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("info") == 0
    text = capsys.readouterr().out
    assert "demo" in text
    assert "voxresnet" in text


def test_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("data", "phantom", "--cases", "1", "--spacing", "6", "--out", str(tmp_path / "p")) == 0
    assert str(tmp_path / "p") in capsys.readouterr().out
    assert len(list((tmp_path / "p").glob("*.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["cv", "experiment=dmeo"], "did you mean 'demo'?"),
        (["cv", "experiment=demo", "segmenter.stepz=3"], "did you mean 'segmenter.steps'?"),
        (["cv", "experiment=demo", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["cv", "experiment=demo", "--jobs=2x"], "2x"),
        (["cv", "experiment=demo", "--fold"], "unknown argument '--fold'"),
        (["cv", "demo"], "unknown argument 'demo'"),
        (["cv", "experiment=demo", "masks=nested", "folds=2"], "needs at least 3 folds"),
        (["cv", "data=mmwhs", "data.root=/no/such/folder"], "/no/such/folder: data folder does not exist"),
        (["summarize", "/no/such/run"], "/no/such/run"),
        (["summarize", "x", "y=1"], "unknown argument 'y=1'"),
        (["info", "--jsno"], "--jsno"),
        (["data", "phantom", "--out", "{tmp}/p", "--spacing", "99"], "99"),
        (["data", "phantom", "--out", "{tmp}/p", "--cases", "0"], "n must be at least 1"),
        (["data", "phantom", "--out", "{tmp}/p", "--modality", "pet"], "pet"),
        (["trian"], "trian"),
        ([], "required"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_end_with_2_and_say_which(
    words: list[str], cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(*(w.replace("{tmp}", str(tmp_path)) for w in words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert cause in err.splitlines()[-1], err
    assert not list(tmp_path.rglob("*.nii.gz"))
    assert not list(tmp_path.rglob("COMPLETED"))


@pytest.mark.parametrize("spec", [None, object()], ids=["script", "module"])
def test_the_further_processes_of_a_run_are_started_as_the_first(spec: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is `whqa train` or `python -m whqa train`, whose first word Lightning's command would lack."""
    found: list[list[str]] = []
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr("whqa.train.main", lambda: found.append([*_basic_subprocess_cmd()]))
    main(["train", "experiment=demo", "trainer=ddp_sim"])
    assert found == [[sys.executable, "-m", "whqa.train", "experiment=demo", "trainer=ddp_sim"]]


def test_ctrl_c_while_the_commands_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; sys.argv = ['whqa', 'info']; sys.modules['whqa.cli.commands'] = Stop(); main()"
    setup = (
        "from whqa.cli import main\nclass Stop:\n    def __getattr__(self, name):\n        raise KeyboardInterrupt\n"
    )
    command = [sys.executable, "-c", setup + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "whqa: stopped\n")


def test_lightning_says_nothing_of_its_own_while_it_is_imported_late() -> None:
    program = (
        "from whqa.errors import plain_messages; plain_messages(); import pytorch_lightning as pl; "
        "pl.Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True)
    assert done.stderr == ""


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("whqa.cv.cross_validate", interrupted)
    assert _run("cv", "experiment=demo") == 130


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left"), "output: No space left; free some space or choose another path"),
        (OSError(errno.EROFS, "Read-only file system"), "output: Read-only file system; choose another path"),
        (OSError(errno.EIO, "Input/output error", "/d/x"), "/d/x: Input/output error; choose another path"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/proc/x"), "/proc/x: No such file; choose another path"),
    ],
)
def test_a_disk_in_trouble_is_told_in_one_line(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trouble(*args: object, **options: object) -> int:
        raise error

    monkeypatch.setattr("whqa.cv.cross_validate", trouble)
    assert _run("cv", "experiment=demo") == 2
    assert capsys.readouterr().err == f"whqa cv: {line}\n"


@pytest.mark.parametrize("error", [OSError("cannot identify the picture"), OSError(errno.EBADF, "Bad descriptor")])
def test_a_fault_of_the_program_is_not_taken_for_the_disk_s(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*args: object, **options: object) -> int:
        raise error

    monkeypatch.setattr("whqa.cv.cross_validate", faulty)
    with pytest.raises(OSError, match=str(error.args[-1])):
        main(["cv", "experiment=demo"])


def test_train_goes_to_hydra_with_a_script_that_more_processes_can_be_started_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("whqa.train.main", lambda: seen.extend(sys.argv))
    monkeypatch.setattr(sys, "argv", ["whqa"])
    main(["train", "experiment=demo", "fold=1"])
    assert Path(seen[0]).is_file()
    assert seen[1:] == ["experiment=demo", "fold=1"]


def test_the_version_is_printed_at_once(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("whqa")
    if not script.exists():
        pytest.skip("whqa is not installed beside this Python")
    done = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"whqa {whqa.__version__}\n"


def test_phantoms_come_with_faulty_masks(tmp_path: Path) -> None:
    assert _run("data", "phantom", "--cases", "1", "--spacing", "6", "--faults", "2", "--out", str(tmp_path)) == 0
    (mask,) = tmp_path.rglob("*_mask.nii.gz")
    (label,) = tmp_path.rglob("*_label.nii.gz")
    assert mask.read_bytes() != label.read_bytes()
    assert len(json.loads(mask.with_name("ct_train_1001_mask.json").read_text())) == 2


@pytest.mark.parametrize("module", ["whqa", "whqa.cli"])
def test_the_package_itself_is_the_command(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"whqa {whqa.__version__}\n"


def test_a_terminal_without_a_bullet_gets_a_question_mark() -> None:
    code = "from whqa.errors import plain_messages; plain_messages(); print('0:01 \\u2022 \\u00b1')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0:01 ? ?\n", "")

"""`--help` of every command is complete: each option, settings where it takes any, an example that works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from whqa.cli.commands import main
from whqa.config.instantiate import config_dir
from whqa.config.words import check_overrides

COMMANDS = (
    "cv",
    "sweep",
    "status",
    "summarize",
    "evidence",
    "assess",
    "export",
    "info",
    "data check",
    "data preview",
    "data prepare",
    "data phantom",
)
# Of commands whose words are checked in full before anything is done.
CHECKED = ("cv", "sweep", "train", "data prepare")
GROUPS = sorted(p for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")


def text_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the help of a command prints; options of its own parser are found by argparse itself."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert not end.value.code
    return capsys.readouterr().out


def examples(text: str, command: str) -> list[list[str]]:
    """The words after the command of every example."""
    found = re.findall(rf"(?:Example: |^  )whqa {command} ([^\n]*)", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_works(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = text_of(command, capsys, monkeypatch)
    shown = examples(text, command)
    assert shown, text
    stated = set(re.findall(r"--[a-z-]+", text))
    for words in shown:
        assert {word for word in words if word.startswith("--")} <= stated
        if command in CHECKED:
            multirun = ["-m"][command != "sweep" :]
            check_overrides([*multirun, *(word for word in words if "=" in word)])
    monkeypatch.chdir(tmp_path)
    if command != "info" and command != "data phantom":
        wrong = [*command.split(), *shown[0], "--no-such-option"]
        with pytest.raises(SystemExit) as end:
            main(wrong)
        # every other word was understood
        assert (end.value.code, "--no-such-option" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("command", ["cv", "sweep", "train"])
def test_commands_that_take_settings_say_which_there_are(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "train":
        monkeypatch.setattr(sys, "argv", ["whqa"])
        main(["train", "--help"])
        text = capsys.readouterr().out
    else:
        text = text_of(command, capsys, monkeypatch)
    for group in GROUPS:
        options = "|".join(sorted(p.stem for p in group.glob("*.yaml")))
        assert f"  {group.name}={options}\n" in text
    for words in ("key=value", str(config_dir()), "seed=0", "resumes", "exit codes: 0 ", "130"):
        assert words in text
    for words in examples(text, command):
        multirun = ["-m"][command != "sweep" :]
        check_overrides([*multirun, *(word for word in words if word != "--jobs" and not word.isdigit())])


def test_the_help_of_a_run_costs_no_import_of_torch(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['whqa', 'train', '--help']\n"
        "from whqa.cli import main; main(); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.endswith("False\n")


def test_a_cross_validation_takes_groups_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    with pytest.raises(SystemExit) as end:
        main(["cv", "--config-dir", str(tmp_path), "experiment=mien"])
    assert end.value.code == 2
    assert "did you mean 'mine'?" in capsys.readouterr().err

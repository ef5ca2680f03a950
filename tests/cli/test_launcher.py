"""`--launcher`: where the runs of an experiment are trained, and what the words for it do to the experiment."""

from __future__ import annotations

from typing import Any

import pytest

import whqa.cv
from whqa.cli.commands import main
from whqa.stages.slurm import Slurm

WORDS = ["experiment=demo", "hydra.launcher.partition=gpu", "+hydra.launcher.additional_parameters={mail-type: END}"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Slurm | None]]:
    """What a cross-validation was asked for."""
    found: list[tuple[list[str], Slurm | None]] = []

    def cross_validate(words: list[str], jobs: Any, slurm: Slurm | None) -> int:
        found.append((words, slurm))
        return 0

    monkeypatch.setattr(whqa.cv, "cross_validate", cross_validate)
    return found


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def test_words_for_slurm_are_none_of_the_experiment(asked: list[tuple[list[str], Slurm | None]]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'whqa[slurm]'")
    assert call("cv", *WORDS, "--launcher", "slurm") == 0
    ((words, slurm),) = asked
    assert words == ["experiment=demo"]
    assert slurm is not None
    assert slurm.settings["partition"] == "gpu"
    assert slurm.settings["additional_parameters"] == {"mail-type": "END"}
    # of conf/hydra/launcher/slurm.yaml
    assert (slurm.settings["max_num_timeout"], slurm.settings["signal_delay_s"]) == (20, 120)


def test_a_cluster_of_ones_own(
    asked: list[tuple[list[str], Slurm | None]], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'whqa[slurm]'")
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("defaults: [slurm]\npartition: heart\n")
    place = ["--config-dir", str(tmp_path)]
    assert call("cv", "experiment=demo", "hydra/launcher=ours", "--launcher", "slurm", *place) == 0
    ((words, slurm),) = asked
    assert words == [f"hydra.searchpath=['file://{tmp_path}']", "experiment=demo"]
    assert slurm is not None
    assert (slurm.settings["partition"], slurm.settings["max_num_timeout"]) == ("heart", 20)


@pytest.mark.parametrize("command", ["cv", "sweep"])
def test_words_for_slurm_without_it_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, *WORDS) == 2
    err = capsys.readouterr().err
    assert "hydra.launcher.partition=gpu: says what jobs ask a cluster for; add --launcher slurm" in err
    assert err.count("\n") == 1


def test_without_submitit_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("whqa.config.launcher.find_spec", lambda name: None)
    assert call("cv", "experiment=demo", "--launcher", "slurm") == 2
    assert capsys.readouterr().err == "whqa cv: --launcher slurm: needs submitit; pip install 'whqa[slurm]'\n"

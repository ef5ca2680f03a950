"""A complete segmenter in the directory of another experiment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from whqa.files import sha256, write_text
from whqa.masks.run_state import refuse_damaged, stamp
from whqa.masks.sharing import share_run


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    run = tmp_path / "a" / "segmenter" / "0"
    for name in ("config.yaml", "masks.json", "checkpoints/last.ckpt", "masks/case/final.npz", "wandb/x", "train.log"):
        write_text(run / name, name)
    (run / ".lock").write_text("signed")
    stamp(run)
    return run


def _files(run: Path) -> dict[str, str]:
    return {str(p.relative_to(run)): sha256(p) for p in sorted(run.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_all_files_are_there_but_those_of_who_works_in_it(
    trained: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    target = tmp_path / "b" / "segmenter" / "0"
    share_run(trained, target)
    expected = {name: digest for name, digest in _files(trained).items() if name not in (".lock", "wandb/x")}
    assert _files(target) == expected
    refuse_damaged([target])
    same = (target / "masks.json").samefile(trained / "masks.json")
    assert same == links
    assert not (target / "train.log").samefile(trained / "train.log")


def test_what_is_written_again_in_one_place_stays_in_the_other(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "b" / "segmenter" / "0"
    share_run(trained, target)
    write_text(target / "masks.json", "other")
    with (target / "train.log").open("a") as file:
        file.write("more")
    refuse_damaged([trained])
    assert (trained / "train.log").read_text() == "train.log"


def test_a_copy_that_was_cut_short_is_not_complete_and_is_made_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "b" / "segmenter" / "0"
    seen: list[str] = []
    link = os.link

    def full(source: Path, place: Path) -> None:
        seen.append(source.name)
        if source.name == "last.ckpt" and seen.count("last.ckpt") == 1:
            raise KeyboardInterrupt
        link(source, place)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(KeyboardInterrupt):
        share_run(trained, target)
    # neither complete nor begun, so that whoever looks takes it for what it is
    assert not (target / "COMPLETED").exists()
    assert not list(target.glob("checkpoints/*.ckpt"))
    share_run(trained, target)
    refuse_damaged([target])
    assert seen[-1] == "COMPLETED"


def test_a_complete_run_is_left_alone(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "b" / "segmenter" / "0"
    write_text(target / "COMPLETED", "")
    share_run(trained, target)
    assert _files(target).keys() == {"COMPLETED"}

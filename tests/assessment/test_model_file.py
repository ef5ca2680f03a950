"""A model file is opened as it was written, or refused in one line; no training is needed to see that."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.assessment.model import load_run
from whqa.assessment.model_file import AGAIN, FORMAT, METADATA, digest, pack, read_metadata, unpacked
from whqa.errors import InputError

MEMBERS = {"LICENSE": b"free\n", "errormap/0/a.safetensors": bytes(range(256)) * 40, "errormap/0/b.csv": b"x,y\n1,2\n"}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a small model file: its members, what its metadata says beside them, a changed member."""

    def make(members=MEMBERS, version: int = FORMAT, listed=None) -> Path:
        files = {name: {"bytes": len(c), "sha256": digest(c)} for name, c in (listed or members).items()}
        facts = {"format": version, "run": "mine", "judges": {"networks": [0]}}
        path = tmp_path / "mine.whqa"
        pack(path, members, json.dumps({"whqa": facts, "files": files}).encode())
        return path

    return make


def refused(path: Path) -> str:
    """The line with which a file is refused, by whoever only looks and by whoever would judge with it."""
    with pytest.raises(InputError) as looked:
        read_metadata(path)
    with pytest.raises(InputError) as loaded:
        load_run(path)
    assert str(looked.value) == str(loaded.value)
    line = str(looked.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_what_was_packed_is_unpacked_and_removed_again(write: Write) -> None:
    path = write()
    with unpacked(path) as (folder, metadata):
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert metadata["whqa"]["run"] == "mine"
    assert found == MEMBERS
    assert not folder.exists()


@pytest.mark.parametrize("name", [*MEMBERS, METADATA])
def test_a_changed_member_is_named(write: Write, name: str) -> None:
    path = write()
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
        comment = archive.comment
    changed = members[name].replace(b"mine", b"mind") if name == METADATA else members[name][::-1]
    assert changed != members[name]
    with zipfile.ZipFile(path, "w") as archive:
        for n, c in {**members, name: changed}.items():
            archive.writestr(n, c)
        archive.comment = comment
    assert refused(path) == f"{path}: changed since it was written ({name}); {AGAIN}"


@pytest.mark.parametrize("name", ["errormap/0/c.csv", "../../out", "/etc/out"])
def test_members_that_the_metadata_does_not_list_are_refused(write: Write, name: str) -> None:
    path = write({**MEMBERS, name: b"x"}, listed=MEMBERS)
    assert "changed since it was written" in refused(path)


@pytest.mark.parametrize("name", ["../../out", "/etc/out", "a/../../b", "a\\b", ".ssh/x"])
def test_no_member_leads_out_of_the_folder(write: Write, name: str) -> None:
    assert f"a member is called {name!r}" in refused(write({**MEMBERS, name: b"x"}))


def test_a_listed_member_that_is_missing_is_noticed(write: Write) -> None:
    path = write({"LICENSE": b"free\n"}, listed=MEMBERS)
    assert "changed since it was written" in refused(path)


def test_every_flipped_byte_of_a_member_is_noticed(write: Write) -> None:
    path = write()
    whole = path.read_bytes()
    start = whole.index(MEMBERS["errormap/0/a.safetensors"])
    for place in (start, start + 5000, start + 10239):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        assert "not readable as a model file of whqa (Bad CRC-32" in refused(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_file_is_refused(write: Write, share: float) -> None:
    path = write()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refused(path).endswith(f"not readable as a model file of whqa (File is not a zip file); {AGAIN}")


def test_a_file_of_a_newer_format_is_refused_before_anything_else_is_expected_of_it(write: Write) -> None:
    path = write(version=FORMAT + 1)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"as later versions do it"
    assert refused(path) == (
        f"{path}: of format {FORMAT + 1}, newer than this version of whqa reads ({FORMAT}); update whqa, or ask for a "
        "file made by this one"
    )


def test_other_archives_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert f"no {METADATA} in it" in refused(path)
    with pytest.raises(InputError, match="a folder, not a model file; `whqa export RUN -o FILE` makes one"):
        read_metadata(tmp_path)


def test_a_fold_that_it_does_not_hold_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"mine\.whqa: holds no network of fold 7; choose from 0$"):
        load_run(write(), [7])


def test_what_cannot_be_used_is_told_without_the_temporary_folder(write: Write) -> None:
    path = write()
    with pytest.raises(InputError) as caught:
        load_run(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: not usable as a model (folds.json: no such file")
    assert line.endswith(AGAIN)
    assert "whqa-" not in line

"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from whqa.errors import InputError
from whqa.files import atomic_path, read_json, sha256, write_arrays, write_json, write_text


def test_a_file_appears_when_it_is_finished_only(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(".a.nii.gz")
        assert temporary.parent == target.parent
        temporary.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_is_told_with_the_file_s_own_name(tmp_path: Path, named: bool) -> None:
    def fail() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", *([str(temporary)] if named else []))

    with pytest.raises(OSError, match="No space left") as told:
        fail()
    assert str(told.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{tmp_path / 'a.txt'}'"


def test_arrays_come_back_and_make_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"mask": np.eye(50, dtype=np.uint8)[::2], "empty": np.zeros((0, 3)), "maker": "0-1", "unseen": True}
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, **arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found.files == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == np.asarray(values).dtype
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (tmp_path / "a.npz").stat().st_size < np.eye(50).nbytes / 4
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "a.npz", thing=np.array([{}]))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "τ ≥ ½")
    assert (tmp_path / "a").read_bytes() == "τ ≥ ½".encode()


def test_json_returns_what_was_written(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "write it again") == value
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": number})
    assert not list(tmp_path.iterdir())


def test_bad_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.json: no such file"):
        read_json(tmp_path / "missing.json", "write it again")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: not readable as JSON"):
        read_json(tmp_path / "bad.json", "write it again")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xfc"}')
    with pytest.raises(InputError, match=r"latin\.json: not readable as JSON"):
        read_json(tmp_path / "latin.json", "write it again")


def test_an_error_message_is_one_line() -> None:
    assert str(InputError("a\n  b\n\tc")) == "a b c"


def test_a_digest_is_that_of_the_bytes_and_a_missing_file_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"heart" * 1000)
    assert sha256(tmp_path / "a.bin") == hashlib.sha256(b"heart" * 1000).hexdigest()
    with pytest.raises(InputError, match="no such file"):
        sha256(tmp_path / "b.bin")
    with pytest.raises(InputError, match="not a regular file; give a file"):
        sha256(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_no_digest_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: not a regular file; give a file"):
        sha256(tmp_path / "pipe")

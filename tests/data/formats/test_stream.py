"""What is said of a file that cannot be read, and what is not said of one that can."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats import stream
from whqa.data.formats.volume_files import read_image, write_volume
from whqa.errors import InputError


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    # root may read everything
    monkeypatch.setattr(stream, "open", refused, raising=False)
    with pytest.raises(InputError, match=r"\(Permission denied\); let it be read: chmod u\+r '.*/my scan\.nii\.gz'$"):
        read_image(path)


def test_a_volume_like_one_of_nifti_2_is_written_without_a_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    like = nib.Nifti2Image(np.zeros((3, 4, 5), np.int16), np.diag([2.0, 2, 3, 1]))
    nib.save(like, tmp_path / "a.nii.gz")
    written = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    with caplog.at_level("INFO", logger="nibabel.global"):
        write_volume(tmp_path / "b.nii.gz", written, None, nib.load(tmp_path / "a.nii.gz").header)
        found = read_image(tmp_path / "b.nii.gz")
    assert caplog.records == []
    np.testing.assert_array_equal(found.array, written)
    np.testing.assert_array_equal(found.affine, like.affine)

"""What is said of a file that cannot be read."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats import stream
from whqa.data.formats.volume_files import read_image
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

"""Lines for the shell that messages advise: they work as they stand there, whatever the names of the files."""

from __future__ import annotations

import shlex
from pathlib import Path

from whqa.data.formats.file_names import stem


def python_line(code: str, *paths: Path, library: str = "nibabel as n") -> str:
    """A `python -c` line.

    Args:
        code: statements that find the paths in `sys.argv[1:]` and the library under its short name.
        paths: in the order of `sys.argv`.
        library: what is imported: "nibabel as n" or "SimpleITK as s".
    """
    return shlex.join(["python", "-c", f"import sys, {library}; {code}", *map(str, paths)])


def written_beside(path: Path, word: str) -> Path:
    """Name of the NIfTI file that such a line writes: beside `path`, with `word` in its name."""
    return path.with_name(f"{stem(path.name)}_{word}.nii.gz")

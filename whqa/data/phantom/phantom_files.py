"""A cohort of synthetic hearts on disk, in the MMWHS file layout."""

from __future__ import annotations

import gzip
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.data.case import Cohort, Modality
from whqa.data.phantom.synthesis import Phantom, check_phantom, make_phantom
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError
from whqa.files import atomic_path, read_json, write_json
from whqa.parallel.many import in_processes
from whqa.process import cpus

VERSION = 1
SETTINGS_FILE = "phantom.json"
_FIRST = 1001
MOST = 10_000
_FEWEST_A_PROCESS = 8


def write_phantoms(
    root: Path, n: int, modality: Literal["ct", "mr", "both"] = "ct", seed: int = 0, spacing_mm: float = 2.0
) -> None:
    """Write cases 0..n-1 that are missing in `root` as `ct_train_1001_image.nii.gz`, `..._label.nii.gz`, and so on.

    "both" alternates CT and MR. A settings file in the folder keeps cohorts of other settings out.

    Raises:
        InputError: the folder holds phantoms of other settings, or other files; or a bad argument.
    """
    root = Path(root)
    if root.is_file():
        raise InputError(f"{root}: is a file; phantoms need a folder of their own")
    if n > MOST:
        raise InputError(f"{n} phantoms: at most {MOST:,}; draw further ones by another seed into another folder")
    if seed < 0:
        raise InputError(f"phantom seed {seed}: must not be negative")
    wanted = _names(n, modality)
    for kind in {m for m, _, _ in wanted}:
        check_phantom(kind, spacing_mm)
    _guard(root, {"version": VERSION, "seed": int(seed), "spacing_mm": float(spacing_mm)})
    missing = [w for w in wanted if not all(_path(root, w[2], part).is_file() for part in ("image", "label"))]
    # the start of a process takes as long as a few phantoms
    jobs = max(1, min(cpus(), len(missing) // _FEWEST_A_PROCESS))
    written = in_processes(partial(_write_phantom, root, seed, spacing_mm), missing, jobs, "phantoms")
    for trouble in written:
        if isinstance(trouble, Exception):
            raise trouble


def _write_phantom(root: Path, seed: int, spacing_mm: float, wanted: tuple[Modality, int, str]) -> None:
    kind, index, name = wanted
    phantom = make_phantom(seed, index, kind, spacing_mm)
    _write(_path(root, name, "image"), phantom.image, phantom.affine)
    _write(_path(root, name, "label"), phantom.label, phantom.affine)


def phantom_of_case(case: str, seed: int = 0, spacing_mm: float = 2.0) -> Phantom:
    """The phantom behind a case of `phantom_cohort`, with the truth that its files do not tell.

    Args:
        case: id, such as "ct_train_1001".
        seed, spacing_mm: of the cohort.
    """
    modality, _, number = case.split("_")
    kind: Modality = "ct" if modality == "ct" else "mr"
    return make_phantom(seed, int(number) - _FIRST, kind, spacing_mm)


def _names(n: int, modality: str) -> list[tuple[Modality, int, str]]:
    if n < 1:
        raise InputError(f"phantom cohort of {n} cases: n must be at least 1")
    if modality not in ("ct", "mr", "both"):
        raise InputError(f"phantom modality {modality!r}: must be ct, mr or both")
    kinds: tuple[Modality, ...] = ("ct", "mr") if modality == "both" else ("ct",) if modality == "ct" else ("mr",)
    cases = [(kinds[i % len(kinds)], i // len(kinds)) for i in range(n)]
    return [(kind, index, f"{kind}_train_{_FIRST + index}") for kind, index in cases]


def _path(root: Path, name: str, part: str) -> Path:
    return root / f"{name}_{part}.nii.gz"


def _guard(root: Path, settings: dict[str, float]) -> None:
    file = root / SETTINGS_FILE
    if not file.exists():
        if any(root.glob("*.nii*")):
            raise InputError(f"{root}: holds images but no {SETTINGS_FILE}; choose an empty folder for the phantoms")
        write_json(file, settings)
    elif (found := read_json(file, f"choose another folder, or rm -r {shlex.quote(str(root))}")) != settings:
        raise InputError(f"{file}: made with {found}, asked for {settings}; choose another folder or remove this one")


def _write(path: Path, array: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        # mtime 0: the same settings give the same bytes
        temporary.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def phantom_cohort(
    root: Path | str,
    n: int,
    modality: Literal["ct", "mr", "both"] = "ct",
    seed: int = 0,
    spacing_mm: float = 2.0,
    name: str = "phantom",
) -> Cohort:
    """A cohort of made-up hearts, in MMWHS layout; files that are missing are written first.

    Args:
        root: folder for them alone, kept for later calls.
        n: number of cases; each takes some tenths of a second.
        modality: "ct", "mr", or "both" by turns.
        seed: of the cohort; another one makes other subjects.
        spacing_mm: edge of a voxel, 0.5 to 6.
        name: of the cohort.

    Raises:
        InputError: the folder holds phantoms of other settings, or other files; or a bad argument.
    """
    write_phantoms(Path(root), n, modality, seed, spacing_mm)
    wanted = {_path(Path(root), case, "image").name for _, _, case in _names(n, modality)}
    cohort = read_mmwhs(Path(root), None if modality == "both" else modality, name)
    return replace(cohort, cases=tuple(c for c in cohort.cases if c.image.name in wanted))

"""Why a mask's values are not those of its label map, and what helps: told once reading it has failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whqa.data.formats.volume_files import Grid, Volume, label_values, python_line, written_beside
from whqa.errors import InputError
from whqa.structures import SCHEMES, LabelScheme

_SHOWN, _MANY = 8, 300
_UNSCALED = (
    "i = n.load(sys.argv[1]); "
    "n.save(n.Nifti1Image(i.dataobj.get_unscaled(), i.affine, None, None, None, i.get_data_dtype()), sys.argv[2])"
)


def explained(error: InputError, image: Grid | Volume, mask: Grid | Volume, scheme: LabelScheme) -> InputError:
    """The cause of an error in reading a mask, where there is one behind it; else the error itself.

    Args:
        error: as it was raised.
        image: of the mask.
        mask: whose values could not be read.
        scheme: that its values should be of.
    """
    if _fits(image, scheme) and not _fits(mask, scheme):
        return InputError(f"{mask.path}: is no label map, but {image.path} is one; give the image first, then its mask")
    if isinstance(mask, Grid) and _fits(_as_stored(mask), scheme):
        slope, intercept = float(mask.header["scl_slope"]), float(mask.header["scl_inter"])
        line = python_line(_UNSCALED, mask.path, written_beside(mask.path, "unscaled"))
        return InputError(
            f"{mask.path}: is a label map as it is stored, but no more once its header has scaled it (slope {slope:g}, "
            f"intercept {intercept:g}); take the scaling out: {line}"
        )
    if error.code != "unknown-labels":
        return error
    values = label_values(mask).array
    found = [int(value) for value in np.unique(values) if value != 0]
    known = _known(scheme)
    strange = [value for value in found if value not in known]
    if len(found) > _MANY:
        return InputError(
            f"{mask.path}: has {len(found):,} different values, as an image has; give a label map", error.code
        )
    has = ", ".join(f"{key} {value}" for key, value in scheme.values.items())
    shown = ", ".join(map(str, strange[:_SHOWN]))
    more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
    return InputError(
        f"{mask.path}: unknown label value(s) {shown}{more}; the label map {scheme.name!r} "
        f"has {has}; {_remedy(found, strange, scheme)}",
        error.code,
    )


def _remedy(found: list[int], strange: list[int], scheme: LabelScheme) -> str:
    altered = "" if _has_half(scheme, set(found)) else _altered(set(found), scheme)
    if altered:
        return altered
    if len(strange) < len(found):
        pairs = [f"{key}={'+'.join(str(v) for v, k in _meaning(scheme).items() if k == key)}" for key in scheme.keys]
        ignored = "+".join(map(str, sorted({*scheme.ignored, *strange})))
        return f"if these are other organs, say so: --label-map {','.join(pairs)},ignore={ignored}"
    if len(found) == 1:
        return (
            "it marks one thing alone; give the label map of the heart's structures, or a folder with one file of each"
        )
    names = [s.name for s in SCHEMES.values() if set(scheme.keys) <= set(s.keys) and _is_likely(s, set(found))]
    if names:
        likely = f"its values are those of {' or '.join(names)}: --label-map {names[0]} if that is where it comes from"
        return f"{likely}; else {_pairs(found, scheme)}"
    return _pairs(found, scheme)


def _pairs(found: Sequence[int], scheme: LabelScheme) -> str:
    pairs = ",".join(f"{key}={value}" for key, value in zip(scheme.keys, found, strict=False))
    return f"say which value is which, such as --label-map {pairs}, in the right order"


def _altered(found: set[int], scheme: LabelScheme) -> str:
    """What helps where a program has added one number to all values, or has cut them to 8 bits; "" where none has."""
    values = _meaning(scheme)
    shifts = sorted({one - known for one in found for known in values} - {0}, key=abs)
    ways = {
        f"{abs(k)} {'added to' if k > 0 else 'taken from'} each": {v + k: key for v, key in values.items()}
        for k in shifts
    }
    cut = {value % 256: key for value, key in values.items()}
    ways["their higher bits cut off"] = cut if len(cut) == len(values) else {}
    for how, meaning in ways.items():
        there = {meaning[value] for value in found if value in meaning}
        if found <= meaning.keys() and 2 * len(there) >= len(scheme.keys):
            pairs = [f"{key}={'+'.join(str(v) for v, k in meaning.items() if k == key)}" for key in scheme.keys]
            return f"they are those of {scheme.name!r} with {how}; if so: --label-map {','.join(pairs)}"
    return ""


def _is_likely(scheme: LabelScheme, found: set[int]) -> bool:
    """Whether all values are of a scheme, and at least half of its structures among them."""
    return found <= _known(scheme) and _has_half(scheme, found)


def _has_half(scheme: LabelScheme, found: set[int]) -> bool:
    structures = set(scheme.values.values())
    return 2 * len(found & structures) >= len(structures)


def _fits(volume: Grid | Volume, scheme: LabelScheme) -> bool:
    """Whether a volume is a label map of the scheme."""
    try:
        return bool(scheme.to_indices(label_values(volume, scheme).array, str(volume.path)).any())
    except InputError:
        return False


def _as_stored(grid: Grid) -> Grid:
    header = grid.header.copy()
    header["scl_slope"], header["scl_inter"] = 1, 0
    return replace(grid, header=header)


def _meaning(scheme: LabelScheme) -> dict[int, str]:
    return {value: key for key, value in scheme.values.items()} | dict(scheme.aliases)


def _known(scheme: LabelScheme) -> set[int]:
    return {*_meaning(scheme), *scheme.ignored}

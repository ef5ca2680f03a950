"""What the values of a mask stand for: as the caller states it, as the file names them, or as in the run's cohort."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from whqa.data.formats.volume_files import Grid, LayeredLabels, Volume, label_names
from whqa.data.sources.names import APPENDAGE, HEART, ONE_HEART
from whqa.errors import InputError
from whqa.structures import GREAT_VESSELS, SCHEMES, STRUCTURES, LabelScheme, merged_scheme, structure_key

# What programs write where nobody gave a name.
_NO_NAME = re.compile(r"(segment|label|class|structure|region|roi|value|mask|object)?[\W_]*\d*", re.IGNORECASE)


def scheme_of_mask(
    place: Grid | Volume, stated: LabelScheme | None, of_run: LabelScheme
) -> tuple[LabelScheme, tuple[str, ...]]:
    """The scheme of a mask's values, and what is to be said about it, to stand behind the file's name.

    Args:
        place: header of the mask's file, or a mask in memory.
        stated: by the caller; None leaves it to the names in the file and to the run.
        of_run: values of the run's cohort.

    Raises:
        InputError: names in the file contradict the scheme, or name no chamber of the heart.
    """
    path = place.path
    if isinstance(place, LayeredLabels) and place.classes:
        return _of_classes(place, stated, of_run)
    names = dict(place.names) if isinstance(place, LayeredLabels) else {}
    names = names or (label_names(path) or {} if _may_name(place) else {})
    names = {value: name for value, name in names.items() if not _NO_NAME.fullmatch(name)}
    if not names:
        return stated or of_run, ()
    structures = {v: key for v, name in names.items() if (key := structure_key(name)) in STRUCTURES}
    usable = bool(set(structures.values()) - GREAT_VESSELS)
    if stated is not None:
        remedy = "leave --label-map out, then the names in the file are used" if usable else ""
        return stated, _checked(path, names, stated, remedy)
    if not usable and HEART in map(structure_key, names.values()):
        return _of_one_heart(names, structures)
    if not structures or not _contradictions(names, of_run, strict=True):
        notes = _checked(path, names, of_run, "")
        others = set(names) - set(structures) - of_run.ignored - set(_meaning(of_run))
        return replace(of_run, ignored=of_run.ignored | others), notes
    if not usable:
        first = ", ".join(f"{value} {name}" for value, name in [*names.items()][:4])
        raise InputError(
            f"{path}: names no chamber of the heart among its {len(names)} labels ({first}); {_why(names)}"
        )
    return _of_names(structures, names, of_run)


def _of_classes(
    place: LayeredLabels, stated: LabelScheme | None, of_run: LabelScheme
) -> tuple[LabelScheme, tuple[str, ...]]:
    """The scheme of one-hot layers: their numbers are the values of the label map, or stand in its order."""
    scheme = stated or of_run
    numbers = range(1, place.classes)
    if {*scheme.values.values(), *scheme.aliases} <= set(numbers):
        strays = set(numbers) - set(_meaning(scheme))
        return replace(scheme, ignored=scheme.ignored | strays if stated is None else scheme.ignored), ()
    pairs = ",".join(f"{key}={number}" for key, number in zip(scheme.keys, numbers, strict=False))
    if len(scheme.keys) != len(numbers):
        raise InputError(
            f"{place.path}: holds one layer for each of {place.classes} classes, background among them, and the label "
            f"map {scheme.name!r} has {len(scheme.keys)} structures; say which layer is which, counted from 0: "
            f"--label-map {pairs}"
        )
    in_order = LabelScheme(f"layers in the order of {scheme.name}", dict(zip(scheme.keys, numbers, strict=True)))
    note = (
        f"its {place.classes} layers were taken as background and {', '.join(scheme.keys)}, in this order of the label "
        f"map {scheme.name!r}; if they stand in another one, say so: --label-map {pairs}"
    )
    return in_order, (note,)


def _may_name(place: Grid | Volume) -> bool:
    """Whether there is room for names in the file, so that others need not be opened again."""
    if not isinstance(place, Grid):
        return False
    behind_header = int(place.header.sizeof_hdr) + 4
    return not place.path.name.lower().endswith((".nii", ".nii.gz")) or place.header["vox_offset"] > behind_header


def _of_names(
    structures: Mapping[int, str], names: Mapping[int, str], of_run: LabelScheme
) -> tuple[LabelScheme, tuple[str, ...]]:
    values: dict[str, list[int]] = {key: [] for key in of_run.keys}
    for value, key in structures.items():
        values.setdefault(key, []).append(value)
    found = ", ".join(f"{key} {'+'.join(map(str, v))}" for key, v in values.items() if v)
    notes = [f"its labels are read by the names in the file: {found}"]
    others = sorted(set(names) - set(structures))
    if others:
        notes[0] += f"; its other {len(others)} named label(s) count as background"
    lacking = [key for key, of_key in values.items() if not of_key]
    for new, key in enumerate(lacking, start=max(names) + 1):
        values[key] = [new]
    if lacking:
        drawn = ", ".join(f"{key} {values[key][0]}" for key in lacking)
        notes.append(f"it names no {', '.join(lacking)}; where the correction draws them they get {drawn}")
    return merged_scheme("the names in the file", {**values, "ignore": others}), tuple(notes)


def _of_one_heart(names: Mapping[int, str], structures: Mapping[int, str]) -> tuple[LabelScheme, tuple[str, ...]]:
    values: dict[str, list[int]] = {HEART: []}
    for value, name in sorted(names.items(), key=lambda item: structure_key(item[1]) != HEART):
        if structure_key(name) in (HEART, APPENDAGE):
            values[HEART].append(value)
        elif value in structures:
            values.setdefault(structures[value], []).append(value)
    found = ", ".join(f"{key} {'+'.join(map(str, of_key))}" for key, of_key in values.items())
    others = sorted(set(names) - {value for of_key in values.values() for value in of_key})
    note = f"its labels are read by the names in the file: {found}; its other {len(others)} count as background"
    return merged_scheme("the names in the file", {**values, "ignore": others}), (note,)


def _checked(path: Path, names: Mapping[int, str], scheme: LabelScheme, remedy: str) -> tuple[str, ...]:
    """Notes about names that the scheme does not bear out; refused where that is a contradiction."""
    known = scheme.name in SCHEMES
    wrong = _contradictions(names, scheme, strict=known)
    if wrong:
        value, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        told = _meaning(scheme).get(value)
        has = f"the label map {scheme.name!r} has {told or 'another organ'} for it"
        raise InputError(
            f"{path}: names its value {value} {names[value]!r}, {has}{more}; {remedy or _why(names, scheme)}"
        )
    odd = [v for v in _contradictions(names, scheme, strict=True) if v in _meaning(scheme)]
    return tuple(f"its value {v}, named {names[v]!r}, is {_meaning(scheme)[v]} by the label map" for v in odd)


def _contradictions(names: Mapping[int, str], scheme: LabelScheme, strict: bool) -> list[int]:
    """Values whose name is another structure than the scheme's; `strict`: or is none, or is none to the scheme."""
    meaning = _meaning(scheme)
    wrong = []
    for value, name in names.items():
        key, told = structure_key(name), meaning.get(value)
        both = key in STRUCTURES and told is not None
        either = told is not None or key in scheme.keys
        if key != told and (both or (strict and either)):
            wrong.append(value)
    return sorted(wrong, key=lambda value: value not in meaning)


def _meaning(scheme: LabelScheme) -> dict[int, str]:
    return {value: key for key, value in scheme.values.items()} | dict(scheme.aliases)


def _why(names: Mapping[int, str], scheme: LabelScheme | None = None) -> str:
    if HEART in (structure_key(name) for name in names.values()):
        return ONE_HEART
    if scheme is None:
        return "give a mask of the heart's chambers, or say which value is which: --label-map lv=1,rv=2"
    if _contradictions(names, scheme, strict=False):
        return "correct one of them"
    pairs = ",".join(f"{key}={value}" for key, value in scheme.values.items())
    return f"if the map is right although the names are not, state it in pairs: --label-map {pairs}"

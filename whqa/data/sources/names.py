"""What other data sets call the structures of the heart and their modality."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from whqa.data.case import Modality
from whqa.errors import InputError
from whqa.structures import SCHEMES, STRUCTURES, LabelScheme, merged_scheme, structure_key

HEART = "heart"
"""Key of the heart as one structure, which a mask may have in place of its chambers."""
APPENDAGE = "atrial_appendage_left"
"""Key of a part of the heart that TotalSegmentator's version 2 has beside it."""
CHAMBERS_INSTEAD = (
    "segment its chambers with TotalSegmentator -i IMAGE.nii.gz -o chambers --task heartchambers_highres, and give the "
    "folder chambers"
)
ONE_HEART = f"TotalSegmentator's task total of version 2 has the heart as one structure; {CHAMBERS_INSTEAD}"
_BACKGROUND = {"background", "bg", "none", "unlabelled", "unlabeled"}
_WORDS: dict[Modality, frozenset[str]] = {
    "ct": frozenset(("ct", "cta", "ccta", "cect", "ncct", "cbct")),
    "mr": frozenset(
        ("mr", "mri", "cmr", "cmri", "mra", "t1", "t1w", "t1ce", "t1gd", "t2", "t2w", "flair", "bssfp", "cine", "lge")
    ),
}


def modality_of(*texts: str) -> Modality | None:
    """The modality that words in a name tell, of the first text that tells one; None where none does."""
    for text in texts:
        plain = re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", text).lower()
        words = {*re.findall(r"[a-z]+", plain), *re.findall(r"[a-z]+\d[a-z]*", plain)}
        told: list[Modality] = [modality for modality, known in _WORDS.items() if words & known]
        if len(told) == 1:
            return told[0]
    return None


def scheme_of_names(
    name: str,
    labels: Mapping[str, int],
    structures: Mapping[str, Any] | None,
    where: str,
    remedy: str,
) -> LabelScheme:
    """The label scheme of a data set that names its label values.

    Args:
        name: of the scheme.
        labels: their name -> file value, background (0) among them or not.
        structures: their name -> our key, or None for an organ that counts as background; several names with one key
            are merged. Names that are not in it go by `structure_key`.
        where: the file that holds the labels, for messages.
        remedy: what to do about labels that cannot be understood, for messages.

    Returns:
        The scheme, in the order of the registered scheme with the same structures where there is one (so that indices
        are those of the data set's direct layout), else in the order of the values.

    Raises:
        InputError: nothing but background, two names for one structure, or `structures` names something unknown.
    """
    stated = _stated(structures, labels, where)
    values: dict[str, list[int]] = {}
    owner: dict[str, str] = {}
    for theirs, value in sorted(labels.items(), key=lambda item: item[1]):
        key = stated[theirs] if theirs in stated else structure_key(theirs)
        if value == 0 and key not in STRUCTURES:
            continue
        if not key or value == 0 or (key in _BACKGROUND | {"ignore"} and theirs not in stated):
            raise InputError(
                f"{where}: label {theirs[:80]!r} with value {value} cannot be that; correct it or {remedy}"
            )
        if key in owner and theirs not in stated and owner[key] not in stated:
            raise InputError(
                f"{where}: labels {owner[key][:80]!r} and {theirs[:80]!r} are both {key!r}; say what they are: {remedy}"
            )
        owner[key] = theirs
        values.setdefault(key, []).append(value)
    ignored = values.pop("ignore", [])
    if not values:
        raise InputError(f"{where}: labels name no structure but background")
    return merged_scheme(name, {key: values[key] for key in _known_order(values)} | {"ignore": ignored})


def _stated(structures: Mapping[str, Any] | None, labels: Mapping[str, int], where: str) -> dict[str, str]:
    if structures is not None and not isinstance(structures, Mapping):
        raise InputError(f"structures {structures!r}: must be pairs, such as {{left ventricle: lv, liver: null}}")
    stated = {}
    for theirs, key in (structures or {}).items():
        if str(theirs) not in labels:
            near = difflib.get_close_matches(str(theirs), labels, n=1)
            raise InputError(
                f"{where}: has no label {str(theirs)!r} that structures names; "
                + (
                    f"did you mean {near[0]!r}?"
                    if near
                    else f"there are {', '.join(name[:40] for name in list(labels)[:12])}"
                )
            )
        if not isinstance(key, str | None) or key == "":
            raise InputError(f"structures: {theirs}: {key!r} must be a structure such as lv, or null for background")
        stated[str(theirs)] = "ignore" if key is None else key
    return stated


def _known_order(values: Mapping[str, Any]) -> list[str]:
    for scheme in SCHEMES.values():
        if set(scheme.keys) == set(values):
            return list(scheme.keys)
    return list(values)

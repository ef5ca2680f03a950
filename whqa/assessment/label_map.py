"""What `--label-map` says: the label values of the program that made a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from whqa.data.sources.names import scheme_of_names
from whqa.errors import InputError
from whqa.structures import SCHEMES, STRUCTURES, LabelScheme, label_scheme, scheme_key, structure_key

_LARGEST_BYTES = 1 << 20
_FORMS = "lv=1,myo=2+5,ignore=7+8, a JSON or YAML file with such pairs, or nnU-Net's dataset.json"


def parse_label_map(text: str) -> LabelScheme:
    """A scheme by name, from a file, or from pairs: `lv=1,myo=2+5,ignore=7+8`.

    A file holds structure -> value(s), in JSON or YAML, or it is a data set's dataset.json, whose `labels` are used.
    Structures may have the names that TotalSegmentator or MMWHS give them (heart_ventricle_left).

    Raises:
        InputError: none of these.
    """
    if text in SCHEMES:
        return SCHEMES[text]
    if _is_file(text):
        return _of_file(Path(text))
    if "=" not in text:
        raise InputError(f"--label-map {text}: no file and no scheme of {', '.join(SCHEMES)}; or write {_FORMS}")
    pairs: dict[str, Any] = {}
    for part in text.split(","):
        name, _, values = (piece.strip() for piece in part.partition("="))
        key = scheme_key(name)
        if not key or key in pairs:
            raise InputError(f"--label-map {text}: {part!r} is no pair, or names {name!r} again; write {_FORMS}")
        pairs[key] = [_whole(value, text) for value in values.split("+")]
    return label_scheme(pairs)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        # pairs longer than a file's name can be
        return False


def _of_file(path: Path) -> LabelScheme:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes are no label map; write {_FORMS}")
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not readable as a label map ({reason}); write {_FORMS}") from None
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds no pairs of structure and value; write {_FORMS}")
    labels = content.get("labels")
    if isinstance(labels, Mapping):
        return _of_labels(labels, content.get("regions_class_order"), path)
    content = {name: value for name, value in content.items() if value != 0 or structure_key(str(name)) in STRUCTURES}
    try:
        return label_scheme(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _of_labels(labels: Mapping[Any, Any], order: Any, path: Path) -> LabelScheme:
    """The `labels` of a dataset.json. An ignore label, which no network predicts, counts as background.

    Where labels are regions of several values, the `regions_class_order` says which value nnU-Net writes for each.
    """
    named = _values_by_name(labels, path)
    named = _values_of_regions(named, order) or named
    pairs = _as_pairs(named)
    remedy = f"write the pairs: --label-map {pairs}"
    region = next((name for name, values in named.items() if len(values) > 1), None)
    if region is not None:
        known = any(scheme_key(name) in STRUCTURES for name in named)
        what = remedy if known else "say which value of the masks is which structure: --label-map lv=1,rv=2"
        raise InputError(f"{path}: label {region[:80]!r} is a region of several values, not a label value; {what}")
    single = {name: values[0] for name, values in named.items() if scheme_key(name) != "ignore"}
    scheme = scheme_of_names(path.stem, single, None, str(path), remedy)
    ignored = {value for name, values in named.items() if scheme_key(name) == "ignore" for value in values}
    return replace(scheme, ignored=scheme.ignored | ignored)


def _values_by_name(labels: Mapping[Any, Any], path: Path) -> dict[str, list[int]]:
    """Name -> values, also of a dataset.json of the Medical Decathlon, which has it the other way round."""
    if all(str(key).isdigit() for key in labels):
        labels = {str(name): int(str(value)) for value, name in labels.items()}
    listed = {str(name): value if isinstance(value, list) else [value] for name, value in labels.items()}
    wrong = next((n for n, values in listed.items() if not values or any(type(v) is not int for v in values)), None)
    if wrong is not None:
        raise InputError(f"{path}: label {wrong[:80]!r} has no whole number; write {_FORMS}")
    return listed


def _values_of_regions(named: Mapping[str, list[int]], order: Any) -> dict[str, list[int]] | None:
    """The one value of each region in nnU-Net's predictions, where that is the value that no smaller region has."""
    kept = {name: values for name, values in named.items() if values == [0] or scheme_key(name) == "ignore"}
    regions = {name: values for name, values in named.items() if name not in kept}
    if not isinstance(order, list) or len(order) != len(regions) or any(type(value) is not int for value in order):
        return None
    written = dict(zip(regions, order, strict=True))
    for name, value in written.items():
        having = sorted((len(values), other) for other, values in regions.items() if value in values)
        if not having or having[0] != (len(regions[name]), name):
            return None
    return kept | {name: [value] for name, value in written.items()}


def _as_pairs(named: Mapping[str, Sequence[int]]) -> str:
    """What the labels mean in the form of `--label-map`; a value in several regions belongs to the smallest one."""
    pairs: dict[str, list[int]] = {}
    taken: set[int] = {0}
    for name, values in sorted(named.items(), key=lambda item: len(item[1])):
        key = scheme_key(name) if scheme_key(name) in STRUCTURES else "ignore"
        pairs.setdefault(key, []).extend(value for value in values if value not in taken)
        taken.update(values)
    found = sorted((sorted(values), key) for key, values in pairs.items() if values)
    return ",".join(f"{key}={'+'.join(map(str, values))}" for values, key in found)


def _whole(value: str, text: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InputError(f"--label-map {text}: {value!r} is no whole number; write {_FORMS}") from None

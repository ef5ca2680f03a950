"""TypedDict -> JSON Schema (draft 2020-12): a contract is written once, as a type whose docstring explains every key.

    python -m whqa.contract            writes the schemas beside the types

Understood are what JSON knows: str, int, float, bool, None, Literal, unions, list[T], dict[str, T], TypedDict and
NotRequired. `Annotated[T, Keyword("minimum", 0)]` adds a keyword to the schema of T. A TypedDict allows no other keys
than its own, unless it is annotated with `OtherKeys`.
"""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_UNIONS = (Union, types.UnionType)
Schema = dict[str, Any]


@dataclass(frozen=True)
class Keyword:
    """`Annotated[T, Keyword(name, value)]`: a keyword of JSON Schema beside those that follow from T."""

    name: str
    value: Any


Ends = Annotated[list[float], Keyword("minItems", 2), Keyword("maxItems", 2)]
"""Lower and upper end of an interval."""
Share = Annotated[float, Keyword("minimum", 0), Keyword("maximum", 1)]
"""Between 0 and 1."""
Size = Annotated[float, Keyword("minimum", 0)]
"""Not negative."""


@dataclass(frozen=True)
class OtherKeys:
    """`Annotated[SomeTypedDict, OtherKeys(T)]`: beside its own keys it may hold any others, with values of type T."""

    values: Any


def json_schema(contract: type, title: str) -> Schema:
    """The schema of a TypedDict; the TypedDicts in it become `$defs` of their names.

    Args:
        contract: a TypedDict.
        title: of the schema, e.g. the name of the file that it describes.

    Raises:
        TypeError: a type that JSON does not know, or a key that the docstring does not explain.
    """
    definitions: dict[str, Schema] = {}
    root = _object(contract, None, definitions)
    return {"$schema": DRAFT, "title": title, **root, "$defs": dict(sorted(definitions.items()))}


def explained_keys(described: object, section: str = "Attributes") -> dict[str, str]:
    """Key -> its explanation in a section of the docstring of a class or function."""
    found: dict[str, str] = {}
    lines = (inspect.getdoc(described) or "").partition(f"{section}:\n")[2].partition("\n\n")[0].splitlines()
    names: list[str] = []
    for line in lines:
        start = re.fullmatch(r"    (\w+(?:, \w+)*): (.*)", line)
        names = start[1].split(", ") if start else names
        for name in names:
            found[name] = start[2] if start else f"{found[name]} {line.strip()}".strip()
    return found


def _object(contract: type, others: Any, definitions: dict[str, Schema]) -> Schema:
    hints, words = get_type_hints(contract, include_extras=True), explained_keys(contract)
    properties = {}
    for key, hint in hints.items():
        if key not in words:
            raise TypeError(f"{contract.__name__}: the docstring does not explain the key {key!r}")
        value = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
        properties[key] = {"description": words[key], **_schema(value, definitions)}
    return {
        "description": (inspect.getdoc(contract) or "").partition("\n\nAttributes:")[0].replace("\n", " "),
        "type": "object",
        "properties": properties,
        "required": [key for key, hint in hints.items() if get_origin(hint) is not NotRequired],
        "additionalProperties": False if others is None else _schema(others, definitions),
    }


def _schema(annotation: Any, definitions: dict[str, Schema], others: Any = None) -> Schema:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        extras = annotation.__metadata__
        others = next((extra.values for extra in extras if isinstance(extra, OtherKeys)), None)
        keywords = {extra.name: extra.value for extra in extras if isinstance(extra, Keyword)}
        return _schema(arguments[0], definitions, others) | keywords
    if is_typeddict(annotation):
        name = annotation.__name__
        if name not in definitions:
            # a place first, for types that hold themselves
            definitions[name] = {}
            definitions[name] = _object(annotation, others, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if annotation in _PLAIN:
        return {"type": _PLAIN[annotation]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in _UNIONS:
        parts = [_schema(part, definitions) for part in arguments]
        plain = [part["type"] for part in parts if part.keys() == {"type"}]
        return {"type": plain} if len(plain) == len(parts) else {"anyOf": parts}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    raise TypeError(f"{annotation}: JSON does not know this type")

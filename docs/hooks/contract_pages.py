"""What stands in the JSON files, from their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from page_table import code, plain, table

from whqa.contract.__main__ import CONTRACTS
from whqa.contract.json_schema import json_schema

CONTRACT_PAGES = {f"{file.partition('.')[0]}_json": file for file in CONTRACTS}
"""Name of the page -> file of the schema."""


def contract_page(name: str) -> str:
    """The page of one file of the contract."""
    file = CONTRACT_PAGES[name]
    title, contract = CONTRACTS[file]
    schema = json_schema(contract, title)
    lines = [
        f"# {name.replace('_json', '.json')}",
        "",
        f"Every key of {title}. `whqa/contract/{file}` says the same as JSON Schema.",
        "",
        *_object(schema),
    ]
    for definition, described in schema["$defs"].items():
        lines += [f"## {definition}", "", *_object(described)]
    return "\n".join(lines) + "\n"


def _object(schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"{plain(schema['description'])}\n"
    required = schema["required"]
    rows = [
        (code(key) + ("" if key in required else " (where it applies)"), _kind(value), value["description"])
        for key, value in schema["properties"].items()
    ]
    yield "\n".join(table(("key", "value", "meaning"), rows)) + "\n"
    if isinstance(schema["additionalProperties"], dict):
        yield f"Further keys have values of this kind: {_kind(schema['additionalProperties'])}.\n"


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = re.sub(".*/", "", schema["$ref"])
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if kinds == ["array"]:
        return f"list of {_kind(schema['items'])}"
    if kinds == ["object"]:
        return f"mapping to {_kind(schema['additionalProperties'])}"
    return " or ".join(kinds)

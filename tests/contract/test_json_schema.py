"""TypedDict -> JSON Schema, judged by another program's validator."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jsonschema
import pytest

from whqa.contract.__main__ import CONTRACTS
from whqa.contract.json_schema import Keyword, OtherKeys, json_schema


class Leaf(TypedDict):
    """A leaf.

    Attributes:
        colour: red or
            green.
        veins, width_mm: how many, and how wide.
    """

    colour: Literal["red", "green"] | None
    veins: int
    width_mm: NotRequired[float]


class Tree(TypedDict):
    """A tree of
    the garden.

    Attributes:
        name: of it.
        alive: or not.
        leaves: by place.
        ends: two numbers.
        birds: name -> weight.
        notes: anything.
    """

    name: str
    alive: bool
    leaves: list[Leaf]
    ends: Annotated[list[float], Keyword("minItems", 2), Keyword("maxItems", 2)]
    birds: Annotated[Birds, OtherKeys(float)]
    notes: dict[str, list[str] | None]


class Birds(TypedDict):
    """Of a tree.

    Attributes:
        nests: how many.
    """

    nests: int


TREE = {
    "name": "oak",
    "alive": True,
    "leaves": [{"colour": None, "veins": 3}, {"colour": "red", "veins": 2, "width_mm": 1}],
    "ends": [0, 1.5],
    "birds": {"nests": 1, "wren": 9.5},
    "notes": {"a": None, "b": ["c"]},
}


def _errors(value: Any) -> list[str]:
    schema = json_schema(Tree, "a tree")
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def test_what_fits_the_type_fits_the_schema():
    assert _errors(TREE) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": 3}, "$.name"),
        ({"alive": "yes"}, "$.alive"),
        ({"leaves": [{"colour": "blue", "veins": 1}]}, "$.leaves[0].colour"),
        ({"leaves": [{"colour": None}]}, "$.leaves[0]"),
        ({"leaves": [{"colour": None, "veins": 1.5}]}, "$.leaves[0].veins"),
        ({"ends": [1.0]}, "$.ends"),
        ({"birds": {"nests": 1, "wren": "light"}}, "$.birds.wren"),
        ({"birds": {"wren": 1.0}}, "$.birds"),
        ({"notes": {"a": [1]}}, "$.notes.a"),
        ({"unknown": 1}, "$"),
    ],
)
def test_what_does_not_fit_the_type_does_not_fit_the_schema(change, where):
    assert _errors(TREE | change) == [where]


def test_words_come_from_the_docstrings():
    schema = json_schema(Tree, "a tree")
    assert (schema["title"], schema["description"]) == ("a tree", "A tree of the garden.")
    leaf = schema["$defs"]["Leaf"]
    assert leaf["properties"]["colour"]["description"] == "red or green."
    assert leaf["properties"]["width_mm"]["description"] == leaf["properties"]["veins"]["description"]


def test_a_key_without_an_explanation_and_a_type_that_json_lacks_are_refused():
    class Silent(TypedDict):
        """Says nothing."""

        key: int

    class Strange(TypedDict):
        """Strange.

        Attributes:
            key: a set.
        """

        key: set[int]

    with pytest.raises(TypeError, match="does not explain the key 'key'"):
        json_schema(Silent, "silent")
    with pytest.raises(TypeError, match="JSON does not know"):
        json_schema(Strange, "strange")


@pytest.mark.parametrize("name", CONTRACTS)
def test_schemas_in_the_package_are_those_of_the_types(name):
    title, contract = CONTRACTS[name]
    stored = json.loads((files("whqa.contract") / name).read_text())
    assert stored == json_schema(contract, title), "run `python -m whqa.contract`"

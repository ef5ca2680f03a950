"""`python -m whqa.contract`: writes the JSON Schemas of the contract beside their types."""

from __future__ import annotations

from importlib.resources import as_file, files

from whqa.contract.comparison_json import ComparedAssessments
from whqa.contract.json_schema import json_schema
from whqa.contract.model_json import ModelJson
from whqa.contract.quality_json import QualityJson
from whqa.contract.summary_json import Summary
from whqa.contract.sweep_json import Sweep
from whqa.files import write_json

CONTRACTS: dict[str, tuple[str, type]] = {
    "comparison.schema.json": ("comparison.json of whqa", ComparedAssessments),
    "model.schema.json": ("configs/metadata.json of a model file of whqa", ModelJson),
    "quality.schema.json": ("quality.json of whqa", QualityJson),
    "summary.schema.json": ("summary.json of whqa", Summary),
    "sweep.schema.json": ("sweep.json of whqa", Sweep),
}
"""File of the schema -> (its title, the type that it is made of)."""

if __name__ == "__main__":
    for name, (title, contract) in CONTRACTS.items():
        with as_file(files("whqa.contract") / name) as path:
            write_json(path, json_schema(contract, title))
            print(path)

"""The card of a model file, and the same in a few lines for a terminal: what it was trained on, judges, and reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whqa.contract.entries import Entry
from whqa.contract.model_json import ModelJson
from whqa.contract.summary_json import Summary
from whqa.report.numbers import show_entry, show_interval, show_share
from whqa.results.summary_entry import view_title
from whqa.structures import STRUCTURES

_LIMITS = """\
- Research software, not a medical device: it must not guide care.
- The numbers hold for scans and masks like those that the run was trained on. `whqa assess` names what is unlike them
  (intensities, spacing, field of view, shapes) and then accepts no mask; it cannot name everything.
- Intervals and thresholds are chosen on the run's own masks of unseen cases. Of another scanner, population or program
  that makes masks they may promise too much: judge a few masks of which you know the truth first
  (`whqa assess ... --reference LABEL`).
- Structures other than those listed are not judged.
"""


def model_card(metadata: Mapping[str, Any], summary: Summary) -> str:
    """Markdown; `metadata` is `whqa.contract.model_json.ModelJson`, whose list of files may be missing."""
    facts = metadata["whqa"]
    lines = [
        f"# {metadata['name']}: {metadata['task'].lower()}",
        "",
        f"{metadata['description']} {metadata['intended_use']}",
        "",
        "    whqa assess scan.nii.gz mask.nii.gz --model FILE.whqa -o out",
        "    whqa info --model FILE.whqa",
        "",
        "## What it was trained on",
        "",
        *(f"- {line}" for line in _trained_on(facts)),
        "",
        "## What it judges",
        "",
        *(f"- {line}" for line in _judges(facts)),
        "",
        "| structure | value in a mask | Dice of the run's segmenters | intervals for Dice that hold |",
        "|---|---|---|---|",
        *(_structure(key, value, summary) for key, value in facts["judges"]["structures"].items()),
        "",
        "## Measured",
        "",
        "On masks of cases that the judging network had not seen; 95 % intervals by patient. Every number stands in",
        "`summary.json`, the table that they come from in `errormap/*/cases.csv`.",
        "",
        *_measured(facts["measured"]),
        "",
        "## Limits",
        "",
        _LIMITS,
        "## Licence",
        "",
        f"{facts['license']} (`LICENSE`)",
    ]
    return "\n".join(lines) + "\n"


def model_lines(metadata: ModelJson) -> str:
    """For a terminal."""
    facts = metadata["whqa"]
    lines = [f"model: {metadata['name']}, {metadata['changelog'][metadata['version']]}", "trained on:"]
    lines += [f"  {line}" for line in _trained_on(facts)]
    lines += ["judges:", *(f"  {line}" for line in _judges(facts))]
    values = (f"{key} {value}" for key, value in facts["judges"]["structures"].items())
    lines += [f"  structures, with their values in a mask: {', '.join(values)}"]
    for part, numbers in facts["measured"].items():
        lines.append(f"measured on unseen cases, {view_title(part)}:")
        lines += [f"  {words}: {_number(entry)}" for words, entry in numbers.items()]
    lines += [f"licence: {facts['license']}", f"use: {metadata['intended_use']}"]
    return "\n".join(lines)


def _trained_on(facts: Mapping[str, Any]) -> list[str]:
    on = facts["trained_on"]
    scans = ", ".join(f"{n} {modality.upper()}" for modality, n in on["modalities"].items())
    kinds = dict.fromkeys(kind.rstrip("0123456789") for kind in on["mask_kinds"])
    named = "as in the cohort" if facts["with_cases"] else "replaced by numbers"
    return [
        f"cohort {on['cohort']}: {on['cases']} scans ({scans}) of {on['patients']} patients; names of both {named}",
        f"{on['folds']} folds, mask plan {on['plan']}; tested on masks: {', '.join(kinds)}",
        f"whqa {facts['environment']['whqa']}, torch {facts['environment']['torch']}",
    ]


def _judges(facts: Mapping[str, Any]) -> list[str]:
    judges = facts["judges"]
    opinion = {None: "none", "segmenters": "of the segmenters in this file"}.get(
        judges["opinion"],
        f"the softmax of {judges['opinion']}, to be given with each mask (`whqa assess ... --probabilities PATH`)",
    )
    correction = "corrects masks and expects a Dice of each structure" if judges["head"] == "label" else "corrects none"
    box = "the whole scan" if judges["box_mm"] is None else f"a box of {_sizes(judges['box_mm'])} mm"
    return [
        f"masks of {' and '.join(name.upper() for name in judges['modalities'])} scans, in {box}",
        f"on a grid of {_sizes(judges['grid_mm'])} mm, by {len(judges['networks'])} networks together",
        f"{judges['head']} head: {correction}; second opinion: {opinion}",
    ]


def _sizes(values: list[float | None]) -> str:
    return " x ".join("(own)" if value is None else f"{value:g}" for value in values)


def _structure(key: str, value: int, summary: Summary) -> str:
    title = STRUCTURES[key].name if key in STRUCTURES else key
    dice = summary["segmentation"]["dice"]["per_structure"].get(key)
    held: Any = summary["intervals"].get("all", {})
    coverage = held.get(f"dice_{key}", {}).get("coverage", {}).get("mean")
    shown = "n/a" if dice is None else show_entry(dice, 3)
    return f"| {title} (`{key}`) | {value} | {shown} | {show_share(coverage)} |"


def _measured(measured: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    parts = list(measured)
    words = list(measured[parts[0]])
    return [
        f"| | {' | '.join(view_title(part) for part in parts)} |",
        f"|---|{'---|' * len(parts)}",
        *(f"| {_cell(word)} | {' | '.join(_number(measured[part][word]) for part in parts)} |" for word in words),
    ]


def _cell(words: str) -> str:
    return words.replace("|", r"\|")


def _number(entry: Entry) -> str:
    between = show_interval(entry["ci95"], 3)
    return show_entry(entry, 3) + (f" [{between}]" if between else "")

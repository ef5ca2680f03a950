"""What computed the numbers of a file: part of summary.json and of quality.json; what made a run: provenance.json."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Commit(TypedDict):
    """The commit of whqa's own code.

    Attributes:
        commit: hash; null where the code does not run from a git checkout.
        reason: why there is no hash.
        changed: whether tracked files differed from the commit.
    """

    commit: str | None
    reason: NotRequired[str]
    changed: NotRequired[bool]


class Environment(TypedDict):
    """Versions, device and code.

    Attributes:
        python, torch, pytorch_lightning, torchmetrics, whqa: versions; null where it is not installed as a package.
        torch_reason, pytorch_lightning_reason, torchmetrics_reason, whqa_reason: why there is no version.
        device: name of the GPU, or "cpu".
        platform: operating system and processor.
        git: commit of the code.
    """

    python: str
    torch: str | None
    torch_reason: NotRequired[str]
    pytorch_lightning: str | None
    pytorch_lightning_reason: NotRequired[str]
    torchmetrics: str | None
    torchmetrics_reason: NotRequired[str]
    whqa: str | None
    whqa_reason: NotRequired[str]
    device: str
    platform: str
    git: Commit


class Attempt(TypedDict):
    """One start of a run; a later one continues from the last checkpoint.

    Attributes:
        command: that makes the run again; null where it was not started by a command.
        environment: versions, device and code that it ran with.
    """

    command: str | None
    environment: Environment


class RunProvenance(TypedDict):
    """provenance.json of a run; its settings stand in config.yaml, the digest of each case's files in made_from.json.

    Attributes:
        seed: of folds, weights and everything that is drawn.
        cohort_sha256: one digest of all cases, their files and their folds; equal where they are.
        attempts: in their order; one that differs in nothing from that before it is not repeated.
    """

    seed: int
    cohort_sha256: str
    attempts: list[Attempt]


class OpinionSource(TypedDict):
    """Who gave the second opinion that the networks heard.

    Attributes:
        source: "segmenters" of the run, or "probabilities" of another program that were given with the mask.
        program: whose they are, as the run calls it; null for the run's segmenters.
        path: of the probabilities, as it was given; null for an array and for the run's segmenters.
        sha256: digest of the file; null for an array and for the run's segmenters.
    """

    source: Literal["segmenters", "probabilities"]
    program: str | None
    path: str | None
    sha256: str | None

"""configs/metadata.json of a model file (`whqa export`), key by key.

The outer keys are those of MONAI bundles, so that programs which know these find what they look for; what whqa itself
reads stands under `whqa`.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from whqa.contract.entries import Entry
from whqa.contract.provenance import Environment


class Member(TypedDict):
    """One member of the file.

    Attributes:
        bytes: its size, unpacked.
        sha256: digest of its bytes.
    """

    bytes: int
    sha256: str


class TrainedOn(TypedDict):
    """What the run was trained on.

    Attributes:
        cohort: its name.
        cases, patients: how many.
        modalities: modality -> how many cases.
        folds: how many the cross-validation had.
        plan: which segmenter's masks the error-map networks learned from.
        mask_kinds: of the masks that they were tested on.
    """

    cohort: str
    cases: int
    patients: int
    modalities: dict[str, int]
    folds: int
    plan: str
    mask_kinds: list[str]


class JudgedByModel(TypedDict):
    """What the model can judge.

    Attributes:
        modalities: of scans.
        structures: key -> value that it has in a mask, unless a label map says otherwise.
        grid_mm: voxel size along R, A, S on which the networks see a scan; null keeps that of the scan.
        box_mm: edges of the box that is judged, along R, A, S; null keeps the scan's.
        head: "label" predicts the right label too, from which expected Dice and correction follow; "binary" does not.
        opinion: whose second opinion the networks hear: "segmenters" in the file, the name of another program whose
            softmax must be given with each mask, or null.
        networks: the folds whose networks are in the file.
    """

    modalities: list[Literal["ct", "mr"]]
    structures: dict[str, int]
    grid_mm: list[float | None]
    box_mm: list[float | None] | None
    head: Literal["binary", "label"]
    opinion: str | None
    networks: list[int]


class ModelFacts(TypedDict):
    """What whqa reads.

    Attributes:
        format: version of the file's layout.
        run: name of the run's folder.
        trained_on: the cohort.
        judges: masks of what.
        measured: part of the masks, as in summary.json -> words -> number; the judging network had seen none of their
            cases.
        with_cases: whether names of cases and patients are the cohort's own; if not, they are numbered.
        license: first line of the file LICENSE.
        environment: what computed summary.json.
    """

    format: int
    run: str
    trained_on: TrainedOn
    judges: JudgedByModel
    measured: dict[str, dict[str, Entry]]
    with_cases: bool
    license: str
    environment: Environment


class DataFormat(TypedDict):
    """An input or output of the network, as MONAI bundles describe it.

    Attributes:
        type: always "image".
        format: what its values mean.
        num_channels: how many.
        spatial_shape: "*" stands for any number of voxels.
        dtype: of its values.
        value_range: lowest and highest value; empty where labels are meant.
        is_patch_data: whether it is a part of the scan.
        channel_def: channel -> meaning.
    """

    type: Literal["image"]
    format: str
    num_channels: int
    spatial_shape: list[str]
    dtype: str
    value_range: list[float]
    is_patch_data: bool
    channel_def: dict[str, str]


class DataFormats(TypedDict):
    """What goes in and comes out.

    Attributes:
        inputs: name -> format.
        outputs: name -> format.
    """

    inputs: dict[str, DataFormat]
    outputs: dict[str, DataFormat]


class ModelJson(TypedDict):
    """A model file: content of its configs/metadata.json.

    Attributes:
        name: of the run.
        version: of the file's layout, as three numbers.
        changelog: version -> what is new.
        monai_version, pytorch_version, numpy_version: of what wrote the file.
        required_packages_version: package -> version that reads the file.
        task: what the model does.
        description: the same in a sentence.
        intended_use: and what it must not be used for.
        data_source: name of the cohort.
        data_type: of its files.
        references: what the method comes from.
        network_data_format: inputs and outputs.
        whqa: what whqa reads.
        files: name of every other member -> size and digest.
    """

    name: str
    version: str
    changelog: dict[str, str]
    monai_version: str
    pytorch_version: str
    numpy_version: str
    required_packages_version: dict[str, str]
    task: str
    description: str
    intended_use: str
    data_source: str
    data_type: str
    references: list[str]
    network_data_format: DataFormats
    whqa: ModelFacts
    files: dict[str, Member]

"""The second opinion of another program, for a run that has no segmenters and learned with that program's softmax."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whqa.assessment.input_places import InputFile
from whqa.assessment.inputs import Inputs
from whqa.assessment.model import OpinionProgram, TrainedRun
from whqa.assessment.run_grid import CaseOnGrid
from whqa.data.formats.volume_files import ClassMaps, class_maps_in_memory, read_class_maps
from whqa.errors import InputError
from whqa.masks.external_opinion import agreement, labels_of_classes, log_probabilities, structures_of_classes
from whqa.masks.opinion import Opinion, decode

# Of a structure: a mask that has less in common with the opinion is not accepted.
_DOUBTED = 0.5


@dataclass(frozen=True, eq=False)
class ToldOpinion:
    """What a program says of a case.

    Attributes:
        program: as the run calls it.
        log_p: float32 (C + 1, D, H, W), on the run's grid.
        file: where it comes from; None for what was given as an array or stored in the run.
        doubts: sentences that forbid to accept the mask.
    """

    program: str
    log_p: Tensor
    file: InputFile | None = None
    doubts: tuple[str, ...] = ()


def check_told(run: TrainedRun, given: Any) -> None:
    """Whether the run needs probabilities and has them, or needs none and has none.

    Raises:
        InputError: neither.
    """
    program = run.opinion_program
    if program is not None and given is None:
        raise InputError(
            f"{run.path}: its networks learned with the probabilities of {program.name} as second opinion; give "
            "those of this scan: add --probabilities FILE (an argument of that name in Python), such as the .npz of "
            "nnUNetv2_predict --save_probabilities"
        )
    if program is None and given is not None:
        own = run.networks[0].module.hears_opinion
        why = "its own segmenters give the second opinion" if own else "its networks hear no second opinion"
        raise InputError(f"{run.path}: {why}; leave --probabilities out (an argument of that name in Python)")


def told_opinion(given: Any, inputs: Inputs, case: CaseOnGrid, run: TrainedRun) -> ToldOpinion | None:
    """What the run's program says of a scan; None where the run's own segmenters speak, or nobody.

    Args:
        given: a path, an `InputFile`, an array (class, z, y, x), or an opinion that the run stored.
        inputs: image and mask; the maps lie on the grid of the mask's file or of the image.
        case: the same on the run's grid.
        run: that judges.

    Raises:
        InputError: as `check_told`; or the file is bad or of another shape.
    """
    check_told(run, given)
    program = run.opinion_program
    if program is None:
        return None
    if isinstance(given, Opinion):
        return ToldOpinion(program.name, decode(torch.from_numpy(given.codes())))
    file = InputFile(Path(given)) if isinstance(given, str | Path) else given if isinstance(given, InputFile) else None
    grids = (inputs.mask_place, inputs.image)
    maps = class_maps_in_memory(given, grids) if file is None else read_class_maps(file.path, grids, run.spacing_rule)
    log_p, doubts = _on_run_grid(maps, inputs, case, run, program)
    return ToldOpinion(program.name, log_p, file, doubts)


def _on_run_grid(
    maps: ClassMaps, inputs: Inputs, case: CaseOnGrid, run: TrainedRun, program: OpinionProgram
) -> tuple[Tensor, tuple[str, ...]]:
    keys, n_classes = run.scheme.keys, run.scheme.n_classes
    remedy = f"the run learned with classes of that scheme; give the probabilities of the same {program.name}"
    structures = structures_of_classes(maps, program.scheme, keys, remedy)
    shares = agreement(labels_of_classes(maps, structures, inputs.image), inputs.mask.array, n_classes)
    log_p = log_probabilities(maps, structures, n_classes, inputs.image, case.geometry)
    strange = {key: share for key, share in zip(keys, shares[1:], strict=True) if share < _DOUBTED}
    if not strange:
        return log_p, ()
    told = ", ".join(f"{key} {100 * share:.0f} %" for key, share in strange.items())
    return log_p, (
        f"The mask has little in common with the most probable labels of {maps.path.name} ({told}): one of both is "
        "wrong there, or the probabilities are of another scan, or their axes or classes stand in another order.",
    )

"""Everything that can be said about a cohort before it is used, each file's voxels read once.

    report = check_cohort(cohort, jobs=4)
    report.cases, report.findings

A bad file is a finding like any other and does not stop the rest. What is looked for stands in `whqa.data.findings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from whqa.data.alignment import check_lattice
from whqa.data.case import Case, Cohort, Modality
from whqa.data.findings.anatomy import label_findings, measure
from whqa.data.findings.duplicates import Fingerprint, duplicate_findings, fingerprint
from whqa.data.findings.finding import Finding
from whqa.data.findings.grid import grid_findings, oblique_degrees, orientation, place_findings, stack_axis
from whqa.data.findings.intensity import blood_findings, intensity_findings
from whqa.data.findings.neighbours import neighbour_findings
from whqa.data.findings.patients import patient_findings
from whqa.data.findings.sides import Stack, flips, odd_stacks, says_nothing, stack_of
from whqa.data.formats.volume_files import Grid, Volume, read_grid, read_image, voxel_sizes
from whqa.data.reading import read_reference
from whqa.errors import InputError
from whqa.parallel.many import in_processes
from whqa.structures import VENTRICLES

_UNUSED = "belongs to no case, so it is not read; give it and its partner names of the layout, or move it away"
_ANY_VALUE = range(-1024, 1 << 15)


@dataclass
class CheckedCase:
    """A case with what was found in its files; what could not be read is None or empty.

    Attributes:
        case: the case.
        shape: of the image.
        spacing_mm: along the axes of the array, after the spacing rule.
        orientation: where the array axes point, e.g. "LPS".
        oblique_degrees: the largest angle between an array axis and the body axis next to it.
        volumes_ml: of the structures that the label map holds.
        findings: of this case alone.
        image: fingerprint of the voxels.
        stack: how the ventricles lie, for short-axis stacks without a position in the body.
    """

    case: Case
    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    orientation: str | None = None
    oblique_degrees: float | None = None
    volumes_ml: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    image: Fingerprint | None = None
    stack: Stack | None = None

    @property
    def modality(self) -> Modality:
        """As the cohort states it."""
        return self.case.modality


@dataclass(frozen=True)
class CohortReport:
    """The cases in the cohort's order, and all findings: those of the folder, then case by case."""

    cohort: Cohort
    cases: tuple[CheckedCase, ...]
    findings: tuple[Finding, ...]


def check_cohort(cohort: Cohort, jobs: int | None = None) -> CohortReport:
    """Look at every file of a cohort.

    Args:
        cohort: as its reader gives it; it may have problems.
        jobs: processes side by side; None takes all CPUs.

    Raises:
        InputError: `jobs` below 1. Bad files are findings.
    """
    alone = [cohort.only(case) for case in cohort.cases]
    outcomes = in_processes(check_case, alone, jobs, f"checking {cohort.name}")
    cases = []
    for case, outcome in zip(cohort.cases, outcomes, strict=True):
        if isinstance(outcome, Exception):
            outcome = CheckedCase(case, findings=[Finding.of_error(outcome, case.id)])
        cases.append(outcome)
    together = _between_cases(cases)
    findings = [Finding("error", "layout", problem) for problem in cohort.problems]
    findings += [Finding("warning", "unused-file", f"{path}: {_UNUSED}") for path in cohort.unused]
    findings += patient_findings(cohort)
    for checked in cases:
        findings += [*checked.findings, *together.get(checked.case.id, ())]
    return CohortReport(cohort, tuple(cases), tuple(findings))


def check_case(cohort: Cohort) -> CheckedCase:
    """Look at the files of a cohort's only case."""
    (case,) = cohort.cases
    checked = CheckedCase(case)
    checked.findings = [replace(finding, case=case.id) for finding in _findings(cohort, checked)]
    return checked


def _between_cases(cases: list[CheckedCase]) -> dict[str, list[Finding]]:
    """Findings that only a look at the others can give: case -> findings."""
    odd = odd_stacks({c.case.id: c.stack for c in cases if c.stack is not None})
    found = {case: [replace(finding, case=case) for finding in findings] for case, findings in odd.items()}
    prints = [(c.case.id, c.case.patient, c.image) for c in cases if c.image is not None]
    for finding in duplicate_findings(prints):
        found.setdefault(str(finding.case), []).append(finding)
    return found


def _findings(cohort: Cohort, checked: CheckedCase) -> Iterator[Finding]:
    """The findings of one case; what is measured on the way is kept in `checked`."""
    case = checked.case
    grids: list[Grid | None] = []
    for path in case.files:
        try:
            grids.append(read_grid(path, cohort.spacing_rule))
        except InputError as error:
            grids.append(None)
            yield Finding.of_error(error, case.id)
    for grid in filter(None, grids):
        if grid.conflict:
            message = f"{grid.path}: {grid.conflict}; {cohort.spacing_rule} is used, data.spacing_rule= chooses"
            yield Finding("warning", "header-conflict", message)
        yield from place_findings(grid, str(grid.path), "export the scan again from DICOM")
    image: Volume | None = None
    if grids[0] is not None:
        _describe(checked, grids[0])
        yield from grid_findings(grids[0].shape, grids[0].affine, not set(cohort.scheme.keys) <= VENTRICLES)
        try:
            image = read_image(case.image, cohort.spacing_rule, announce=False)
        except InputError as error:
            yield Finding.of_error(error, case.id)
    if image is not None:
        checked.image = fingerprint(image.array)
        yield from intensity_findings(image.array, case.modality)
    if not case.has_label:
        yield Finding("note", "unlabelled", "no label map: fit for prediction, not for training or evaluation")
    elif all(grids[1:]):
        yield from _reference_findings(cohort, checked, image, grids)


def _describe(checked: CheckedCase, grid: Grid) -> None:
    checked.shape = grid.shape
    checked.spacing_mm = tuple(float(s) for s in voxel_sizes(grid.affine))
    checked.orientation = orientation(grid.affine)
    checked.oblique_degrees = oblique_degrees(grid.affine)


def _reference_findings(
    cohort: Cohort, checked: CheckedCase, image: Volume | None, grids: list[Grid | None]
) -> Iterator[Finding]:
    image_grid, own = grids[0], grids[1]
    assert own is not None
    fits = image_grid is not None
    if image_grid is not None:
        try:
            check_lattice(image_grid, own)
        except InputError as error:
            fits = False
            yield Finding.of_error(error, checked.case.id)
    reference, place = None, image_grid if image_grid is not None and fits else own
    try:
        reference = read_reference(cohort, checked.case, place)
    except InputError as error:
        yield Finding.of_error(error, checked.case.id)
        if error.code == "unknown-labels":
            reference = _without_strays(cohort, checked.case, place)
            if reference is not None and not reference.array.any():
                # of a label map of unknown values alone, nothing more is known
                return
    if reference is None:
        return
    for note in reference.notes[len(own.notes) :]:
        yield Finding("warning", "label-mended", f"{reference.path}: {note}")
    keys = cohort.scheme.keys
    stack = stack_axis(reference.affine)
    measured = measure(reference.array, reference.affine, keys, stack)
    checked.volumes_ml = {key: structure.volume_ml for key, structure in measured.items()}
    yield from label_findings(measured, keys)
    if stack is None:
        yield from neighbour_findings(reference.array, reference.affine, keys, measured)
    centroids = {key: structure.centroid for key, structure in measured.items()}
    if stack is not None and says_nothing(reference.affine, stack, tuple(measured)):
        checked.stack = stack_of(reference.array, reference.affine, keys, centroids, stack)
        message = (
            "short-axis slices with an affine along the axes: the header does not say how the patient lies; left and "
            "right are compared within the cohort only, so trust no anatomical direction"
        )
        yield Finding("note", "short-axis-stack", message)
    else:
        yield from flips(centroids)
    if image is not None and fits and checked.modality == "ct":
        yield from blood_findings(image.array, reference.array, keys)


def _without_strays(cohort: Cohort, case: Case, place: Grid) -> Volume | None:
    """The label map with unknown values as background: what else is wrong should not wait for the next run."""
    scheme = cohort.scheme
    known = {0, *scheme.values.values(), *scheme.aliases}
    lenient = replace(scheme, ignored=frozenset(_ANY_VALUE) - known)
    try:
        return read_reference(replace(cohort, scheme=lenient), case, place)
    except InputError:
        return None

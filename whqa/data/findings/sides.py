"""Left and right, front and back, up and down: what the anatomy says about the way a scan lies.

Two questions, since an affine may be wrong or say nothing:

**Against the body** (`flips`), where the affine claims to know it: centroids in RAS mm. The right atrium lies to the
right of the left chambers and the right ventricle to the right of the left one; both ventricles and the right atrium
lie in front of the left atrium, and the right ventricle in front of the right atrium; the left atrium and the
pulmonary artery lie above the left ventricle, and the pulmonary artery above the left atrium (any atlas, e.g. Netter,
Atlas of Human Anatomy). A mirrored axis turns all of its pairs round, so the mean of its pairs is judged; one pair
alone, far the wrong way, is the mark of label values that are exchanged. The aorta is left out: where its descending
part is drawn, its centroid says nothing.

**Against each other** (`odd_stacks`), for short-axis stacks. Their planes are oblique in the body, so an affine that
runs along the axes (ACDC) does not know the patient, and no test against the body is sound. But the stacks of a cohort
are mostly stored alike: the direction from left to right ventricle within the slices, and the end of the stack at which
the right ventricle is wide (the base), tell a mirrored, turned or reversed one from the rest. A mirror image across the
plane through both ventricles cannot be seen in this way. Of the 99 cases of ACDC (Bernard et al. 2018), each spoilt
alone among the others, 99 are found when mirrored right to left, 98 when turned by 180 degrees, 99 when reversed, and
none when mirrored front to back; unspoilt, none is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whqa.data.findings.finding import Finding

Vector = npt.NDArray[np.float64]

# axis of RAS, the two sides as people name them, and pairs of structures: the first lies further along the axis.
_PAIRS: tuple[tuple[int, str, str, tuple[tuple[str, str], ...]], ...] = (
    (0, "left-right", "to the right of", (("ra", "la"), ("ra", "lv"), ("rv", "lv"))),
    (1, "front-back", "in front of", (("rv", "la"), ("lv", "la"), ("ra", "la"), ("rv", "lv"), ("rv", "ra"))),
    (2, "up-down", "above", (("la", "lv"), ("pa", "lv"), ("pa", "rv"), ("pa", "la"))),
)
_MARGIN_MM = 5.0
# Of a single pair: no heart is that odd, as long as the other pairs are right.
_FAR_MM = 15.0
_DEXTROCARDIA = " (dextrocardia looks the same)"
_ATRIA = {"la", "ra"}
_ALONG_AXES = 1e-3
# Cohorts of short-axis stacks: how alike the others must be before one of them can be odd.
_MIN_STACKS, _MIN_RESULTANT, _ODD_DEGREES = 5, 0.7, 100.0
_MIN_SAME_BASE, _MIN_BASE_SHIFT = 0.8, 0.1


@dataclass(frozen=True)
class Stack:
    """How the ventricles lie in a short-axis stack.

    Attributes:
        axis: of the world (0 R, 1 A, 2 S) that the slices are stacked along, by the affine.
        to_rv: (2,) unit vector within the slices from left to right ventricle, along the other two world axes.
        base: in [-1, 1], above 0 where the right ventricle has more of its voxels in the upper half of the stack.
    """

    axis: int
    to_rv: tuple[float, float]
    base: float


def says_nothing(affine: Vector, stack: int | None, keys: Sequence[str]) -> bool:
    """Whether the affine cannot know how the patient lies: thick slices without atria, exactly along the axes.

    Args:
        affine: voxel -> RAS mm.
        stack: axis of the array along which thick slices are stacked, or None.
        keys: structures that are present.
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along_axes = bool((np.abs(columns).max(axis=0) > 1 - _ALONG_AXES).all())
    return stack is not None and along_axes and not _ATRIA & set(keys)


def flips(centroids: Mapping[str, Vector]) -> Iterator[Finding]:
    """Axes of the body along which the structures lie the wrong way round.

    Args:
        centroids: structure -> (3,) RAS mm.
    """
    for axis, sides, relation, pairs in _PAIRS:
        present = [(a, b) for a, b in pairs if a in centroids and b in centroids]
        distances = [float(centroids[a][axis] - centroids[b][axis]) for a, b in present]
        yield from _exchanged(present, distances, relation)
        if distances and np.mean(distances) < -_MARGIN_MM:
            a, b = present[int(np.argmin(distances))]
            yield Finding(
                "warning",
                f"flip-{sides}",
                f"{a} should lie {relation} {b} but lies {-min(distances):.0f} mm on the other side: is it mirrored or "
                f"turned {sides}? Check the affine against the scanner's images{_DEXTROCARDIA if axis == 0 else ''}",
            )


def _exchanged(pairs: Sequence[tuple[str, str]], distances: Sequence[float], relation: str) -> Iterator[Finding]:
    """Pairs of an axis of which some lie the right way round, but one far the wrong way."""
    wrong = int(np.argmin(distances)) if distances else 0
    if distances and np.mean(distances) >= -_MARGIN_MM and distances[wrong] < -_FAR_MM:
        a, b = pairs[wrong]
        message = f"{a} should lie {relation} {b} but lies {-distances[wrong]:.0f} mm on the other side"
        yield Finding("warning", "exchanged-labels", f"{message}; are label values exchanged?")


def stack_of(
    indices: npt.NDArray[np.uint8], affine: Vector, keys: Sequence[str], centroids: Mapping[str, Vector], stack: int
) -> Stack | None:
    """How the ventricles lie in a short-axis stack; None where one is missing or both lie in one place.

    Args:
        indices: (X, Y, Z) of the label map, 0 background, 1..C.
        affine: voxel -> RAS mm.
        keys: structure of each index from 1 on.
        centroids: structure -> (3,) RAS mm.
        stack: axis of the array along which the slices are stacked.
    """
    if "lv" not in centroids or "rv" not in centroids:
        return None
    world = int(np.abs(affine[:3, stack]).argmax())
    within = np.delete(centroids["rv"] - centroids["lv"], world)
    length = float(np.linalg.norm(within))
    if length < _MARGIN_MM:
        return None
    others = tuple(axis for axis in range(3) if axis != stack)
    drawn = np.flatnonzero((indices != 0).any(axis=others))
    areas = (indices == keys.index("rv") + 1).sum(axis=others)[drawn[0] : drawn[-1] + 1]
    half = areas.size // 2
    shift = float(areas[-half:].sum() - areas[:half].sum()) / float(areas.sum()) if half else 0.0
    direction = 1.0 if affine[world, stack] > 0 else -1.0
    return Stack(world, (float(within[0]) / length, float(within[1]) / length), direction * shift)


def odd_stacks(stacks: Mapping[str, Stack]) -> dict[str, list[Finding]]:
    """Cases whose stack lies another way than most of the cohort's: case -> findings.

    Args:
        stacks: case -> its stack; fewer than five, or stacks that are not alike, say nothing.
    """
    odd: dict[str, list[Finding]] = {}
    for axis in range(3):
        alike = {case: stack for case, stack in stacks.items() if stack.axis == axis}
        if len(alike) >= _MIN_STACKS:
            for case, finding in [*_turned(alike), *_reversed(alike)]:
                odd.setdefault(case, []).append(finding)
    return odd


def _turned(stacks: Mapping[str, Stack]) -> Iterator[tuple[str, Finding]]:
    total = np.sum([stack.to_rv for stack in stacks.values()], axis=0)
    for case, stack in stacks.items():
        mean = (total - stack.to_rv) / (len(stacks) - 1)
        resultant = float(np.linalg.norm(mean))
        if resultant < _MIN_RESULTANT:
            continue
        angle = float(np.degrees(np.arccos(np.clip(np.dot(stack.to_rv, mean) / resultant, -1, 1))))
        if angle > _ODD_DEGREES:
            message = (
                f"the right ventricle lies {angle:.0f} degrees away from where most of the cohort has it: mirrored or "
                "turned within the slices? Compare a preview with the others"
            )
            yield case, Finding("warning", "flip-in-cohort", message)


def _reversed(stacks: Mapping[str, Stack]) -> Iterator[tuple[str, Finding]]:
    n_up = sum(stack.base > 0 for stack in stacks.values())
    for case, stack in stacks.items():
        share = (n_up - (stack.base > 0)) / (len(stacks) - 1)
        most = 1 if share >= _MIN_SAME_BASE else -1 if share <= 1 - _MIN_SAME_BASE else 0
        if stack.base * most < -_MIN_BASE_SHIFT:
            message = (
                "base and apex are at other ends of the stack than in most of the cohort: are the slices in reversed "
                "order? Compare a preview with the others"
            )
            yield case, Finding("warning", "slice-order", message)

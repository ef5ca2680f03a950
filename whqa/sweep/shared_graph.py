"""The runs of all points of a sweep as one graph, in which a segmenter that several points need is trained once.

Who trains it is a matter of what is there: the point that has it complete, else the one that has begun it, else the
first. The others find it in their own directories when their error-map networks start, see `whqa.masks.sharing`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from whqa.config.schema import Stage
from whqa.cv import runs_of
from whqa.masks.plan import MaskPlan
from whqa.masks.run_state import has_begun
from whqa.stages.schedule import Run
from whqa.sweep.sweep_plan import Point, segmenter_settings

SegmenterKey = tuple[str, tuple[int, ...], tuple[int, ...]]


def shared_graph(points: Sequence[Point], jobs: int | None, trained_here: bool = True) -> list[Run]:
    """All runs, a shared segmenter once.

    Args:
        points: of a sweep.
        jobs, trained_here: see `whqa.cv.runs_of`.

    Raises:
        InputError: see `whqa.cv.runs_of`.
    """
    # seconds of torch, which a wrong word never costs
    from whqa.stages.from_config import refuse_unmakeable

    # before the first one leaves a file
    for point in points:
        refuse_unmakeable(point.config, trained_here)
    of_points = {point.name: [_named(run, point) for run in _runs(point, jobs, trained_here)] for point in points}
    keys = {run.name: key for point in points for run, key in _segmenters(point, of_points[point.name])}
    trained_by = _trained_by([run for runs in of_points.values() for run in runs if run.name in keys], keys)
    return [
        _waiting_for_shared(run, runs, trained_by, keys)
        for runs in of_points.values()
        for run in runs
        if run.name not in keys or trained_by[keys[run.name]].name == run.name
    ]


def _runs(point: Point, jobs: int | None, trained_here: bool) -> list[Run]:
    return runs_of(point.config, point.directory, point.words, jobs, trained_here)


def _named(run: Run, point: Point) -> Run:
    return replace(run, of=point.name, needs=frozenset(f"{point.name}/{need}" for need in run.needs))


def _segmenters(point: Point, runs: Sequence[Run]) -> list[tuple[Run, SegmenterKey]]:
    """Those of a point with what they are: equal keys, equal weights and masks."""
    settings, plan = segmenter_settings(point), MaskPlan(point.config.masks.plan, point.config.folds)
    jobs = {job.name: job for job in plan.segmenters}
    return [
        (run, (settings, jobs[run.fold].held_out, jobs[run.fold].masks_of))
        for run in runs
        if run.stage == Stage.segmenter
    ]


def _trained_by(runs: Sequence[Run], keys: Mapping[str, SegmenterKey]) -> dict[SegmenterKey, Run]:
    groups: dict[SegmenterKey, list[Run]] = defaultdict(list)
    for run in runs:
        groups[keys[run.name]].append(run)
    return {
        key: min(group, key=lambda run: (not run.complete, not has_begun(run.directory)))
        for key, group in groups.items()
    }


def _waiting_for_shared(
    run: Run, own: Sequence[Run], trained_by: Mapping[SegmenterKey, Run], keys: Mapping[str, SegmenterKey]
) -> Run:
    """The same run, which waits for those who train its segmenters and finds these in its own experiment."""
    needed = {one.name: one for one in own if one.name in run.needs}
    by = {name: trained_by[keys[name]] for name in needed}
    shares = tuple((by[name].directory, needed[name].directory) for name in sorted(needed) if by[name].name != name)
    return replace(run, needs=frozenset(one.name for one in by.values()), shares=shares)

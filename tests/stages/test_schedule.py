"""How many runs are at work side by side, from the graph, the cores and the memory alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import whqa.process
import whqa.stages.schedule
from whqa.masks.plan import MaskPlan
from whqa.process import memory_gib
from whqa.stages.schedule import GIB_A_RUN, Run, expected_time, jobs_by_default

Machine = Callable[[int, float], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    def set_up(cores: int, gib: float) -> None:
        monkeypatch.setattr(whqa.stages.schedule, "cpus", lambda: cores)
        monkeypatch.setattr(whqa.stages.schedule, "memory_gib", lambda: gib)

    return set_up


def runs_of(plan: MaskPlan) -> list[Run]:
    graph = [(*name.split("/"), needs) for name, needs in plan.graph().items()]
    return [Run(stage, fold, Path(stage, fold), 10.0, needs) for stage, fold, needs in graph]


@pytest.mark.parametrize(
    ("plan", "cores", "jobs"),
    [
        (MaskPlan("out_of_fold", 3), 2, 3),
        (MaskPlan("out_of_fold", 4), 2, 2),
        (MaskPlan("out_of_fold", 5), 2, 3),
        (MaskPlan("out_of_fold", 5), 4, 5),
        (MaskPlan("out_of_fold", 4), 4, 4),
        (MaskPlan("out_of_fold", 3), 1, 1),
        (MaskPlan("out_of_fold", 5), 64, 4),
    ],
)
def test_one_run_a_core_or_one_more_where_that_leaves_none_idle(
    machine: Machine, plan: MaskPlan, cores: int, jobs: int
) -> None:
    machine(cores, 1000.0)
    assert jobs_by_default(runs_of(plan), "cpu") == jobs
    assert jobs_by_default(runs_of(plan), None) == jobs
    assert [jobs_by_default(runs_of(plan), "gpu", groups) for groups in (0, 1, 4)] == [1, 1, 4]


def test_one_more_than_cores_needs_the_memory_for_it(machine: Machine) -> None:
    runs = runs_of(MaskPlan("out_of_fold", 3))
    machine(2, 3 * GIB_A_RUN)
    assert jobs_by_default(runs, "cpu") == 3
    machine(2, 3 * GIB_A_RUN - 0.1)
    assert jobs_by_default(runs, "cpu") == 2


@pytest.mark.parametrize("n_folds", range(2, 7))
@pytest.mark.parametrize("cores", [1, 2, 3, 4])
def test_no_number_of_runs_beats_the_cores(n_folds: int, cores: int) -> None:
    runs = runs_of(MaskPlan("out_of_fold", n_folds))
    least = sum(run.work for run in runs) / cores
    times = [expected_time(runs, jobs, cores) for jobs in range(1, n_folds + 2)]
    assert min(times) >= least - 1e-9
    # all of a stage at once share the cores to the end
    if n_folds >= cores:
        assert times[-1] == pytest.approx(least)
    assert expected_time(runs, 1, 1) == pytest.approx(sum(run.work for run in runs))


def test_a_second_stage_waits_for_the_first() -> None:
    runs = [Run("segmenter", "0", Path("a"), 2.0), Run("errormap", "0", Path("b"), 3.0, frozenset({"segmenter/0"}))]
    assert expected_time(runs, 2, 2) == expected_time(runs, 1, 2) < expected_time(runs, 2, 1) == pytest.approx(5.0)


def test_memory_is_what_the_machine_has_or_its_container_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(whqa.process, "_CGROUP_LIMIT", limit)
    bare = memory_gib()
    limit.write_text("max\n")
    assert memory_gib() == bare
    limit.write_text(f"{2**28}\n")
    assert memory_gib() == 0.25

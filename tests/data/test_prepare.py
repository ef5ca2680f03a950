"""`whqa data prepare`: several processes, interrupted and killed at any point, with bad and with changed files."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.cli.commands import main
from whqa.data.cache import Cache, CropWarning
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError

N = 6
PATIENCE = 240  # seconds, until a test gives up on what should come soon
# Processes started by multiprocessing import the script that started the first one, so its rules hold in all of them:
# a case is made as soon as MEET processes are at work, only FREE ones are made at all, DEADLY ones kill their maker.
HELD = """
import os, sys, time
from pathlib import Path
from whqa.data import cache
honest = cache.read_case
workers = Path(__file__).with_name("workers")
def held(cohort, case, **options):
    if case.id == DEADLY:
        os.kill(os.getpid(), 9)
    workers.mkdir(exist_ok=True)
    (workers / str(os.getpid())).touch()
    while len(list(workers.iterdir())) < MEET or (FREE and case.id not in FREE):
        time.sleep(0.01)
    return honest(cohort, case, **options)
cache.read_case = held
if __name__ == "__main__":
    from whqa.cli.commands import main
    main(sys.argv[1:])
"""
Words = Callable[[Path], list[str]]


@pytest.fixture
def root(tmp_path: Path, phantoms: Path) -> Path:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    return tmp_path


def words(root: Path, *more: str) -> list[str]:
    return [
        *("data", "prepare", "experiment=demo", f"data.n={N}", "data.spacing_mm=6", "preprocess.spacing=[8,8,8]"),
        *(f"runs_dir={root / 'runs'}", f"data_dir={root / 'data'}", *more),
    ]


def run(root: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(words(root, *more))
    return int(end.value.code or 0)


def held(root: Path, *more: str, deadly: str = "", free: tuple[str, ...] = (), meet: int = 1) -> subprocess.Popen[str]:
    script = root / "held.py"
    script.write_text(f"DEADLY, FREE, MEET = {deadly!r}, {free!r}, {meet}{HELD}")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(script), *words(root, *more)],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,
    )


def entries(root: Path) -> list[Path]:
    folder = root / "runs" / ".cache"
    return sorted(p for p in folder.iterdir() if p.name not in ("hashes", "locks")) if folder.exists() else []


def made(root: Path) -> list[Path]:
    return [p for p in entries(root) if not p.name.startswith(".")]


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes_of(session: int) -> list[int]:
    """Living processes of a session."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, sid, state in rows if int(sid) == session and not state.startswith("Z")]


def summary(text: str) -> tuple[int, int, int]:
    """Cases made, found and bad."""
    found = re.search(r"(\d+) made, (\d+) found, (\d+) bad; [\d.]+ [kMG]B in .*, [\d.]+ s$", text, flags=re.MULTILINE)
    assert found, text
    return int(found[1]), int(found[2]), int(found[3])


def arrays(root: Path) -> dict[str, tuple[bytes, bytes]]:
    return {p.name: ((p / "image.npy").read_bytes(), (p / "label.npy").read_bytes()) for p in made(root)}


def test_processes_make_what_one_makes_and_a_second_call_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "--jobs", "1") == 0
    assert summary(capsys.readouterr().out) == (N, 0, 0)
    alone = arrays(root)
    shutil.rmtree(root / "runs")
    assert run(root, "--jobs", "2") == 0
    assert summary(capsys.readouterr().out) == (N, 0, 0)
    assert len(alone) == N
    assert arrays(root) == alone
    assert run(root, "--jobs", "2") == 0
    assert summary(capsys.readouterr().out) == (0, N, 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_call_is_continued(root: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    process = held(root, "--jobs", "2", free=("ct_train_1001", "ct_train_1002"))
    wait_for(lambda: len(made(root)) >= 1)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, errors = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not processes_of(process.pid))
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in errors
    before = {p.name: p.stat().st_mtime_ns for p in made(root)}
    assert 0 < len(before) < N
    assert run(root) == 0
    assert summary(capsys.readouterr().out) == (N - len(before), len(before), 0)
    assert [p.name for p in entries(root)] == [p.name for p in made(root)]
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in made(root)}.items()


def test_what_a_killed_writer_left_is_cleared_away(root: Path) -> None:
    assert run(root, "--jobs", "1") == 0
    place = made(root)[0]
    place.rename(place.parent / f".0a1b2c3d.{place.name}")
    assert run(root, "--jobs", "1") == 0
    assert entries(root) == made(root)
    assert place.exists()


def test_two_calls_share_the_work(root: Path) -> None:
    both = [held(root, "--jobs", "1", meet=2) for _ in range(2)]
    results = [summary(p.communicate(timeout=PATIENCE)[0]) for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert [r[2] for r in results] == [0, 0]
    assert sum(r[0] for r in results) == N == len(made(root)), "a case was made twice"
    assert all(r[0] > 0 for r in results), "one waited for the other"


def test_a_bad_case_is_named_and_the_others_are_made(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = sorted(root.rglob("*_image.nii.gz"))[2]
    whole = image.read_bytes()
    image.write_bytes(whole[:2000])
    assert run(root, "--jobs", "2") == 1
    out, err = capsys.readouterr()
    assert summary(out) == (N - 1, 0, 1)
    assert re.fullmatch(rf"bad: {re.escape(str(image))}: truncated.*\n", err)
    image.write_bytes(whole)
    assert run(root) == 0
    assert summary(capsys.readouterr().out) == (1, N - 1, 0)


def test_a_changed_file_or_setting_is_done_again_and_nothing_else(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root) == 0
    label = sorted(root.rglob("*_label.nii.gz"))[1]
    scan = nib.load(label)
    voxels = np.asanyarray(scan.dataobj).copy()
    voxels[voxels == 500] = 0
    nib.save(nib.Nifti1Image(voxels, scan.affine, scan.header), label)
    assert run(root) == 0
    assert run(root, "preprocess.ct_window=[-100,500]") == 0
    assert run(root) == 0
    calls = capsys.readouterr().out.splitlines()
    counts = [summary(line) for line in calls if "made" in line]
    assert counts == [(N, 0, 0), (1, N - 1, 0), (N, 0, 0), (0, N, 0)]
    assert run(root, "--prune") == 0
    assert "removed: 7 other entries" in capsys.readouterr().out
    assert len(made(root)) == N


def test_bad_words_end_with_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, cause in (
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["preprocess.centre=lung"], "preprocess.centre=lung: must be one of image, tissue, heart"),
        (["preprocess.sapcing=[1,1,1]"], "did you mean 'preprocess.spacing'?"),
    ):
        assert run(root, *more) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert cause in err.splitlines()[-1]


def test_a_case_that_takes_its_process_down_is_named_and_the_others_are_made(root: Path) -> None:
    process = held(root, "--jobs", "2", deadly="ct_train_1003")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    made_now, found, bad = summary(out)
    # a case may be whole in the cache when the death beside it stops its process: it is found in the second attempt
    assert (made_now + found, bad) == (N - 1, 1)
    assert err.splitlines() == ["bad: case 'ct_train_1003': its process died, out of memory perhaps; try fewer --jobs"]
    wait_for(lambda: not processes_of(process.pid))


def test_a_missing_file_is_named_and_the_others_are_made(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next((root / "data").iterdir())
    (folder / "ct_train_1002_image.nii.gz").unlink()
    with pytest.raises(SystemExit) as end:
        main(["data", "prepare", "data=mmwhs", f"data.root={folder}", "preprocess.spacing=[8,8,8]", f"runs_dir={root}"])
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert summary(out) == (N - 1, 0, 0)
    assert re.fullmatch(r"bad: .*ct_train_1002.*\n", err)


def test_warnings_of_processes_are_heard_and_threads_are_one(root: Path) -> None:
    cohort = read_mmwhs(next((root / "data").iterdir()))
    before = dict(os.environ)
    cache = Cache(root / "cache", Preprocess((8.0,) * 3, (100.0, 300.0, 300.0), "image"))
    with pytest.warns(CropWarning, match="preprocessing cuts away") as caught:
        prepared = prepare_cohort(cohort, cache, jobs=2)
    assert dict(os.environ) == before
    assert list(prepared) == [case.id for case in cohort.cases]
    assert len({str(w.message).split("'")[1] for w in caught}) == len(caught)
    assert not multiprocessing.active_children()
    for case in prepared.values():
        assert np.array(case.image()).shape == case.shape


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_training_is_refused_for_bad_cases_when_all_others_are_made(root: Path, jobs: int) -> None:
    cohort = read_mmwhs(next((root / "data").iterdir()))
    cohort.cases[3].image.write_bytes(b"no scan")
    cohort.cases[5].image.unlink()
    cache = Cache(root / "cache", Preprocess((8.0,) * 3))
    with pytest.raises(InputError, match=rf"{re.escape(cohort.cases[3].image.name)}.* \(and 1 more; .*\)"):
        prepare_cohort(cohort, cache, jobs=jobs)
    assert len(cache.sizes()) == N - 2

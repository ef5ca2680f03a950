"""`whqa evidence`: one folder of tables and figures, of an experiment or of a sweep."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from whqa.errors import InputError
from whqa.files import write_json
from whqa.summarize import summarize
from whqa.sweep.evidence_folder import write_evidence

POINTS = ("demo,errormap=all_rivals", "demo,errormap=binary_head", "demo,errormap=no_opinion")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, write_run) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "demo", kinds=("final", "side1"), labels=True, regressor=True)
    summarize(run, Console(file=io.StringIO()))
    return run


@pytest.fixture
def sweep(tmp_path: Path, experiment: Path) -> Path:
    """The third point failed."""
    for name in POINTS[:2]:
        shutil.copytree(experiment, tmp_path / "sweep" / name)
    settings = [{"errormap": name.split("=")[1]} for name in POINTS]
    states = ("done", "done", "failed")
    points = [{"name": n, "settings": s, "state": w} for n, s, w in zip(POINTS, settings, states, strict=True)]
    told = {"first": POINTS[0], "settings": ["experiment=demo", "sweep=evidence"], "points": points[::-1]}
    write_json(tmp_path / "sweep" / "sweep.json", told)
    return tmp_path / "sweep"


def _shown(page: Path, drawn: bool = True) -> str:
    """The text, after every picture was found beside it."""
    text = page.read_text()
    pictures = re.findall(r"\]\((\w+\.png)\)", text)
    assert {path.name for path in page.parent.iterdir()} == {"evidence.md", *pictures}
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") == drawn for name in pictures)
    return text


def test_an_experiment_has_its_tables_and_figures_in_one_folder(experiment: Path) -> None:
    page = write_evidence(experiment)
    assert page == experiment / "evidence" / "evidence.md"
    text = _shown(page)
    for head in ("Methods", "Leads", "Masks of any quality", "Structures", "Figures"):
        assert f"\n## {head}\n" in text
    assert "## Variants" not in text
    assert "| dice_regressor | final | n/a |" in text
    # nobody has the scans of a run that was made up
    assert re.search(r"\n## Cases\n\nNo pictures of cases: .*config\.yaml", text)


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_shows_its_other_points_beside_the_first_and_names_what_failed(sweep: Path) -> None:
    text = _shown(write_evidence(sweep), drawn=False)
    assert "    whqa sweep experiment=demo sweep=evidence\n" in text
    assert "| final | the first |" in text
    # the same rows
    assert re.search(r"\| final \| errormap=binary_head \| 0\.\d+ \| [+-]0\.000 \[0\.000 to 0\.000\] \|", text)
    assert f"missing below: {POINTS[2]}." in text
    assert "errormap=no_opinion |" not in text


def test_what_is_not_finished_is_refused_in_a_line(tmp_path: Path, sweep: Path, experiment: Path) -> None:
    with pytest.raises(InputError, match="folds"):
        write_evidence(tmp_path)
    (sweep / POINTS[0] / "summary.json").unlink()
    with pytest.raises(InputError, match=r"summary\.json: .*whqa summarize .*all_rivals") as caught:
        write_evidence(sweep)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("undrawn")
def test_folds_that_changed_since_the_summary_are_refused(tmp_path: Path, experiment: Path) -> None:
    run = shutil.copytree(experiment, tmp_path / "demo")
    path = run / "errormap" / "1" / "cases.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, "qi_volume"] = "0.5"
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"cases\.csv: .*have changed since.*whqa summarize .*demo` writes it again"):
        write_evidence(run)
    summarize(run, Console(file=io.StringIO()))
    assert write_evidence(run).is_file()


def _differing(experiment: Path, to: Path) -> Path:
    run = shutil.copytree(experiment, to)
    for k in range(3):
        settings = {"stage": "errormap", "fold": str(k), "data": {"n": 12}, "preprocess": {"a": 1}, "network": {"b": 1}}
        settings["errormap"] = {"steps": 100 + (k == 2)}
        (run / "errormap" / str(k) / "config.yaml").write_text(json.dumps(settings))
    return run


@pytest.mark.usefixtures("undrawn")
def test_folds_that_differ_are_put_together_only_where_the_summary_says_so(tmp_path: Path, experiment: Path) -> None:
    run = _differing(experiment, tmp_path / "demo")
    with pytest.raises(InputError, match=r"errormap/2 have other settings than the other runs \(errormap\.steps"):
        write_evidence(run)
    summarize(run, Console(file=io.StringIO()), mixed=True)
    text = write_evidence(run).read_text()
    assert "Folds that differ were put together: " in text
    assert "errormap.steps" in text


@pytest.mark.parametrize(("name", "what"), [("sweep.json", "a sweep"), (f"{POINTS[0]}/summary.json", "a summary")])
@pytest.mark.parametrize("text", ["{}", "[]", "3"])
def test_what_is_no_record_of_ours_is_one_line(sweep: Path, name: str, what: str, text: str) -> None:
    (sweep / name).write_text(text)
    with pytest.raises(InputError, match=f"{re.escape(name)}: not readable as {what} .*writes it again") as caught:
        write_evidence(sweep)
    assert "\n" not in str(caught.value)

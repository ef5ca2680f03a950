"""Reports of a run's own worst masks, and the summary that links to them, from a study that is really trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from whqa.assessment.worst_reports import write_worst_reports
from whqa.cli.commands import main
from whqa.errors import InputError


@pytest.fixture(scope="module")
def reported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reported")
    shutil.copytree(study, root, dirs_exist_ok=True)
    run = root / "runs" / "tiny"
    with pytest.raises(SystemExit) as end:
        main(["summarize", str(run), "--reports", "2"])
    assert end.value.code == 0
    return run


def _worst(run: Path) -> pd.DataFrame:
    rows = pd.read_csv(run / "cases.csv", dtype={"case": str})
    rows = rows[(rows["method"] == "errormap") & (rows["mask_kind"] == "final")]
    return rows.assign(gap=(rows["qi_volume"] - rows["acc_volume"]).abs()).sort_values("gap", ascending=False)


def test_the_worst_judged_get_reports_and_the_page_links_to_them(reported):
    expected = list(_worst(reported)["case"].head(2))
    assert sorted(p.name for p in (reported / "reports").iterdir()) == sorted(expected)
    page = (reported / "summary.html").read_text()
    for case in expected:
        assert (reported / "reports" / case / "report.html").stat().st_size > 10_000
        assert f'href="reports/{case}/report.html"' in page
        assert f'href="errormap/{_fold(reported, case)}/figures/{case}-final.png"' in page


def _fold(run: Path, case: str) -> int:
    return next(k for k, cases in enumerate(json.loads((run / "folds.json").read_text())["folds"]) if case in cases)


def test_a_report_is_made_by_the_network_that_never_saw_the_case_and_finds_what_the_test_found(reported, study):
    for row in _worst(reported).head(2).to_dict("records"):
        out = reported / "reports" / row["case"]
        quality = json.loads((out / "quality.json").read_text())
        assert quality["model"]["folds"] == [row["fold"]] == [_fold(reported, row["case"])]
        # the mask went to the scan's grid and back, so that it is no longer its segmenter's to the voxel
        assert quality["qi"]["volume"]["value"] == pytest.approx(row["qi_volume"], abs=0.05)
        scan = nib.load(next(study.glob(f"data/*/{row['case']}_image.nii.gz")))
        error = nib.load(out / "error_map.nii.gz")
        assert error.shape == scan.shape
        np.testing.assert_allclose(error.affine, scan.affine, atol=1e-4)


def test_reports_need_the_scans_that_the_run_was_trained_on(reported, tmp_path):
    run = tmp_path / "tiny"
    shutil.copytree(reported, run)
    path = run / "errormap" / "0" / "config.yaml"
    path.write_text(path.read_text().replace("whqa.data.phantom.phantom_cohort", "os.system"))
    (path.parent / "COMPLETED").write_text("")  # whoever changes the one can change the other
    with pytest.raises(InputError, match="not one of whqa's readers"):
        list(write_worst_reports(run, 1))
    path.unlink()
    with pytest.raises(InputError, match=r"config\.yaml: no such file; start this run anew"):
        list(write_worst_reports(run, 1))


def test_a_negative_number_of_reports_is_refused(reported, capsys):
    with pytest.raises(SystemExit) as end:
        main(["summarize", str(reported), "--reports", "-1"])
    assert end.value.code == 2
    assert "must be at least 0" in capsys.readouterr().err

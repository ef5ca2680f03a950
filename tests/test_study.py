"""What an experiment was made from may not change under it: old and new data never meet, and the cases are named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.config.words import compose_config
from whqa.cv import cross_validate
from whqa.errors import InputError
from whqa.masks.made_from import MadeFrom, write_made_from
from whqa.study import Study, make_study

A, B = "ct_train_1001", "ct_train_1004"


class Experiment:
    """Scans in a folder of one's own and a run that has begun on them; nothing is trained."""

    def __init__(self, root: Path, words: list[str]) -> None:
        self.scans, self.directory = root / "scans", root / "runs" / "tiny"
        self.words = [w for w in words if not w.startswith(("data.", "data_dir", "experiment="))]
        self.words += ["folds=3", "data=mmwhs", f"data.root={self.scans}"]

    def make(self) -> Study:
        return make_study(compose_config(self.words), self.directory)

    def begin(self, run: str) -> Path:
        run_dir = self.directory / run
        write_made_from(run_dir, MadeFrom(self.make().made_from))
        (run_dir / "checkpoints").mkdir(parents=True)
        return run_dir


@pytest.fixture
def experiment(phantoms: Path, tmp_path: Path, tiny: Callable[[Path], list[str]]) -> Experiment:
    shutil.copytree(phantoms / "data" / "phantom-ct-6-6mm-seed0", tmp_path / "scans")
    return Experiment(tmp_path, tiny(tmp_path))


def _files(scans: Path, part: str) -> tuple[Path, Path]:
    return scans / f"{A}_{part}.nii.gz", scans / f"{B}_{part}.nii.gz"


def _replace_image(scans: Path) -> None:
    path, _ = _files(scans, "image")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[::-1], image.affine, image.header), path)


def _copy_case(scans: Path) -> None:
    for part in ("image", "label"):
        first, second = _files(scans, part)
        shutil.copy(second, first)


def _edit_label(scans: Path) -> None:
    path, _ = _files(scans, "label")
    image = nib.load(path)
    array = np.asanyarray(image.dataobj).copy()
    array[tuple(np.argwhere(array)[0])] = 0  # a single voxel
    nib.save(nib.Nifti1Image(array, image.affine, image.header), path)


def _swap_cases(scans: Path) -> None:
    for part in ("image", "label"):
        first, second = _files(scans, part)
        first.rename(scans / "aside")
        second.rename(first)
        (scans / "aside").rename(second)


def _remove_case(scans: Path) -> None:
    for part in ("image", "label"):
        _files(scans, part)[0].unlink()


def _add_case(scans: Path) -> None:
    for part in ("image", "label"):
        shutil.copy(_files(scans, part)[0], scans / f"ct_train_1099_{part}.nii.gz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_replace_image, [f"image of case {A} changed since segmenter/0 began"]),
        (_copy_case, [f"image of case {A} changed (it was case {B}'s)"]),
        (_edit_label, [f"label of case {A} changed since segmenter/0 began"]),
        (_swap_cases, [f"{part} of case {a} changed (it was case {b}'s)" for part in ("image", "label")
                       for a, b in ((A, B), (B, A))]),
        (_remove_case, [f"case {A} is gone"]),
        (_add_case, ["case ct_train_1099 is new"]),
    ],
)  # fmt: skip
def test_data_that_changed_under_an_experiment_are_named(
    experiment: Experiment, change: Callable[[Path], None], told: list[str]
) -> None:
    run_dir = experiment.begin("segmenter/0")
    change(experiment.scans)
    with pytest.raises(InputError) as caught:
        experiment.make()
    for words in told:
        assert words in str(caught.value)
    with pytest.raises(InputError) as again:
        cross_validate(experiment.words, 1)
    assert str(again.value) == str(caught.value)
    # the advice works as it stands
    subprocess.run(["sh", "-c", str(caught.value).rpartition("start anew: ")[2]], check=True, timeout=60)
    assert not run_dir.exists()
    experiment.make()


def test_a_run_goes_on_where_its_data_came_back_and_where_only_their_times_changed(experiment: Experiment) -> None:
    experiment.begin("errormap/2")
    _swap_cases(experiment.scans)
    with pytest.raises(InputError, match="errormap/2 began"):
        experiment.make()
    _swap_cases(experiment.scans)
    for path in experiment.scans.iterdir():
        path.touch()
    experiment.make()


def test_folds_that_were_dealt_anew_are_noticed(experiment: Experiment) -> None:
    experiment.begin("segmenter/1")
    (experiment.directory / "folds.json").unlink()
    experiment.words.append("seed=5")
    with pytest.raises(InputError, match=r"fold of case \w+ changed.* since segmenter/1 began"):
        experiment.make()


def test_a_run_of_an_older_version_is_told_once_and_goes_on(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = experiment.begin("segmenter/0")
    (run_dir / "made_from.json").unlink()
    _replace_image(experiment.scans)
    experiment.make()
    assert capsys.readouterr().err.count("segmenter/0 keep no made_from.json") == 1
    write_made_from(run_dir, MadeFrom({}))
    assert not (run_dir / "made_from.json").exists(), "what it saw is not known"


def test_a_damaged_record_is_named_with_what_mends_it(experiment: Experiment) -> None:
    run_dir = experiment.begin("segmenter/0")
    for text in ("", '{"cases": {}', "[]", '{"case": {}}'):
        (run_dir / "made_from.json").write_text(text)
        with pytest.raises(InputError, match=rf"made_from\.json: not readable as .*: rm -r {run_dir}, then"):
            experiment.make()

"""A study of another program's masks alone whose networks hear that program's probabilities, trained and assessed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from scipy import ndimage

import whqa
from whqa.assessment import TrainedRun, load_run
from whqa.cli.commands import main
from whqa.cv import cross_validate
from whqa.errors import InputError
from whqa.files import sha256
from whqa.masks.plan import AUGMENTED_KINDS, MASK_KINDS, is_made
from whqa.report.assessment_page import render_report
from whqa.structures import MMWHS

Rows = list[dict[str, str]]
Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]
PLACE = "+masks.external.nnunet"


def _predict(root: Path) -> None:
    """The references of the phantoms, shifted by a voxel, with values 1 to 7, and what nnU-Net keeps beside them."""
    for folder in ("preds", "softmax"):
        (root / folder).mkdir()
    for i, path in enumerate(sorted((root / "data").rglob("*_label.nii.gz"))):
        image, case = nib.load(path), path.name.removesuffix("_label.nii.gz")
        labels = np.roll(MMWHS.to_indices(np.asarray(image.dataobj).astype(np.int64), ""), 1 + i % 2, axis=i % 3)
        nib.save(nib.Nifti1Image(labels, image.affine), root / "preds" / f"{case}.nii.gz")
        p = np.stack([ndimage.gaussian_filter((labels == c).astype(float), 1) + (labels == c) for c in range(8)])
        p_czyx = (p / p.sum(axis=0)).transpose(0, 3, 2, 1).astype(np.float16)
        np.savez_compressed(root / "softmax" / f"{case}.npz", probabilities=p_czyx)


def _words(root: Path, tiny: Tiny) -> list[str]:
    values = ",".join(f"{key}:{i}" for i, key in enumerate(MMWHS.keys, start=1))
    stated = [f"{PLACE}.root={root / 'preds'}", f"{PLACE}.unseen=true", f"{PLACE}.scheme={{{values}}}"]
    chosen = [*tiny(root), *stated, f"{PLACE}.probabilities={root / 'softmax'}", "masks.kinds=[nnunet]"]
    return [*chosen, "folds=2", "errormap.steps=12"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, train: Train, tiny: Tiny) -> Path:
    """The study with both folds of its error-map network."""
    root = tmp_path_factory.mktemp("told")
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    _predict(root)
    chosen = _words(root, tiny)
    for fold in range(2):
        assert train(*chosen, "stage=errormap", f"fold={fold}") == 0
    assert cross_validate(chosen, 1, Console(file=io.StringIO())) == 0
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> TrainedRun:
    return load_run(root / "runs" / "tiny")


def _scan(root: Path) -> tuple[Path, Path, Path]:
    """Image, mask and probabilities of a case."""
    image = next((root / "data").rglob("ct_train_1001_image.nii.gz"))
    return image, root / "preds" / "ct_train_1001.nii.gz", root / "softmax" / "ct_train_1001.npz"


def _values() -> dict[str, int]:
    return {key: i for i, key in enumerate(MMWHS.keys, start=1)}


def test_the_networks_hear_the_program_and_its_rival_is_in_the_table(
    root: Path, rows_of: Callable[[Path], Rows]
) -> None:
    study = root / "runs" / "tiny"
    assert not (study / "segmenter").exists()
    methods = {"errormap", "constant", "boundary", "opinion"}
    # it speaks of its own masks, of those drawn from what it says and of those made of them
    kinds = {"nnunet", *AUGMENTED_KINDS, *filter(is_made, MASK_KINDS)}
    judged = {(r["mask_kind"], r["method"]) for r in rows_of(study / "cases.csv")}
    assert judged == {(kind, m) for kind in kinds for m in methods}
    saved = torch.load(study / "errormap" / "0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["inputs"] == ["image", "mask", "opinion"]
    fitted = json.loads((study / "errormap" / "0" / "baselines.json").read_text())
    assert fitted["opinion"]["rate"] is not None
    made_from = json.loads((study / "errormap" / "0" / "made_from.json").read_text())
    assert {name.split("/")[1] for name in made_from["masks"]["nnunet"]} == {*kinds, "opinion"}


def test_views_that_the_program_has_none_of_are_refused_in_one_line(
    root: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*_words(root, tiny), "name=views", "errormap.opinion_views=true", "stage=errormap", "fold=0"]
    assert train(*words) != 0
    assert "errormap.opinion_views=true: there is no opinion over views of the image" in capsys.readouterr().err


def test_a_scan_is_judged_with_the_programs_probabilities(root: Path, run: TrainedRun, unlike_contract: Any) -> None:
    image, mask, softmax = _scan(root)
    assert run.opinion_program is not None
    assert (run.opinion_program.name, run.opinion_program.scheme.values) == ("nnunet", _values())
    found = whqa.assess(image, mask, run, label_map=_values(), probabilities=softmax)
    told = {"source": "probabilities", "program": "nnunet", "path": str(softmax), "sha256": sha256(softmax)}
    assert found.quality["opinion"] == told
    assert unlike_contract(found.quality, "quality.schema.json") == []
    # the mask is the program's own, but for rounding on the run's grid
    assert min(s["dice_opinion"] or 1 for s in found.quality["structures"].values()) > 0.9
    page = render_report(found)
    assert "what is most probable to nnunet, whose probabilities were given" in page
    assert str(softmax) in page
    with np.load(softmax) as arrays:
        again = whqa.assess(image, mask, run, label_map=_values(), probabilities=arrays["probabilities"])
    np.testing.assert_array_equal(again.error_probability, found.error_probability)
    assert again.quality["opinion"] == told | {"path": None, "sha256": None}


def test_the_probabilities_count_and_their_classes_are_those_of_the_training(root: Path, run: TrainedRun) -> None:
    """The mask's values are MMWHS's, the classes' stay the program's."""
    image, mask, softmax = _scan(root)
    labels = MMWHS.to_values(np.asarray(nib.load(mask).dataobj).astype(np.uint8))
    values = (labels, nib.load(mask).affine)
    expected = whqa.assess(image, mask, run, label_map=_values(), probabilities=softmax)
    found = whqa.assess(image, values, run, probabilities=softmax)
    np.testing.assert_array_equal(found.error_probability, expected.error_probability)
    with np.load(softmax) as arrays:
        flipped = np.ascontiguousarray(arrays["probabilities"][:, ::-1])
    other = whqa.assess(image, values, run, probabilities=flipped)
    assert np.abs(other.error_probability - expected.error_probability).max() > 0.05
    doubt = "The mask has little in common with the most probable labels of probabilities"
    assert any(line.startswith(doubt) for line in other.quality["warnings"])
    assert any(line.startswith(doubt) for line in other.quality["verdict"]["reasons"])
    assert other.quality["verdict"]["decision"] != "accept"
    assert not any(line.startswith(doubt) for line in expected.quality["warnings"])


def _assess(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main(["assess", *map(str, words)])
    return int(end.value.code or 0)


def test_on_the_command_line_they_are_asked_for_and_matched_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows_of: Callable[[Path], Rows]
) -> None:
    image, mask, softmax = _scan(root)
    pairs = ",".join(f"{key}={value}" for key, value in _values().items())
    model = ["--model", root / "runs" / "tiny", "--no-report", "--label-map", pairs]
    assert _assess(image, mask, *model, "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "learned with the probabilities of nnunet as second opinion; give those of this scan: add --prob" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert _assess(image, mask, *model, "--probabilities", softmax, "-o", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["opinion"]["path"] == str(softmax)
    capsys.readouterr()
    for folder in ("scans", "masks", "softmax"):
        (tmp_path / folder).mkdir()
    for case in ("ct_train_1001", "ct_train_1002"):
        shutil.copy(next((root / "data").rglob(f"{case}_image.nii.gz")), tmp_path / "scans")
        shutil.copy(root / "preds" / f"{case}.nii.gz", tmp_path / "masks")
    shutil.copy(softmax, tmp_path / "softmax")
    folders = [tmp_path / "scans", tmp_path / "masks", "--probabilities", tmp_path / "softmax"]
    many = [*folders, *model, "-o", tmp_path / "all"]
    assert _assess(*many) == 1
    assert f"no probabilities of this name in {tmp_path / 'softmax'}" in capsys.readouterr().err
    shutil.copy(root / "softmax" / "ct_train_1002.npz", tmp_path / "softmax")
    assert _assess(*many) == 0
    assert "1 kept from before" in capsys.readouterr().out
    rows = rows_of(tmp_path / "all" / "assessments.csv")
    assert [Path(row["probabilities"]).name for row in rows] == ["ct_train_1001.npz", "ct_train_1002.npz"]
    assert _assess(tmp_path / "all" / "assessments.csv", *model, "-o", tmp_path / "again") == 0
    # what was told of a case has changed
    with np.load(softmax) as arrays:
        flat = np.full_like(arrays["probabilities"], 1 / 8)
    np.savez(tmp_path / "softmax" / softmax.name, probabilities=flat)
    assert _assess(*many) == 0
    assert "1 kept from before" in capsys.readouterr().out


def test_the_worst_masks_get_reports_with_the_stored_opinion(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "runs" / "tiny", tmp_path / "tiny")
    with pytest.raises(SystemExit) as end:
        main(["summarize", str(tmp_path / "tiny"), "--reports", "1"])
    assert not end.value.code
    (quality,) = (tmp_path / "tiny" / "reports").glob("*/quality.json")
    told = json.loads(quality.read_text())["opinion"]
    assert told == {"source": "probabilities", "program": "nnunet", "path": None, "sha256": None}


@pytest.mark.parametrize("spoil", ["${oc.env:HOME}", {"root": "x", "probabilities": "y", "system": "rm"}])
def test_a_run_whose_masks_are_no_plain_settings_is_refused(spoil: Any, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "runs" / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("masks", "figures"))
    for path in (tmp_path / "tiny" / "errormap").glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["masks"]["external"]["nnunet"] = spoil
        path.write_text(json.dumps(config))
        (path.parent / "COMPLETED").write_text("")
    with pytest.raises(InputError, match="not readable as the settings of a run"):
        load_run(tmp_path / "tiny")

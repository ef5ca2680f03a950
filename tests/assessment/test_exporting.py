"""An exported run judges as the run does, tells no names, and says what it is."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.bundle.config_parser import ConfigParser
from monai.bundle.properties import MetaProperties

import whqa
from whqa.assessment.exporting import export_run
from whqa.assessment.model import load_run
from whqa.assessment.model_file import CARD, LICENSE, METADATA, digest, pack, read_metadata
from whqa.cli.commands import main
from whqa.errors import InputError
from whqa.files import write_json
from whqa.summarize import summarize

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def run(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study's run, summarised, without what judging does not need; not to be changed."""
    source, target = study / "runs" / "tiny", tmp_path_factory.mktemp("exporting") / "tiny"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("masks", "figures"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whqa.report.style.png", lambda figure: b"")
        summarize(target)
    return target


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The model file of it; not to be changed."""
    path = run.parent / "mine.whqa"
    export_run(run, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def command(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    return int(end.value.code or 0)


def test_the_verdict_is_that_of_the_run_to_the_last_digit(
    run: Path, exported: Path, scan: nib.Nifti1Image, values: np.ndarray
) -> None:
    mask = np.roll(values, 2, axis=0), scan.affine
    found = [whqa.assess(scan, mask, model) for model in (run, exported)]
    one, other = ({**assessment.quality, "seconds": None} for assessment in found)
    assert one == other
    assert one["model"]["run"] == "tiny"
    for name in ("error_probability", "error_map", "corrected"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_a_loaded_file_is_the_loaded_run(run: Path, exported: Path) -> None:
    one, other = load_run(run), load_run(exported)
    assert (other.path, other.name, other.folds) == (exported, one.name, (0, 1, 2))
    assert load_run(exported, [1]).folds == (1,)
    for ours, theirs in zip(one.networks, other.networks, strict=True):
        assert (ours.sha256, ours.segmenter_sha256, ours.bf16) == (theirs.sha256, theirs.segmenter_sha256, theirs.bf16)
        # a new case is judged by the rates of all training cases
        assert replace(ours.module.calibration, held_back=None) == theirs.module.calibration
    numbers = one.cases.drop(columns=["case", "patient"])
    assert numbers.equals(other.cases.drop(columns=["case", "patient"]))
    assert (one.cases["case"].rank() == other.cases["case"].rank()).all()
    assert len(one.features) == len(other.features) > 0
    assert (one.correction, one.n_held_back) == (other.correction, other.n_held_back)
    assert one.n_held_back > 0


def test_names_of_cases_and_places_stay_at_home(run: Path, exported: Path) -> None:
    record = json.loads((run / "folds.json").read_text())
    found = members(exported)
    for word in (*record["patients"], *record["patients"].values(), str(run.parent), "pytest-of-"):
        assert [name for name, content in found.items() if word.encode() in content] == [], word
    renamed = json.loads(found["folds.json"])
    assert sorted(renamed["patients"]) == [f"case{i}" for i in range(1, 7)]
    for k, fold in enumerate(renamed["folds"]):
        for table in ("cases.csv", "features.csv", "held_back_gains.csv"):
            rows = list(csv.DictReader(io.StringIO(found[f"errormap/{k}/{table}"].decode())))
            found_cases = {row["case"] for row in rows}
            if table == "held_back_gains.csv":
                assert set() < found_cases <= set(renamed["patients"]) - set(fold)
            else:
                assert found_cases == set(fold)
            assert {renamed["patients"][row["case"]] for row in rows} == {row["patient"] for row in rows}


def test_settings_that_name_patients_or_places_stay_at_home_too(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(run, copy)
    for path in copy.glob("errormap/*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["data"] |= {"without": ["Smith"], "subjects": "Smith.txt", "patient": "Smith.*"}
        config["masks"]["external"] = {"nnunet": {"root": "/home/Smith", "unseen": True, "probabilities": "Smith/p"}}
        path.write_text(yaml.safe_dump(config))
        (path.parent / "COMPLETED").write_text("")
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"mixed": "/home/Smith: label of case Smith changed"}))
    export_run(copy, tmp_path / "mine.whqa")
    found = members(tmp_path / "mine.whqa")
    assert [name for name, content in found.items() if b"Smith" in content] == []
    assert json.loads(found["summary.json"])["mixed"] == "folds of different settings or data were put together"
    kept = yaml.safe_load(found["errormap/0/config.yaml"])
    assert kept["masks"]["external"]["nnunet"]["root"] == "withheld"
    assert kept["data"]["name"] == "phantom"
    assert load_run(tmp_path / "mine.whqa").folds == (0, 1, 2)


def test_names_are_kept_for_who_asks(run: Path, tmp_path: Path) -> None:
    metadata = export_run(run, tmp_path / "named.whqa", with_cases=True)
    assert metadata["whqa"]["with_cases"]
    found = members(tmp_path / "named.whqa")
    assert json.loads(found["folds.json"]) == json.loads((run / "folds.json").read_text())
    assert found["errormap/0/cases.csv"] == (run / "errormap/0/cases.csv").read_bytes()


def test_nothing_in_it_is_a_pickle(exported: Path) -> None:
    found = members(exported)
    endings = {Path(name).suffix for name in found if Path(name).name not in (LICENSE, "COMPLETED")}
    assert endings == {".json", ".md", ".csv", ".yaml", ".safetensors"}
    assert len([name for name in found if name.endswith(".safetensors")]) == 6


def test_the_same_run_makes_the_same_bytes(run: Path, exported: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "again.whqa")
    assert (tmp_path / "again.whqa").read_bytes() == exported.read_bytes()


def test_the_metadata_keep_the_contract_and_that_of_monai_bundles(
    exported: Path, unlike_contract: Callable[[Any, str], list[str]]
) -> None:
    metadata = read_metadata(exported)
    assert unlike_contract(metadata, "model.schema.json") == []
    parser = ConfigParser({"_meta_": metadata})
    assert [name for name, told in MetaProperties.items() if parser.get(told["id"]) is None] == []
    for name, told in metadata["files"].items():
        content = members(exported)[name]
        assert told == {"bytes": len(content), "sha256": digest(content)}


def test_the_card_states_the_numbers_of_the_summary(run: Path, exported: Path) -> None:
    card, summary = members(exported)[CARD].decode(), json.loads((run / "summary.json").read_text())
    assert f"{summary['methods']['errormap']['final']['error_dice']['mean']:.3f} [" in card
    dice = summary["segmentation"]["dice"]["per_structure"]["lv"]["mean"]
    assert f"| left ventricle (`lv`) | 500 | {dice:.3f} |" in card
    assert "6 scans (6 CT) of 6 patients; names of both replaced by numbers" in card
    assert "not a medical device" in card
    assert "No licence was stated" in card


def test_the_command_writes_the_file_and_the_others_take_it(
    run: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    licence, out = tmp_path / "terms.txt", tmp_path / "mine.whqa"
    licence.write_text("CC-BY-4.0\nmore of it\n")
    assert command("export", run, "-o", out, "--license", licence) == 0
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.1f} MB; names became numbers\n"
    assert command("info", "--model", out) == 0
    told = capsys.readouterr().out
    for line in ("cohort phantom: 6 scans", "masks of CT scans", "measured on unseen cases, final masks:", "CC-BY-4.0"):
        assert line in told
    assert command("info", "--model", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(members(out)[METADATA])
    image = next(phantoms.rglob("ct_train_1001_image.nii.gz"))
    label = next(phantoms.rglob("ct_train_1001_label.nii.gz"))
    assert command("assess", image, label, "--model", out, "-o", tmp_path / "out", "--no-report") == 0
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["model"]["run"] == "tiny"
    out.write_bytes(out.read_bytes()[:1000])
    capsys.readouterr()
    assert command("assess", image, label, "--model", out, "-o", tmp_path / "none") == 2
    assert capsys.readouterr().err.startswith(f"whqa assess: {out}: not readable as a model file")
    assert not (tmp_path / "none").exists()


def test_a_foreign_class_in_a_file_is_not_run(exported: Path, tmp_path: Path) -> None:
    found = members(exported)
    metadata = json.loads(found.pop(METADATA))
    for k in range(3):
        name = f"errormap/{k}/config.yaml"
        config = yaml.safe_load(found[name])
        config["network"]["_target_"] = "os.system"
        found[name] = yaml.safe_dump(config).encode()
        metadata["files"][name] = {"bytes": len(found[name]), "sha256": digest(found[name])}
    path = tmp_path / "mine.whqa"
    pack(path, found, json.dumps(metadata).encode())
    with pytest.raises(InputError, match=r"mine\.whqa: not usable as a model \(errormap/0/config\.yaml: network 'os"):
        load_run(path)


def test_what_cannot_be_exported_is_refused(run: Path, exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    with pytest.raises(InputError, match=r"mine\.whqa: exists and is not overwritten; choose another -o"):
        export_run(run, exported)
    assert exported.read_bytes() == before
    copy, out = tmp_path / "tiny", tmp_path / "out.whqa"
    shutil.copytree(run, copy)
    write_json(copy / "summary.json", {"methods": {}})
    with pytest.raises(InputError, match=r"not readable as the summary of a run .*; `whqa summarize .*tiny` writes it"):
        export_run(copy, out)
    (copy / "summary.json").unlink()
    with pytest.raises(InputError, match=r"summary\.json: no such file; `whqa summarize"):
        export_run(copy, out)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"empty\.txt: not readable as a licence \(empty\)"):
        export_run(run, out, license_file=tmp_path / "empty.txt")
    shutil.copy(run / "summary.json", copy)
    (copy / "errormap/1/COMPLETED").unlink()
    with pytest.raises(InputError, match="fold 1 is not complete"):
        export_run(copy, out)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))

"""What of an output folder is ours: plain names, nothing of others removed, no input written over."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whqa.assessment.batch_case import AssessOptions
from whqa.assessment.output_folder import (
    clear,
    folder_names,
    make_folder,
    new_folder,
    refuse_losing,
    refuse_overwriting,
)
from whqa.errors import InputError

FOREIGN_REQUESTS: list[Any] = [
    {"outputs": ["mine.png"]},
    dict.fromkeys(("image", "mask", "name", "modality", "label_map", "confidence", "run", "whqa")),
    dict.fromkeys(("image", "mask", "name", "modality", "label_map", "confidence", "run", "whqa"))
    | {"outputs": ["../mine.png", "mine.png"]},
    ["outputs"],
]


@pytest.mark.parametrize("request_json", FOREIGN_REQUESTS)
@pytest.mark.parametrize("quality", [None, {"case": "a", "score": 3}, []])
def test_files_of_others_with_our_names_stay(tmp_path: Path, request_json: Any, quality: Any) -> None:
    (tmp_path / "request.json").write_text(json.dumps(request_json))
    if quality is not None:
        (tmp_path / "quality.json").write_text(json.dumps(quality))
    for name in ("error.txt", "report.html", "mine.png", "error_map.nii.gz"):
        (tmp_path / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    clear(tmp_path, AssessOptions().outputs)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_input_is_written_over_by_whatever_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another -o"):
        refuse_overwriting([tmp_path / "out" / ".." / "in" / "0.nii"], [tmp_path / "in" / "0.nii"])
    refuse_overwriting([tmp_path / "out" / "0.nii"], [tmp_path / "in" / "0.nii"])


@pytest.mark.parametrize("earlier", [AssessOptions(preview="look.png", dicom=True), AssessOptions()])
def test_what_a_call_removes_of_an_earlier_one_is_no_input_of_its_own(tmp_path: Path, earlier: AssessOptions) -> None:
    ours = dict.fromkeys(("image", "mask", "name", "modality", "label_map", "confidence", "run", "whqa"))
    options, names = AssessOptions(report=False), {*earlier.outputs, "request.json"}
    for name in names - {"look.png"}:
        for other in names:
            (tmp_path / other).write_text(json.dumps(ours | {"outputs": list(earlier.outputs)}))
        with pytest.raises(InputError, match=f"{name}: is an input and would be overwritten; choose another -o"):
            refuse_losing(tmp_path, options.outputs, (tmp_path / "scan.nii.gz", None, tmp_path / name))
        clear(tmp_path, options.outputs)
        assert not (tmp_path / name).exists()
    refuse_losing(tmp_path, options.outputs, (tmp_path / "mask.nii.gz", None))


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        make_folder(tmp_path / "out")


@pytest.mark.parametrize("name", ["old", "old/a/b"])
def test_work_that_fails_leaves_no_new_folder_and_every_old_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "old").mkdir()
    seen = []
    with suppress(KeyboardInterrupt), new_folder(tmp_path / name):
        seen = [path.name for path in tmp_path.rglob("*")]
        raise KeyboardInterrupt
    assert seen == ["old", "a", "b"][: len(seen)]
    assert Path(name).name in seen
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


def test_folder_names_are_plain() -> None:
    names = ["case 7", "../x", "/etc/passwd", "..", "", "<img src=x>", "Herz_ü", "index.html", "A", "a", "a"]
    assert folder_names(names) == [
        *("case_7", "x", "etc_passwd", "case", "case-2", "img_src_x", "Herz_ü", "index.html-2", "A", "a-2", "a-3")
    ]


@given(st.lists(st.text(max_size=200), max_size=8))
def test_no_name_leads_out_of_the_folder_or_meets_another(names: list[str]) -> None:
    folders = folder_names(names)
    assert len({f.casefold() for f in folders}) == len(names)
    for folder in folders:
        assert Path(folder).name == folder
        assert not folder.startswith(".")
        assert folder.isprintable()
        assert len(folder) <= 90


def test_a_link_to_itself_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refuse_overwriting([tmp_path / "out"], [tmp_path / "loop"])

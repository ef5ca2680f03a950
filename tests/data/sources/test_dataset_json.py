"""A dataset.json may be malformed: every fault has its line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whqa.data.case import Cohort
from whqa.data.sources.checks import checked
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.nnunet import read_nnunet
from whqa.errors import InputError

Build = Callable[..., Path]
Read = Callable[..., Cohort]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "dataset.json: key 'labels' is missing; it must be an object"),
        ({"labels": [1]}, "'labels' must be an object {...}, not [1]"),
        ({"labels": {"background": 0}}, "labels name no structure but background"),
        ({"labels": {"LV": "1"}}, "'labels': 'LV' must be a whole number, not '1'"),
        ({"labels": {"LV": True}}, "'labels': 'LV' must be a whole number, not True"),
        ({"labels": {"LV": 1.5}}, "must be a whole number, not 1.5"),
        ({"labels": {"LV": -70000}}, "values must lie between"),
        ({"labels": {"LV": 10**30}}, "values must lie between"),
        ({"labels": {"LV": 0}}, "label 'LV' with value 0 cannot be that"),
        ({"labels": {"LV": 1, "rest": 1}}, "file value 1 is both 'lv' and 'rest'"),
        (
            {"labels": {"LV": 1, "left ventricle": 2}},
            "labels 'LV' and 'left ventricle' are both 'lv'; say what they are",
        ),
        ({"labels": {"background": 0, "bg": 3}}, "label 'bg' with value 3 cannot be that"),
        ({"labels": {"LV": 1, "...": 3}}, "label '...' with value 3 cannot be that"),
        ({"labels": {"whole": [1, 2], "LV": 1}}, "'labels': 'whole' is a region of several values"),
        ({"labels": {"LV": 1, "ignore": 2}}, "has an ignore label"),
        ({"labels": {"1": "LV"}}, "read it with --source decathlon, in an experiment with data=decathlon"),
        ({"channel_names": None}, "key 'channel_names' is missing"),
        ({"channel_names": None, "modality": {"0": "CT"}}, "read it with --source decathlon"),
        ({"channel_names": {}}, "'channel_names' names no channel"),
        ({"channel_names": {"x": "CT"}}, "'channel_names': 'x' must be a number"),
        ({"channel_names": {"0": 3}}, "'channel_names': '0' must be a text, not 3"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "several channels (0 T1, 1 T2); choose one with data.channel"),
        ({"channel_names": {"0": "zscore"}}, "channel 'zscore' is neither CT nor MR by name; set data.modality"),
        ({"file_ending": None}, "key 'file_ending' is missing"),
        ({"file_ending": ".png"}, "'file_ending' '.png' is not one of .nii, .nii.gz, .nrrd, .mha"),
        ({"file_ending": "/../../x.nii"}, "is not one of"),
        ({"file_ending": 3}, "'file_ending' must be a text, not 3"),
        ({"dataset": []}, "'dataset' must be an object"),
        ({"dataset": {"a": 1}}, "'dataset': 'a' must be an object {...}, not 1"),
        ({"dataset": {"a": {"label": "x"}}}, "'dataset': 'a': key 'images' is missing"),
        ({"dataset": {"a": {"images": []}}}, "'dataset': 'a': has 0 image(s), none for channel 0"),
        ({"dataset": {"a": {"images": [3], "label": "x"}}}, "'dataset': 'a' must be a text, not 3"),
        ({"dataset": {"a": {"images": ["x"]}}}, "'dataset': 'a': key 'label' is missing"),
        ({"numTraining": 3}, "'numTraining' is 3, but 2 training case(s) were found"),
    ],
)
def test_nnunet_descriptions_that_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str, nnunet: Build
) -> None:
    _refused(read_nnunet, nnunet(tmp_path, **changes), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": None}, "key 'training' is missing; it must be a list"),
        ({"training": {}}, "'training' must be a list [...], not {}"),
        ({"training": [], "test": [], "numTraining": 0}, "lists no cases"),
        ({"training": ["a"]}, "'training', entry 0 must be an object {...}, not 'a'"),
        ({"training": [{"label": "x"}]}, "'training', entry 0: key 'image' is missing"),
        ({"training": [{"image": "x.nii"}]}, "'training', entry 0: key 'label' is missing"),
        ({"training": [{"image": 3, "label": "x"}]}, "'training', entry 0: 'image' must be a text, not 3"),
        (
            {"training": [{"image": "a.png", "label": "b.png"}]},
            "'training', entry 0: 'a.png' does not end in .nii, .nii.gz, ",
        ),
        ({"test": "x"}, "'test' must be a list"),
        ({"test": [3]}, "'test', entry 0 must be an object {...}, not 3"),
        ({"test": ["gone.nii.gz"]}, "'test', entry 0: "),
        ({"test": ["./imagesTr/a.nii.gz"]}, "'test', entry 0: the same case is also at"),
        ({"labels": {"0": "background"}}, "labels name no structure but background"),
        ({"labels": {"x": "LV"}}, "'labels': 'x' must be a number"),
        ({"labels": {"LV": 1}}, "read it with --source nnunet, in an experiment with data=nnunet"),
        ({"labels": {"1": 2}}, "'labels': '1' must be a text, not 2"),
        ({"labels": {"1": "LV", "2": "LV"}}, "'labels': 'LV' has two values"),
        ({"modality": None}, "key 'modality' is missing"),
        ({"modality": None, "channel_names": {"0": "CT"}}, "read it with --source nnunet"),
        ({"modality": {"0": "US"}}, "channel 'US' is neither CT nor MR by name; set data.modality"),
        ({"numTraining": 20}, "'numTraining' is 20, but 2 training case(s) were found"),
    ],
)
def test_decathlon_descriptions_that_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str, decathlon: Build
) -> None:
    _refused(read_decathlon, decathlon(tmp_path, **changes), message)


def _refused(read: Read, root: Path, message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(read(root))
    assert message in str(caught.value)
    assert str(root) in str(caught.value) or "label scheme" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_files_that_are_no_description(tmp_path: Path, build: Build, read: Read) -> None:
    path = build(tmp_path) / "dataset.json"
    for content, message in (
        (b"", "not readable as JSON (Expecting value"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[" * 200_000, "not readable as JSON (maximum recursion"),
        (b'{"labels": ' + b"9" * 5000 + b"}", "not readable as JSON"),
        (b"[]", "its content must be an object {...}, not []"),
        (b"null", "its content must be an object {...}, not None"),
        (b'"' + b"x" * 1000 + b'"', "its content must be an object {...}, not 'xxx"),
    ):
        path.write_bytes(content)
        _refused(read, tmp_path, message)
    os.truncate(path, 1 << 30)
    _refused(read, tmp_path, "1,073,741,824 bytes are no description of a data set")
    path.unlink()
    for remake in (lambda: path.mkdir(), lambda: (path.rmdir(), os.mkfifo(path)), path.unlink):
        remake()
        _refused(read, tmp_path, "has no dataset.json; it should be")
    path.symlink_to("/dev/zero")
    _refused(read, tmp_path, "has no dataset.json; it should be")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["0", "LV", "CT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("0"), inner, max_size=3),
    max_leaves=6,
)


KEYS = ["channel_names", "labels", "numTraining", "file_ending", "dataset", "modality", "training", "test"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_json_is_read_or_refused(tmp_path: Path, build: Build, read: Read, changes: dict[str, Any]) -> None:
    build(tmp_path, **changes)
    with contextlib.suppress(InputError):
        assert all(case.image.resolve().is_relative_to(tmp_path.resolve()) for case in read(tmp_path).cases)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path, nnunet: Build) -> None:
    path = nnunet(tmp_path) / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_nnunet(tmp_path).cases) == 3

"""Every way to state the label values of another program's mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from whqa.assessment.label_map import parse_label_map
from whqa.errors import InputError
from whqa.structures import SCHEMES

FILES = {
    "map.json": '{"lv": 1, "myo": [2, 5], "ignore": [7]}',
    "map.yaml": "lv: 1\nmyo: [2, 5]\nignore: [7]\n",
    "names.yml": "heart_ventricle_left: 1\nmyocardium: [2, 5]\nignore: 7\n",
    "dataset.json": json.dumps({"labels": {"background": 0, "left ventricle": 1, "myocardium": 2}}),
    "decathlon.json": json.dumps({"labels": {"0": "background", "1": "left ventricle", "2": "myocardium"}}),
}


def test_pairs_may_be_longer_than_a_name_of_a_file() -> None:
    others = range(3, 120)
    scheme = parse_label_map("lv=1,myo=2,ignore=" + "+".join(map(str, others)))
    assert scheme.to_indices(np.arange(120), "mask").tolist() == [0, 1, 2, *(0 for _ in others)]
    with pytest.raises(InputError, match="no file and no scheme"):
        parse_label_map("a" * 300)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_scheme_by_name(name: str) -> None:
    assert parse_label_map(name) is SCHEMES[name]


@pytest.mark.parametrize("form", ["lv=1,myo=2+5,ignore=7", " left_ventricle = 1 , myo=2+5,ignore=7", *FILES])
def test_pairs_and_files_mean_the_same(form: str, tmp_path: Path) -> None:
    if form in FILES:
        (tmp_path / form).write_text(FILES[form])
        form = str(tmp_path / form)
    scheme = parse_label_map(form)
    assert scheme.keys == ("lv", "myo")
    values = np.array([0, 1, 2]) if form.endswith(("dataset.json", "decathlon.json")) else np.array([0, 1, 2, 5, 7])
    expected = [0, 1, 2, 2, 0][: len(values)]
    assert scheme.to_indices(values, "mask").tolist() == expected


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "left ventricle": 1, "myocardium": 2, "ignore": 8},
        {"background": 0, "left ventricle": [1], "myocardium": [2], "ignore": [8]},
        {"0": "background", "1": "left ventricle", "2": "myocardium", "8": "ignore"},
    ],
)
def test_an_ignore_label_and_lists_of_one_value_are_harmless(labels: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    scheme = parse_label_map(str(tmp_path / "dataset.json"))
    assert scheme.to_indices(np.array([0, 1, 2, 8]), "mask").tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "lv": [1, 2], "myo": 3, "liver": 4, "ignore": 5},
        {"background": 0, "whole heart": [1, 2, 3], "lv": [1, 2], "myo": 3, "spleen": 4, "ignore": 5},
        {"background": 0, "left ventricle": 1, "lv": 2, "myo": 3, "lung": [4, 5]},
        {"background": 0, "lv": 1, "lv cavity": 2, "myo": 3, "liver": 4, "spleen": 5},
    ],
)
def test_the_pairs_that_a_refusal_advises_are_read(labels: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=r"write the pairs: --label-map \S+$") as refused:
        parse_label_map(str(tmp_path / "dataset.json"))
    scheme = parse_label_map(str(refused.value).rpartition(" ")[2])
    assert scheme.to_indices(np.arange(6), "mask").tolist() == [0, 1, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("nonsense", "no file and no scheme of mmwhs"),
        ("lv=1,myo", "'myo' is no|whole number"),
        ("lv=x", "'x' is no whole number"),
        ("lv=1,lv=2", "names 'lv' again"),
        ("lv=1,left_ventricle=2", "names 'left_ventricle' again"),
        ("=3", "is no pair"),
        ("lv=1,rv=1", "file value 1 is both"),
        ("lv=0", "must be distinct and not 0"),
    ],
)
def test_bad_pairs_are_refused(form: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_label_map(form)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no pairs"),
        (b"[1, 2]", "holds no pairs"),
        (b"lv: [", "not readable as a label map"),
        (b"\xff\xfe", "not readable as a label map"),
        (b"lv: 1\nleft ventricle: 2\n", "names 'lv' twice"),
        (b"lv: one\n", "must be a whole number"),
        (
            b'{"labels": {"lv": [1, 2]}}',
            "is a region of several values, not a label value; write the pairs: --label-map lv=1\\+2$",
        ),
        (
            b'{"labels": {"lv": 1, "LV cavity": 2}}',
            "are both 'lv'; say what they are: write the pairs: --label-map lv=1\\+2$",
        ),
        (b'{"labels": {"lv": "one"}}', "label 'lv' has no whole number; write lv=1"),
        (b'{"labels": {"lv": []}}', "label 'lv' has no whole number; write lv=1"),
        (b"!!python/object/apply:os.system ['true']", "not readable as a label map"),
        (b"x" * 2_000_000, "bytes are no label map"),
    ],
)
def test_bad_files_are_refused_and_named(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        parse_label_map(str(path))
    assert str(path) in str(refused.value)


def test_regions_with_the_order_in_which_nnunet_paints_them(tmp_path: Path) -> None:
    """The value of a region in a prediction is the one that its place in the order names."""
    path = tmp_path / "dataset.json"
    labels = {"background": 0, "heart": [1, 2, 3, 4], "myo": [2, 3], "lv": 3, "rv": 4, "ignore": 5}
    path.write_text(json.dumps({"labels": labels, "regions_class_order": [1, 2, 3, 4]}))
    scheme = parse_label_map(str(path))
    assert dict(scheme.values) == {"heart": 1, "myo": 2, "lv": 3, "rv": 4}
    assert scheme.ignored == {5}
    for order in ([1, 2, 3], [1, 3, 2, 4], [1, 2, 3, "4"], None):
        path.write_text(json.dumps({"labels": labels, "regions_class_order": order}))
        with pytest.raises(InputError, match=r"is a region of several values.*--label-map ignore=1\+5,myo=2,lv=3,rv=4"):
            parse_label_map(str(path))


def test_regions_without_a_structure_and_background_in_pairs(tmp_path: Path) -> None:
    regions = tmp_path / "with space \u00e4.json"
    regions.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"'whole' is a region .*: --label-map lv=1,rv=2$"):
        parse_label_map(str(regions))
    pairs = tmp_path / "pairs.json"
    pairs.write_text('{"background": 0, "lv": 1, "myo": [2, 5]}')
    assert parse_label_map(str(pairs)).values == {"lv": 1, "myo": 2}

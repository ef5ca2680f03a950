"""Label schemes against the values that the data sets document."""

from __future__ import annotations

import re

import numpy as np
import pytest

from whqa.errors import InputError
from whqa.structures import (
    ACDC,
    CARE_WHS,
    MMWHS,
    SCHEMES,
    STRUCTURES,
    TOTALSEGMENTATOR_HIGHRES,
    TOTALSEGMENTATOR_V1,
    LabelScheme,
    label_scheme,
)


def test_mmwhs_has_the_values_of_the_challenge() -> None:
    assert dict(MMWHS.values) == {"lv": 500, "rv": 600, "la": 420, "ra": 550, "myo": 205, "ao": 820, "pa": 850}
    assert MMWHS.n_classes == 8


def test_acdc_has_the_values_of_the_challenge() -> None:
    assert dict(ACDC.values) == {"rv": 1, "myo": 2, "lv": 3}


def test_totalsegmentator_has_the_numbers_of_its_class_table() -> None:
    total = {"ao": 7, "myo": 44, "la": 45, "lv": 46, "ra": 47, "rv": 48, "pa": 49}
    highres = {"myo": 1, "la": 2, "lv": 3, "ra": 4, "rv": 5, "ao": 6, "pa": 7}
    assert dict(TOTALSEGMENTATOR_V1.values) == total
    assert dict(TOTALSEGMENTATOR_HIGHRES.values) == highres
    # 1 spleen, 8 inferior vena cava, 104 urinary bladder and the like are other organs; there is no class 105
    assert TOTALSEGMENTATOR_V1.to_indices(np.array([0, 1, 8, 46, 104]), "x").tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[105\]"):
        TOTALSEGMENTATOR_V1.to_indices(np.array([105]), "x")


def test_schemes_of_seven_structures_share_their_indices() -> None:
    assert CARE_WHS.keys == MMWHS.keys == TOTALSEGMENTATOR_V1.keys == TOTALSEGMENTATOR_HIGHRES.keys


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda s: s.name)
def test_values_and_indices_are_each_other_s_inverse(scheme: LabelScheme) -> None:
    indices = np.random.default_rng(0).integers(0, scheme.n_classes, (4, 5, 6)).astype(np.uint8)
    values = scheme.to_values(indices)
    assert values.dtype == np.int16
    back = scheme.to_indices(values, "x")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, indices)
    for index, key in enumerate(scheme.keys, start=1):
        assert set(values[indices == index]) <= {scheme.values[key]}


def test_421_is_left_atrium() -> None:
    np.testing.assert_array_equal(MMWHS.to_indices(np.array([421, 420, 0]), "x"), [3, 3, 0])


def test_an_unknown_value_names_the_file_and_what_is_known() -> None:
    with pytest.raises(InputError, match=r"scan\.nii: unknown label value\(s\) \[7\].*lv 500"):
        MMWHS.to_indices(np.array([0, 500, 7]), "scan.nii")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_translation_in_every_layout_and_type(dtype: str) -> None:
    """Against a plain loop over the values; more voxels than are translated at a time."""
    scheme = LabelScheme("x", {"a": 3, "b": -7, "c": 100}, {5: "b"}, frozenset({2}))
    values = [0, 3, 100, 5, 2] + ([] if dtype.startswith("u") else [-7])
    labels = np.random.default_rng(0).choice(values, (70, 80, 90)).astype(dtype)
    wanted = np.zeros(labels.shape, np.uint8)
    for value, index in ((3, 1), (-7, 2), (5, 2), (100, 3)):
        wanted[labels.astype("int64") == value] = index
    for axes in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        moved = labels.transpose(axes)
        np.testing.assert_array_equal(scheme.to_indices(moved, "x"), wanted.transpose(axes))
    np.testing.assert_array_equal(scheme.to_indices(labels[::-1, 3::2], "x"), wanted[::-1, 3::2])
    assert scheme.to_indices(labels[:0], "x").shape == (0, 80, 90)


@pytest.mark.parametrize("value", [-8, -6, 4, 99, 101, 2**31 - 1, -(2**31)])
def test_one_stray_voxel_of_many_is_found(value: int) -> None:
    labels = np.zeros((70, 80, 90), "int32")
    labels[60, 70, 80] = value
    with pytest.raises(InputError, match=re.escape(f"unknown label value(s) [{value}]")):
        LabelScheme("x", {"a": 3, "b": -7, "c": 100}).to_indices(labels, "x")


@pytest.mark.parametrize(
    ("values", "aliases"),
    [({}, {}), ({"a": 1, "b": 1}, {}), ({"a": 0}, {}), ({"a": 1}, {1: "a"}), ({"a": 1}, {2: "b"})],
)
def test_a_scheme_that_is_none_is_refused(values: dict[str, int], aliases: dict[int, str]) -> None:
    with pytest.raises(InputError, match="label scheme 'x'"):
        LabelScheme("x", values, aliases)


def test_schemes_by_name_by_mapping_and_as_they_are() -> None:
    assert label_scheme("acdc") is ACDC
    assert label_scheme(MMWHS) is MMWHS
    own = label_scheme({"lv": "3", "scar": 4})
    assert (own.keys, own.n_classes, own.titles) == (("lv", "scar"), 3, ("left ventricle", "scar"))
    with pytest.raises(InputError, match=r"no label scheme 'x'; there are \['acdc', 'care_whs', 'mmwhs', 'total"):
        label_scheme("x")


def test_colours_are_distinct_hex_codes() -> None:
    colours = [s.colour for s in STRUCTURES.values()]
    assert len(set(colours)) == len(colours) == 7
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in colours)
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in label_scheme({"scar": 1, "lv": 2}).colours)


def test_a_mapping_merges_values_and_ignores_others() -> None:
    own = label_scheme({"lv": 1, "myo": [2, 5], "ignore": [7, "8"]})
    assert own.keys == ("lv", "myo")
    assert own.to_indices(np.array([0, 1, 2, 5, 7, 8]), "x").tolist() == [0, 1, 2, 2, 0, 0]
    assert own.to_values(np.array([0, 1, 2])).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[6\]"):
        own.to_indices(np.array([6]), "x")
    assert label_scheme({"lv": 1, "ignore": 9}).ignored == {9}


def test_structures_may_go_by_their_usual_names() -> None:
    own = label_scheme({"LV": 1, "left atrium": [2, 3], "Myocardium": 4, "Ignore": 9, "Scar": 5})
    assert own.values == {"lv": 1, "la": 2, "myo": 4, "Scar": 5}
    assert (own.aliases, own.ignored) == ({3: "la"}, {9})
    with pytest.raises(InputError, match=r"names 'lv' twice; list its values instead: lv: \[1, 2\]"):
        label_scheme({"LV": 1, "left ventricle": 2})


def test_unknown_values_are_told_beside_all_that_is_known() -> None:
    own = label_scheme({"lv": 1, "myo": [2, 5], "ignore": [7, 8]})
    with pytest.raises(InputError, match=r"has background 0, lv 1, myo 2 and 5, ignores 7, 8\..*ignore:\[\.\.\.\]"):
        own.to_indices(np.array([6]), "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lv": "one"}, "lv: 'one' must be a whole number"),
        ({"lv": 1.5}, "lv: 1.5 must be a whole number"),
        ({"lv": True}, "lv: True must be a whole number"),
        ({"lv": {"a": 1}}, "must be a whole number"),
        ({"lv": None}, "lv: None must be a whole number"),
        ({"lv": float("inf")}, "lv: inf must be a whole number"),
        ({"lv": []}, "structure 'lv' has no file value"),
        ({"lv": 1, "myo": [2, 1]}, "file value 1 is both 'lv' and 'myo'"),
        ({"lv": 1, "ignore": [1]}, "file value 1 is both 'lv' and 'ignore'"),
        ({"lv": [1, 1]}, "file value 1 is both 'lv' and 'lv'"),
        ({"lv": 0}, "must be distinct and not 0"),
        ({"ignore": [3]}, "must be distinct and not 0"),
        ({f"s{i}": i for i in range(1, 257)}, "256 structures, there can be 254 at most"),
        ({"lv": 40000}, "values must lie between -32767 and 32767"),
        (7, "must be a name of"),
    ],
)
def test_a_bad_mapping_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        label_scheme(values)

"""Label schemes against the values that the data sets document."""

from __future__ import annotations

import re

import numpy as np
import pytest

from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS, SCHEMES, STRUCTURES, LabelScheme, label_scheme


def test_mmwhs_has_the_values_of_the_challenge() -> None:
    assert dict(MMWHS.values) == {"lv": 500, "rv": 600, "la": 420, "ra": 550, "myo": 205, "ao": 820, "pa": 850}
    assert MMWHS.n_classes == 8


def test_acdc_has_the_values_of_the_challenge() -> None:
    assert dict(ACDC.values) == {"rv": 1, "myo": 2, "lv": 3}


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
    with pytest.raises(InputError, match=r"no label scheme 'x'; there are \['acdc', 'mmwhs'\]"):
        label_scheme("x")


def test_colours_are_distinct_hex_codes() -> None:
    colours = [s.colour for s in STRUCTURES.values()]
    assert len(set(colours)) == len(colours) == 7
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in colours)
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in label_scheme({"scar": 1, "lv": 2}).colours)

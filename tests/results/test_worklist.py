"""Order, slice and minutes of a worklist, against nibabel and by hand."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from whqa.errors import InputError
from whqa.results.correction_time import CorrectionTime, correction_time
from whqa.results.worklist import piece_words, slices_through, worklist_key


def test_minutes_follow_from_pieces_and_millilitres() -> None:
    work = {"pieces": 3, "ml": 10.0}
    assert CorrectionTime(2, 0.5, 0.25).minutes(work) == 2 + 1.5 + 2.5
    assert CorrectionTime().minutes({"pieces": 0, "ml": 0.0}) == CorrectionTime().case
    assert correction_time("ml=2, case=0") == CorrectionTime(case=0, ml=2)
    assert correction_time(None) == CorrectionTime()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("voxel=1", "--minutes voxel=1: must be case, piece or ml, such as 'piece=0.5'"),
        ("ml=-1", "--minutes ml=-1: must be a number of minutes from 0 on, such as 'ml=0.5'"),
        ("ml=much", "--minutes ml=much: must be a number of minutes from 0 on, such as 'ml=0.5'"),
        ("case=nan", "--minutes case=nan: must be a number of minutes from 0 on, such as 'case=0.5'"),
        ("case", "--minutes case: must be a number of minutes from 0 on, such as 'case=0.5'"),
    ],
)
def test_other_minutes_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        correction_time(text)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA"])
def test_slices_are_counted_from_feet_back_and_left_whatever_the_file_s_axes(axes: str) -> None:
    shape, voxel = (7, 8, 9), (1, 2, 3)
    volume = np.zeros(shape)
    volume[voxel] = 1
    turn = nib.orientations.axcodes2ornt(axes, (("L", "R"), ("P", "A"), ("I", "S")))
    ras = nib.orientations.apply_orientation(volume, turn)
    (at,) = np.argwhere(ras)
    found = slices_through({"orientation": axes, "shape": list(shape)}, voxel)
    assert [s.plane for s in found] == ["axial", "coronal", "sagittal"]
    assert [s.number for s in found] == [at[2] + 1, at[1] + 1, at[0] + 1]
    assert [s.of for s in found] == [ras.shape[2], ras.shape[1], ras.shape[0]]
    assert found[0].words == f"axial slice {at[2] + 1} of {ras.shape[2]}"


def test_the_worst_come_first() -> None:
    scores = {"a": ("accept", 0.9), "b": ("reject", 0.4), "c": ("reject", None), "d": ("review", 0.1)}
    found = {name: {"verdict": {"decision": d, "score": score}} for name, (d, score) in scores.items()}
    assert sorted(found, key=lambda name: worklist_key(name, found[name])) == ["c", "b", "d", "a"]


@pytest.mark.parametrize(
    ("mask", "opinion", "words"),
    [
        ("lv", "lv", "left ventricle"),
        ("lv", None, "too much left ventricle"),
        (None, "ra", "missing right atrium"),
        ("lv", "ra", "left ventricle, rather right atrium"),
        (None, None, "outside of the mask's structures"),
    ],
)
def test_a_piece_is_told_with_what_the_second_opinion_holds_it_for(
    mask: str | None, opinion: str | None, words: str
) -> None:
    structures = {"lv": {"name": "left ventricle"}, "ra": {"name": "right atrium"}}
    piece = {"structure": mask, "opinion": opinion}
    assert piece_words(piece, {"structures": structures, "opinion": {"source": "segmenters"}}) == words
    if mask:
        alone = {"structures": structures, "opinion": None}
        assert piece_words(piece | {"opinion": None}, alone) == structures[mask]["name"]

"""Names that a file gives its labels, as TotalSegmentator, Workbench, ITK-SNAP and 3D Slicer write them; distrusted."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whqa.data.formats.volume_files import label_names, read_label
from whqa.errors import InputError
from whqa.structures import ACDC

NAMES = {1: "spleen", 2: "heart & aorta", 61: "atrial_appendage_left", 300: "Lunge für Ümläute"}


def workbench(names: dict[int, str], prolog: str = "") -> bytes:
    """As TotalSegmentator 2 writes it."""
    rows = "".join(
        f'<Label Key="{key}" Red="1.0" Green="0.5" Blue="0.0" Alpha="1"><![CDATA[{name}]]></Label>\n'
        for key, name in names.items()
    )
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog} <CaretExtension>  <Date><![CDATA[2013-07-14T05:45:09]]></Date>'
        f'   <VolumeInformation Index="0">   <LabelTable>\n{rows}\n  </LabelTable>  <StudyMetaDataLinkSet>  '
        "</StudyMetaDataLinkSet>  <VolumeType><![CDATA[Label]]></VolumeType>   </VolumeInformation></CaretExtension>\n "
    )
    return text.encode()


def save(path: Path, content: bytes, code: int = 0, kind: type = nib.Nifti1Image) -> Path:
    image = kind(np.ones((3, 4, 5), np.uint8), np.diag([-1.5, -1.5, 2, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("code", [0, 6, 30])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_label_table_in_an_extension(tmp_path: Path, name: str, code: int, kind: type) -> None:
    path = save(tmp_path / name, workbench({0: "background"} | NAMES), code, kind)
    assert label_names(path) == NAMES
    assert read_label(path, ACDC).array.all()


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({str(key): name for key, name in NAMES.items()}),
        json.dumps({name: key for key, name in NAMES.items()}),
        json.dumps({"labels": {"background": 0} | {name: key for key, name in NAMES.items()}}),
        "# ITK-SnAP Label Description File\n"
        + "".join(f'  {key}   255    0    0        1  1  1    "{name}"\n' for key, name in NAMES.items()),
    ],
)
def test_other_tables_in_a_comment(tmp_path: Path, content: str) -> None:
    assert label_names(save(tmp_path / "a.nii", content.encode(), 6)) == NAMES


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "content",
    [
        b"made by a program",
        b"",
        workbench(NAMES)[:-40],
        workbench(NAMES, BOMB),
        workbench({-1: "x"}).replace(b'"-1"', b'"one"'),
        b"<Label" * 1000,
        b'{"a": 1.5}',
        b'{"a": "b"}',
        b"[" * 100_000,
        b'{"labels": [1, 2]}',
        b"\xff\xfe\x00",
        b'1 255 0 0 1 1 1 "spleen"\nnonsense',
    ],
)
def test_what_names_nothing(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path / "a.nii.gz", content)
    assert label_names(path) is None
    assert read_label(path, ACDC).array.all()


def test_a_label_of_two_names_has_none(tmp_path: Path) -> None:
    twice = workbench({1: "spleen", 2: "liver", 3: "heart"}).replace(b'Key="3"', b'Key="2"')
    assert label_names(save(tmp_path / "a.nii", twice)) == {1: "spleen"}


@given(st.binary(max_size=300), st.integers(0, 400))
def test_damaged_extensions_are_no_names_and_no_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = save(tmp_path_factory.getbasetemp() / "a.nii", workbench(NAMES))
    block = bytearray(path.read_bytes())
    block[348 + place : 348 + place + len(noise)] = noise
    path.write_bytes(block)
    names = label_names(path)
    assert names is None or all(isinstance(key, int) and name.isprintable() for key, name in names.items())


def test_the_segments_of_3d_slicer(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    path = tmp_path / "a.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8)), str(path))
    assert label_names(path) is None
    lines = "".join(
        f"Segment{i}_ID:=Segment_{i}\nSegment{i}_LabelValue:={key}\nSegment{i}_Layer:=0\nSegment{i}_Name:={name}\n"
        for i, (key, name) in enumerate(NAMES.items())
    )
    block = path.read_bytes()
    path.write_bytes(block.replace(b"\n\n", b"\n" + lines.encode() + b"\n", 1))
    assert label_names(path) == NAMES
    assert read_label(path, ACDC).array.all()
    path.write_bytes(block.replace(b"\n\n", b"\n" + (lines + "Segment0_Name:=other\n").encode() + b"\n", 1))
    with pytest.raises(InputError, match="stands there twice"):
        label_names(path)

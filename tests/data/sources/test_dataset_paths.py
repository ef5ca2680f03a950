"""A dataset.json may be hostile: no path, link or name of a case leads out of its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.data.case import Cohort
from whqa.data.sources.checks import checked
from whqa.data.sources.dataset_json import Description
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.nnunet import read_nnunet
from whqa.errors import InputError

Build = Callable[..., Path]
Put = Callable[[Path], Path]
Read = Callable[..., Cohort]


LEADING_OUT = [
    "../outside/a.nii.gz",
    "imagesTr/../../outside/a.nii.gz",
    "x/../../root/../outside/a.nii.gz",
    "link/a.nii.gz",
]


NO_PATHS = [
    "/etc/passwd.nii",
    "{outside}/a.nii.gz",
    "C:\\a.nii.gz",
    "..\\outside\\a.nii.gz",
    "\\\\server\\a.nii",
    "",
    "a\0b.nii",
    "~/a.nii",
]


@pytest.fixture
def root(tmp_path: Path, put: Put) -> Path:
    """The data folder, beside a folder with a sound image that a link leads to."""
    put(tmp_path / "outside" / "a.nii.gz")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    return tmp_path / "root"


@pytest.fixture
def with_path(root: Path, put: Put, nnunet: Build, decathlon: Build) -> Callable[[str, str], tuple[Read, str]]:
    """Makes a data set that names a path in one place; gives its reader and how the place is called."""

    def make(kind: str, path: str) -> tuple[Read, str]:
        sound = "imagesTr/a.nii.gz"
        if kind == "test":
            decathlon(root, test=[path])
            return read_decathlon, "'test', entry 0"
        if kind.startswith("dataset"):
            images, label = ([sound, path], sound) if kind == "dataset image" else ([sound], path)
            nnunet(root, dataset={"case": {"images": images, "label": label}})
            put(root / sound)
            return read_nnunet, "'dataset': 'case'"
        entry = {"image": path, "label": sound} if kind == "image" else {"image": sound, "label": path}
        decathlon(root, training=[{"image": "imagesTr/b.nii.gz", "label": sound}, entry])
        return read_decathlon, "'training', entry 1"

    return make


@pytest.mark.parametrize("kind", ["image", "label", "test", "dataset image", "dataset label"])
@pytest.mark.parametrize("path", [*LEADING_OUT, *NO_PATHS])
def test_no_path_leads_out_of_the_folder(
    root: Path, with_path: Callable[[str, str], tuple[Read, str]], kind: str, path: str
) -> None:
    path = path.replace("{outside}", str(root.parent / "outside"))
    read, place = with_path(kind, path)
    with pytest.raises(
        InputError, match=r"leads out of the data folder|is no path relative to the data folder"
    ) as caught:
        read(root)
    assert f"{root / 'dataset.json'}: {place}" in str(caught.value)


@pytest.mark.parametrize("path", LEADING_OUT[:3])
@pytest.mark.parametrize("kind", ["image", "dataset label"])
def test_trusted_links_are_no_licence_for_dots(
    root: Path, with_path: Callable[[str, str], tuple[Read, str]], kind: str, path: str
) -> None:
    read, _ = with_path(kind, path)
    with pytest.raises(InputError, match="leads out of the data folder; copy the file into it and correct the entry"):
        read(root, links=True)
    with pytest.raises(InputError, match="leads out"):
        Description(root, "", links=True).file("link/../outside/a.nii.gz", "x")


@pytest.mark.parametrize("what", ["file", "folder", "description"])
def test_links_lead_out_only_where_they_are_trusted(tmp_path: Path, build: Build, read: Read, what: str) -> None:
    (tmp_path / "root").mkdir()
    root = build(tmp_path / "root")
    inside = {
        "file": next((root / "labelsTr").glob("a*")),
        "folder": root / "imagesTr",
        "description": root / "dataset.json",
    }
    moved = (tmp_path / inside[what].name).resolve()
    inside[what].rename(moved)
    inside[what].symlink_to(moved, target_is_directory=what == "folder")
    with pytest.raises(
        InputError, match=r"leads out of the data folder; copy the file into it, or set data\.links=true"
    ):
        read(root)
    assert len(checked(read(root, links=True)).cases) == 3


def test_links_within_the_folder_and_to_it_are_as_good_as_files(tmp_path: Path, build: Build, read: Read) -> None:
    (tmp_path / "root").mkdir()
    root = build(tmp_path / "root")
    (root / "labelsTr").rename(root / "elsewhere")
    (root / "labelsTr").symlink_to("elsewhere", target_is_directory=True)
    (tmp_path / "mine").symlink_to(root, target_is_directory=True)
    for folder in (root, tmp_path / "mine"):
        assert len(checked(read(folder)).cases) == 3


def test_links_in_circles_and_to_devices(tmp_path: Path, build: Build, read: Read) -> None:
    label = next((build(tmp_path) / "labelsTr").glob("a*"))
    label.unlink()
    label.symlink_to(label)
    with pytest.raises(InputError, match=r"cannot be followed|a\.nii\.gz"):
        checked(read(tmp_path))
    label.unlink()
    label.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"label file .* missing|leads out"):
        checked(read(tmp_path))


@pytest.mark.parametrize("case", ["../evil", "a/b", ".hidden", "", "x" * 300, "a\nb", "a\\b"])
def test_a_case_is_named_by_a_plain_name(tmp_path: Path, case: str, nnunet: Build) -> None:
    files = {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}
    with pytest.raises(InputError, match="cannot name a file; rename it"):
        checked(read_nnunet(nnunet(tmp_path, dataset={case: files}, numTraining=1)))

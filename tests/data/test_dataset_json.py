"""A dataset.json may be malformed or hostile: every fault has its line, and no path leads out of the folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whqa.cohorts import recognised
from whqa.data.case import Cohort
from whqa.data.sources.checks import checked
from whqa.data.sources.dataset_json import described_file
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.names import modality_of, structure_key
from whqa.data.sources.nnunet import read_nnunet
from whqa.errors import InputError

Read = Callable[..., Cohort]


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(120, dtype="int16").reshape(4, 5, 6), np.eye(4)), path)
    return path


def nnunet(root: Path, **changes: Any) -> Path:
    """Two training cases and one for testing; `changes` of dataset.json, None removes a key."""
    for case in ("a", "b"):
        put(root / "imagesTr" / f"{case}_0000.nii.gz")
        put(root / "labelsTr" / f"{case}.nii.gz")
    put(root / "imagesTs" / "c_0000.nii.gz")
    labels = {"background": 0, "LV": 1, "MYO": 2}
    plain = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    return describe(root, plain, changes)


def decathlon(root: Path, **changes: Any) -> Path:
    names = ["a.nii.gz", "b.nii.gz"]
    for name in names:
        put(root / "imagesTr" / name)
        put(root / "labelsTr" / name)
    put(root / "imagesTs" / "c.nii.gz")
    plain = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "left atrium"},
        "numTraining": 2,
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names],
        "test": ["./imagesTs/c.nii.gz"],
    }
    return describe(root, plain, changes)


def describe(root: Path, plain: dict[str, Any], changes: dict[str, Any]) -> Path:
    changed = {key: value for key, value in (plain | changes).items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
    return root


BOTH = [pytest.param(nnunet, read_nnunet, id="nnunet"), pytest.param(decathlon, read_decathlon, id="decathlon")]


def test_nnunet_cases(tmp_path: Path) -> None:
    cohort = read_nnunet(nnunet(tmp_path))
    assert [(c.id, c.modality, c.has_label) for c in cohort.cases] == [
        ("a", "ct", True),
        ("b", "ct", True),
        ("c", "ct", False),
    ]
    assert dict(cohort.scheme.values) == {"lv": 1, "myo": 2}
    assert cohort.problems == ()
    assert [c.id for c in read_nnunet(tmp_path, parts=["Tr"]).cases] == ["a", "b"]
    assert [c.id for c in read_nnunet(tmp_path, parts="Ts").cases] == ["c"]
    put(tmp_path / "labelsTs" / "c.nii.gz")
    assert read_nnunet(tmp_path)["c"].has_label
    with pytest.raises(InputError, match=r"has no images in imagesVal; data\.parts can be of \['Tr', 'Ts'\]"):
        read_nnunet(tmp_path, parts=["Val"])


def test_decathlon_cases(tmp_path: Path) -> None:
    cohort = read_decathlon(
        decathlon(tmp_path, validation=[{"image": "v.nii.gz", "label": "w.nii.gz"}]), patient="[a-z]"
    )
    assert [(c.id, c.modality, c.has_label) for c in cohort.cases] == [
        ("a", "mr", True),
        ("b", "mr", True),
        ("c", "mr", False),
    ]
    assert dict(cohort.scheme.values) == {"la": 1}
    assert len(cohort.problems) == 2, "both files of the validation entry are missing"


def test_structures_can_be_said(tmp_path: Path) -> None:
    labels = {"background": 0, "wall": 3, "LV": 1, "liver": 2, "LV trabeculae": 4, "scar": 5}
    nnunet(tmp_path, labels=labels)
    scheme = read_nnunet(tmp_path).scheme
    assert dict(scheme.values) == {"lv": 1, "liver": 2, "wall": 3, "lv_trabeculae": 4, "scar": 5}
    stated = {"wall": "myo", "liver": None, "LV trabeculae": "lv"}
    scheme = read_nnunet(tmp_path, structures=stated).scheme
    assert dict(scheme.values) == {"lv": 1, "myo": 3, "scar": 5}
    assert (dict(scheme.aliases), scheme.ignored) == ({4: "lv"}, {2})
    for wrong, message in (
        ({"wal": "myo"}, "has no label 'wal' that structures names; did you mean 'wall'"),
        ({"quux": "myo"}, "has no label 'quux' that structures names; there are background, wall"),
        ({"wall": 3}, "structures: wall: 3 must be a structure such as lv"),
        ({"background": "lv"}, "label 'background' with value 0 cannot be that"),
        ("wall", "structures 'wall': must be pairs"),
    ):
        with pytest.raises(InputError, match=message):
            read_nnunet(tmp_path, structures=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *[(n, "lv") for n in ("LV", "left_ventricle", "heart_ventricle_left", "Left Ventricle", "left-ventricle (LV)")],
        *[(n, "myo") for n in ("MYO", "Myocardium", "heart_myocardium", "LV_myo", "(epicardial) myocardium")],
        *[(n, "ra") for n in ("RA", "right atrium", "heart_atrium_right", "Right-Atrium blood cavity (RA")],
        *[(n, "ao") for n in ("aorta", "Ascending Aorta", "AO")],
        *[(n, "pa") for n in ("pulmonary artery", "PA")],
        ("Liver (seg. 4)", "liver"),
        ("((", ""),
        ("superior vena cava", "superior_vena_cava"),
    ],
)
def test_names_of_structures(name: str, key: str) -> None:
    assert structure_key(name) == key


def test_names_of_modalities() -> None:
    assert [modality_of(w) for w in ("CT", "ct_train_1001", "CTA", "CT1001", "Cardiac-CT")] == ["ct"] * 5
    assert [modality_of(w) for w in ("MRI", "MR", "T1", "T2w", "cineMRI", "mr_1", "FLAIR")] == ["mr"] * 7
    assert [modality_of(w) for w in ("", "zscore", "noNorm", "actress", "omr", "CT_MR")] == [None] * 6
    assert modality_of("Case1", "CT_MR", "MR") == "mr", "the next text is asked where one tells nothing"


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
        ({"labels": {"1": "LV"}}, "use --source decathlon"),
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
def test_nnunet_descriptions_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
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
        ({"labels": {"LV": 1}}, "use --source nnunet"),
        ({"labels": {"1": 2}}, "'labels': '1' must be a text, not 2"),
        ({"labels": {"1": "LV", "2": "LV"}}, "'labels': 'LV' has two values"),
        ({"modality": None}, "key 'modality' is missing"),
        ({"modality": None, "channel_names": {"0": "CT"}}, "read it with --source nnunet"),
        ({"modality": {"0": "US"}}, "channel 'US' is neither CT nor MR by name; set data.modality"),
        ({"numTraining": 20}, "'numTraining' is 20, but 2 training case(s) were found"),
    ],
)
def test_decathlon_descriptions_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _refused(read_decathlon, decathlon(tmp_path, **changes), message)


def _refused(read: Read, root: Path, message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(read(root))
    assert message in str(caught.value)
    assert str(root) in str(caught.value) or "label scheme" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("build", "read"), BOTH)
def test_files_that_are_no_description(tmp_path: Path, build: Callable[..., Path], read: Read) -> None:
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


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_json_is_read_or_refused_in_a_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    for build, read in ((nnunet, read_nnunet), (decathlon, read_decathlon)):
        root = tmp_path / build.__name__
        if not root.exists():
            build(root)
            (root / "dataset.json").rename(root / "plain.json")
        describe(root, json.loads((root / "plain.json").read_text()), changes)
        with contextlib.suppress(InputError):
            assert all(case.image.resolve().is_relative_to(root.resolve()) for case in read(root).cases)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = nnunet(tmp_path) / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_nnunet(tmp_path).cases) == 3


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
def root(tmp_path: Path) -> Path:
    """The data folder, beside a folder with a sound image that a link leads to."""
    put(tmp_path / "outside" / "a.nii.gz")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    return tmp_path / "root"


def _with_path(kind: str, root: Path, path: str) -> tuple[Read, str]:
    """A data set that names this path in one place; its reader and how the place is called."""
    sound = "imagesTr/a.nii.gz"
    if kind == "test":
        decathlon(root, test=[path])
        return read_decathlon, "'test', entry 0"
    if kind.startswith("dataset"):
        files = (
            {"images": [sound, path], "label": sound} if kind == "dataset image" else {"images": [sound], "label": path}
        )
        nnunet(root, dataset={"case": files})
        put(root / sound)
        return read_nnunet, "'dataset': 'case'"
    entry = {"image": path, "label": sound} if kind == "image" else {"image": sound, "label": path}
    decathlon(root, training=[{"image": "imagesTr/b.nii.gz", "label": sound}, entry])
    return read_decathlon, "'training', entry 1"


@pytest.mark.parametrize("kind", ["image", "label", "test", "dataset image", "dataset label"])
@pytest.mark.parametrize("path", [*LEADING_OUT, *NO_PATHS])
def test_no_path_leads_out_of_the_folder(root: Path, kind: str, path: str) -> None:
    path = path.replace("{outside}", str(root.parent / "outside"))
    read, place = _with_path(kind, root, path)
    with pytest.raises(
        InputError, match=r"leads out of the data folder|is no path relative to the data folder"
    ) as caught:
        read(root)
    assert f"{root / 'dataset.json'}: {place}" in str(caught.value)


@pytest.mark.parametrize("path", LEADING_OUT[:3])
@pytest.mark.parametrize("kind", ["image", "dataset label"])
def test_trusted_links_are_no_licence_for_dots(root: Path, kind: str, path: str) -> None:
    read, _ = _with_path(kind, root, path)
    with pytest.raises(InputError, match="leads out of the data folder; copy the file into it and correct the entry"):
        read(root, links=True)
    with pytest.raises(InputError, match="leads out"):
        described_file(root, "link/../outside/a.nii.gz", "x", links=True)


@pytest.mark.parametrize(("build", "read"), BOTH)
@pytest.mark.parametrize("what", ["file", "folder", "description"])
def test_links_lead_out_only_where_they_are_trusted(
    tmp_path: Path, build: Callable[..., Path], read: Read, what: str
) -> None:
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


@pytest.mark.parametrize(("build", "read"), BOTH)
def test_links_within_the_folder_and_to_it_are_as_good_as_files(
    tmp_path: Path, build: Callable[..., Path], read: Read
) -> None:
    (tmp_path / "root").mkdir()
    root = build(tmp_path / "root")
    (root / "labelsTr").rename(root / "elsewhere")
    (root / "labelsTr").symlink_to("elsewhere", target_is_directory=True)
    (tmp_path / "mine").symlink_to(root, target_is_directory=True)
    for folder in (root, tmp_path / "mine"):
        assert len(checked(read(folder)).cases) == 3


@pytest.mark.parametrize(("build", "read"), BOTH)
def test_links_in_circles_and_to_devices(tmp_path: Path, build: Callable[..., Path], read: Read) -> None:
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
def test_a_case_is_named_by_a_plain_name(tmp_path: Path, case: str) -> None:
    files = {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}
    with pytest.raises(InputError, match="cannot name a file; rename it"):
        read_nnunet(nnunet(tmp_path, dataset={case: files}, numTraining=1))


def test_missing_and_superfluous_files_of_nnunet_are_problems(tmp_path: Path) -> None:
    nnunet(tmp_path)
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    put(tmp_path / "labelsTr" / "z.nii.gz")
    put(tmp_path / "imagesTr" / "y_0001.nii.gz")
    put(tmp_path / "imagesTr" / "odd.nii.gz")
    put(tmp_path / "imagesTs" / "b_0000.nii.gz")
    put(tmp_path / "imagesTr" / "._a_0000.nii.gz")
    cohort = read_nnunet(tmp_path)
    assert [c.id for c in cohort.cases] == ["a", "b", "c"]
    found = "\n".join(cohort.problems)
    for line in (
        "a_0000.nii.gz: label file labelsTr/a.nii.gz is missing; add it or remove the image",
        "z.nii.gz: has no image in imagesTr",
        "y_0001.nii.gz: file y_0000.nii.gz of the channel is missing",
        "odd.nii.gz: name does not end in _0000.nii.gz",
        "imagesTs/b_0000.nii.gz: the same case is also at",
    ):
        assert line in found
    assert len(cohort.problems) == 5
    describe(
        tmp_path,
        json.loads((tmp_path / "dataset.json").read_text()),
        {
            "dataset": {
                "a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"},
                "b": {"images": ["gone.nii.gz"], "label": "labelsTr/b.nii.gz"},
                "c": {"images": ["imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"},
            }
        },
    )
    found = "\n".join(read_nnunet(tmp_path).problems)
    for line in (
        "'dataset': 'a': " + str(tmp_path / "labelsTr/a.nii.gz") + " is missing; add it or remove the entry",
        "'dataset': 'b': " + str(tmp_path / "gone.nii.gz") + " is missing",
        "b_0000.nii.gz: the same case is also at",
        "'numTraining' is 2, but 1 training case(s) were found",
    ):
        assert line in found


def test_nothing_but_problems(tmp_path: Path) -> None:
    for path in (nnunet(tmp_path) / "imagesTr").iterdir():
        path.unlink()
    (tmp_path / "imagesTs" / "c_0000.nii.gz").unlink()
    with pytest.raises(InputError, match="'numTraining' is 2, but 0 training"):
        read_nnunet(tmp_path)
    nnunet(tmp_path / "other", numTraining=None, file_ending=".nii")
    with pytest.raises(InputError, match="no images found; it should be an nnU-Net v2 data set"):
        read_nnunet(tmp_path / "other")


def test_channels(tmp_path: Path) -> None:
    nnunet(tmp_path, channel_names={"0": "T1", "1": "lge", "2": "zscore"})
    for case in "abc":
        folder = "imagesTs" if case == "c" else "imagesTr"
        put(tmp_path / folder / f"{case}_0001.nii.gz")
    for channel in (1, "1", "lge"):
        assert {c.image.name[2:6] for c in checked(read_nnunet(tmp_path, channel=channel)).cases} == {"0001"}
    assert read_nnunet(tmp_path, channel=0, modality="ct").cases[0].modality == "ct"
    with pytest.raises(InputError, match=r"has no channel 7; there are 0 T1, 1 lge, 2 zscore"):
        read_nnunet(tmp_path, channel=7)
    with pytest.raises(InputError, match="modality 'us': must be ct or mr"):
        read_nnunet(tmp_path, channel=0, modality="us")  # type: ignore[arg-type]


def test_channels_of_decathlon_in_one_file_are_refused(tmp_path: Path) -> None:
    decathlon(tmp_path, modality={"0": "T2", "1": "ADC"})
    with pytest.raises(InputError, match="several channels lie in one 4-D file; split it"):
        read_decathlon(tmp_path, channel=0)
    for name in ("imagesTr/a", "imagesTr/b", "imagesTs/c"):
        put(tmp_path / f"{name}_0001.nii.gz")
    cohort = checked(read_decathlon(tmp_path, channel="ADC", modality="mr"))
    assert [(c.id, c.image.name) for c in cohort.cases] == [(x, f"{x}_0001.nii.gz") for x in "abc"]


@pytest.mark.parametrize(("build", "read"), BOTH)
def test_the_layout_is_recognised_or_the_description_is_blamed(
    tmp_path: Path, build: Callable[..., Path], read: Read
) -> None:
    source = build.__name__
    assert recognised(build(tmp_path)) == source
    key = {"nnunet": "channel_names", "decathlon": "modality"}[source]
    build(tmp_path, **{key: {"0": "CT", "1": "MR"}})
    with pytest.raises(InputError, match="has several channels"):
        recognised(tmp_path)
    build(tmp_path, training=[{"image": "../a.nii.gz", "label": "b"}], dataset={"a": {"images": ["../a.nii.gz"]}})
    with pytest.raises(InputError, match="leads out of the data folder"):
        recognised(tmp_path)
    build(tmp_path, **{key: None})
    with pytest.raises(InputError, match=f"key '{key}' is missing|key 'channel_names' is missing"):
        recognised(tmp_path)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no data folder stated; give an nnU-Net v2 data set"):
        read_nnunet(None)
    with pytest.raises(InputError, match="no data folder stated; give a task of the Medical Decathlon"):
        read_decathlon("???")

"""Cases, structures, channels and missing files of data sets that describe themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.config.cohorts import recognised
from whqa.data.sources.checks import checked
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.names import modality_of
from whqa.data.sources.nnunet import read_nnunet
from whqa.errors import InputError
from whqa.structures import structure_key

Build = Callable[..., Path]
Put = Callable[[Path], Path]


def test_nnunet_cases(tmp_path: Path, put: Put, nnunet: Build) -> None:
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


def test_decathlon_cases(tmp_path: Path, decathlon: Build) -> None:
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


def test_structures_can_be_said(tmp_path: Path, nnunet: Build) -> None:
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


def test_missing_and_superfluous_files_of_nnunet_are_problems(tmp_path: Path, put: Put, nnunet: Build) -> None:
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
    nnunet(
        tmp_path,
        dataset={
            "a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/gone.nii.gz"},
            "b": {"images": ["gone.nii.gz"], "label": "labelsTr/b.nii.gz"},
            "c": {"images": ["imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"},
        },
    )
    found = "\n".join(read_nnunet(tmp_path).problems)
    for line in (
        "'dataset': 'a': " + str(tmp_path / "labelsTr/gone.nii.gz") + " is missing; add it or remove the entry",
        "'dataset': 'b': " + str(tmp_path / "gone.nii.gz") + " is missing",
        "'dataset': 'c': the same case is also at",
        "'numTraining' is 2, but 1 training case(s) were found",
    ):
        assert line in found


def test_nothing_but_problems(tmp_path: Path, nnunet: Build) -> None:
    for path in (nnunet(tmp_path) / "imagesTr").iterdir():
        path.unlink()
    (tmp_path / "imagesTs" / "c_0000.nii.gz").unlink()
    with pytest.raises(InputError, match=r"labelsTr.*has no image in imagesTr"):
        read_nnunet(tmp_path)
    nnunet(tmp_path / "other", numTraining=None, file_ending=".nii")
    with pytest.raises(InputError, match=r"does not end in \.nii, which dataset\.json states as 'file_ending'"):
        read_nnunet(tmp_path / "other")


def test_channels(tmp_path: Path, put: Put, nnunet: Build) -> None:
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


def test_channels_of_decathlon_in_one_file_are_refused(tmp_path: Path, put: Put, decathlon: Build) -> None:
    decathlon(tmp_path, modality={"0": "T2", "1": "ADC"})
    with pytest.raises(InputError, match="several channels lie in one 4-D file; split it"):
        read_decathlon(tmp_path, channel=0)
    for name in ("imagesTr/a", "imagesTr/b", "imagesTs/c"):
        put(tmp_path / f"{name}_0001.nii.gz")
    cohort = checked(read_decathlon(tmp_path, channel="ADC", modality="mr"))
    assert [(c.id, c.image.name) for c in cohort.cases] == [(x, f"{x}_0001.nii.gz") for x in "abc"]


def test_the_layout_is_recognised_or_the_description_is_blamed(tmp_path: Path, source: str, build: Build) -> None:
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

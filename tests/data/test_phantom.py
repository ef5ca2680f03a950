"""The phantom cohort: published volumes, topology, appearance, files."""

import hashlib
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from whqa.data.phantom import Phantom, make_phantom, phantom_cohort, phantom_files, write_phantoms
from whqa.data.phantom.phantom_files import SETTINGS_FILE
from whqa.data.phantom.shapes import DISEASES, draw_subject, ellipsoid, smooth_min, tube
from whqa.errors import InputError
from whqa.structures import MMWHS

SPACING = 3.0
HEALTHY = [(modality, index) for modality in ("ct", "mr") for index in range(3)]
# mean - 2 SD of women to mean + 2 SD of men, ml: Hudsmith 2005 (cavities); Kawel-Boehm 2015 (mass / 1.05 g/ml)
RANGES_ML = {
    "lv": (135 - 2 * 26, 160 + 2 * 29),
    "rv": (148 - 2 * 35, 190 + 2 * 33),
    "la": (89 - 2 * 21, 103 + 2 * 30),
    "myo": ((98 - 2 * 21) / 1.05, (134 + 2 * 21) / 1.05),
}


@cache
def phantom(modality: str, index: int, diseases: tuple[str, ...] | None = (), seed: int = 0) -> Phantom:
    return make_phantom(seed, index, modality, SPACING, diseases)


@cache
def ras(modality: str, index: int, diseases: tuple[str, ...] | None = ()) -> dict[str, np.ndarray]:
    """Masks of the truth along (R, A, S), read by nibabel alone."""
    made = phantom(modality, index, diseases)
    truth = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(made.truth, made.affine)).dataobj)
    return {key: truth == value for key, value in MMWHS.values.items()}


def volume_ml(mask: np.ndarray) -> float:
    return float(mask.sum() * SPACING**3 / 1000)


def centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


def touching(a: np.ndarray, b: np.ndarray) -> int:
    return int((ndimage.binary_dilation(a) & b).sum())


@pytest.mark.parametrize("key", RANGES_ML)
def test_healthy_hearts_lie_inside_published_ranges(key):
    low, high = RANGES_ML[key]
    volumes = [volume_ml(ras(*case)[key]) for case in HEALTHY]
    assert low <= min(volumes)
    assert max(volumes) <= high
    assert max(volumes) > 1.1 * min(volumes), "subjects must differ"


@pytest.mark.parametrize(("key", "low", "high"), [("ao", 24.9, 41.9), ("pa", 19.5, 30.7)])
def test_great_vessels_have_published_diameters(key, low, high):
    """The widest ball that fits; Rogers 2013 (ascending aorta) and Truong 2012 (pulmonary trunk), mean +- 2 SD.

    The distance map is good to about a voxel, and the aortic root is wider than the ascending aorta.
    """
    for case in HEALTHY:
        inside = ndimage.distance_transform_edt(ras(*case)[key], sampling=SPACING)
        assert low - SPACING <= 2 * inside.max() <= 1.13 * high + SPACING


@pytest.mark.parametrize("case", HEALTHY)
def test_each_structure_is_one_piece(case):
    for key, mask in ras(*case).items():
        assert ndimage.label(mask)[1] == 1, key


@pytest.mark.parametrize("case", HEALTHY)
def test_left_ventricle_opens_only_into_atrium_and_aorta(case):
    masks = ras(*case)
    rim = ndimage.binary_dilation(masks["lv"]) & ~masks["lv"]
    closed = rim & (masks["myo"] | masks["la"] | masks["ao"])
    assert closed.sum() >= 0.985 * rim.sum()
    assert (rim & masks["myo"]).sum() > 0.75 * rim.sum()
    assert not (rim & (masks["rv"] | masks["ra"] | masks["pa"])).any()


@pytest.mark.parametrize("case", HEALTHY)
def test_chambers_and_vessels_connect_as_in_a_heart(case):
    masks = ras(*case)
    for a, b in (("lv", "la"), ("lv", "ao"), ("rv", "ra"), ("rv", "pa"), ("rv", "myo"), ("lv", "myo")):
        assert touching(masks[a], masks[b]) >= 5, (a, b)
    for a, b in (("lv", "rv"), ("lv", "ra"), ("lv", "pa")):
        assert touching(masks[a], masks[b]) == 0, (a, b)


@pytest.mark.parametrize("case", HEALTHY)
def test_chambers_lie_where_they_belong_in_the_patient(case):
    """Indices grow to the patient's right, anterior and superior."""
    masks = ras(*case)
    at = {key: centre(mask) for key, mask in masks.items()}
    right, anterior, superior = 0, 1, 2
    assert at["lv"][right] < at["rv"][right] < at["ra"][right]
    assert at["la"][right] < at["ra"][right]
    assert at["rv"][anterior] > at["lv"][anterior] > at["la"][anterior]
    assert at["la"][superior] > at["lv"][superior]
    assert at["ra"][superior] > at["rv"][superior] - 5
    assert min(at["ao"][superior], at["pa"][superior]) > max(at["lv"][superior], at["rv"][superior])
    apex = np.argwhere(masks["lv"])[np.argmax(np.linalg.norm(np.argwhere(masks["lv"]) - at["la"], axis=1))]
    assert (apex - at["lv"])[right] < 0 < (apex - at["lv"])[anterior], "the apex points left and forward"


@pytest.mark.parametrize("case", HEALTHY)
def test_pulmonary_trunk_crosses_in_front_of_the_aorta_from_the_left(case):
    masks = ras(*case)
    valve = centre(ndimage.binary_dilation(masks["rv"], iterations=2) & masks["pa"])
    level = round(valve[2])
    aorta = centre(masks["ao"][:, :, level - 1 : level + 2])
    assert valve[1] > aorta[1], "anterior at the valve"
    assert valve[0] < aorta[0], "left at the valve"
    assert centre(masks["pa"])[1] < valve[1], "runs backwards"


ENLARGED = {
    "dilated_lv": {"lv": 1.3},
    "thick_wall": {"myo": 1.3},
    "large_la": {"la": 1.4},
    "pulmonary_hypertension": {"pa": 1.15, "rv": 1.15},
    "dilated_aorta": {"ao": 1.25},
}


@pytest.mark.parametrize("disease", ENLARGED)
def test_disease_enlarges_its_structures(disease):
    healthy, ill = ras("ct", 1), ras("ct", 1, (disease,))
    assert phantom("ct", 1, (disease,)).diseases == (disease,)
    for key, factor in ENLARGED[disease].items():
        assert volume_ml(ill[key]) > factor * volume_ml(healthy[key])


def test_cohort_has_healthy_subjects_and_every_disease():
    found = [draw_subject(np.random.default_rng([7, i])).diseases for i in range(200)]
    assert 0.2 < found.count(()) / len(found) < 0.6
    for disease in DISEASES:
        assert 0.08 < np.mean([disease in f for f in found]) < 0.4


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_image_shows_the_structures(modality):
    contrast = []
    for index in range(3):
        made = phantom(modality, index)
        assert made.image.dtype == made.label.dtype == np.int16
        assert set(np.unique(made.label)) == {0, *MMWHS.values.values()}
        lv, myo = (made.image[made.truth == MMWHS.values[k]] for k in ("lv", "myo"))
        contrast.append((lv.mean() - myo.mean()) / myo.std())
        corner = np.percentile(made.image, 5)
        assert corner < (-700 if modality == "ct" else 0.35 * lv.mean()), "lung is dark"
    assert min(contrast) > 0.3
    assert max(contrast) > 1.3 * min(contrast), "easy and difficult cases"


def test_annotators_wander_by_about_a_voxel_and_end_the_vessels_at_will():
    dice, ends = [], []
    for case in HEALTHY:
        made = phantom(*case)
        for key in ("lv", "la", "myo", "ao", "pa"):
            a, b = (x == MMWHS.values[key] for x in (made.truth, made.label))
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
            if key in ("ao", "pa"):
                ends.append(volume_ml(b) / volume_ml(a))
        heart, drawn = made.truth > 0, made.label > 0
        away = ndimage.distance_transform_edt(~heart, sampling=SPACING)[drawn & ~heart]
        assert away.max() < 16
    assert min(dice) > 0.75
    assert np.mean(dice) < 0.99
    assert min(ends) < 0.96
    assert max(ends) > 1.04


def test_case_depends_on_seed_index_and_modality_alone():
    again = make_phantom(0, 2, "mr", SPACING, ())
    assert np.array_equal(again.image, phantom("mr", 2).image)
    assert np.array_equal(again.label, phantom("mr", 2).label)
    assert np.array_equal(again.affine, phantom("mr", 2).affine)
    for other in (phantom("mr", 1), phantom("ct", 2), phantom("mr", 2, (), 1)):
        assert not np.array_equal(again.truth, other.truth)


def test_mr_comes_in_several_orientations_and_keeps_its_spacing():
    codes = {nib.aff2axcodes(phantom("mr", i).affine) for i in range(3)}
    assert len(codes) > 1
    for case in HEALTHY:
        assert np.allclose(nib.affines.voxel_sizes(phantom(*case).affine), SPACING)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_cohort_is_read_back_by_the_mmwhs_reader(tmp_path):
    cohort = phantom_cohort(tmp_path, 3, "both", seed=5, spacing_mm=6.0)
    assert [(c.id, c.modality) for c in cohort.cases] == [
        ("ct_train_1001", "ct"),
        ("ct_train_1002", "ct"),
        ("mr_train_1001", "mr"),
    ]
    label = nib.load(cohort["mr_train_1001"].label)
    made = make_phantom(5, 0, "mr", 6.0)
    assert np.array_equal(np.asarray(label.dataobj), made.label)
    assert np.allclose(label.affine, made.affine, atol=1e-4)
    assert np.array_equal(np.asarray(nib.load(cohort["mr_train_1001"].image).dataobj), made.image)
    assert [c.id for c in phantom_cohort(tmp_path, 1, "ct", seed=5, spacing_mm=6.0).cases] == ["ct_train_1001"]


def test_files_are_the_same_bytes_and_only_missing_ones_are_written(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    write_phantoms(first, 2, "ct", 1, 6.0)
    write_phantoms(second, 1, "ct", 1, 6.0)
    kept = (second / "ct_train_1001_image.nii.gz").stat().st_mtime_ns
    write_phantoms(second, 2, "ct", 1, 6.0)
    assert digests(first) == digests(second)
    assert (second / "ct_train_1001_image.nii.gz").stat().st_mtime_ns == kept
    (second / "ct_train_1002_label.nii.gz").unlink()
    write_phantoms(second, 2, "ct", 1, 6.0)
    assert digests(first) == digests(second)


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    write_phantoms(tmp_path / "a", 1, "ct", 1, 6.0)
    for seed, spacing in ((2, 6.0), (1, 5.0)):
        with pytest.raises(InputError, match=SETTINGS_FILE):
            write_phantoms(tmp_path / "a", 1, "ct", seed, spacing)
    real = tmp_path / "real"
    real.mkdir()
    (real / "ct_train_1001_image.nii.gz").touch()
    with pytest.raises(InputError, match="empty folder"):
        write_phantoms(real, 1, "ct", 1, 6.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 1, "modality": "pet"}, "must be ct, mr or both"),
        ({"n": 1, "spacing_mm": 0.1}, "between 0.5 and 6"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_phantoms(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_unknown_disease_is_named():
    with pytest.raises(InputError, match=DISEASES[0]):
        make_phantom(0, 0, "ct", 6.0, ("cold",))


def test_shapes_against_closed_forms():
    rng = np.random.default_rng(0)
    points = rng.uniform(-12, 12, (3, 400)).astype(np.float32)
    sphere = ellipsoid(points, (1, 2, 3), (9, 9, 9))
    exact = np.linalg.norm(points.T - [1, 2, 3], axis=1) - 9
    assert np.allclose(sphere, exact, atol=1e-3)
    cone, length = tube(points, [[-10, 0, 0], [10, 0, 0]], [5, 5], 1)
    along = np.clip(points[0], -10, 10)
    gap = np.linalg.norm(points.T - np.stack([along, 0 * along, 0 * along], 1), axis=1) - 5
    assert np.allclose(cone, gap, atol=1e-3)
    assert np.allclose(length, along + 10, atol=1e-3)
    union = smooth_min(sphere, cone, 4.0)
    assert (union <= np.minimum(sphere, cone) + 1e-5).all()
    assert (union >= np.minimum(sphere, cone) - 1.0 - 1e-5).all()


def test_several_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantoms(tmp_path / "one", 2, "ct", 1, 6.0)
    monkeypatch.setattr(phantom_files, "_FEWEST_A_PROCESS", 1)
    monkeypatch.setattr(phantom_files, "cpus", lambda: 2)
    write_phantoms(tmp_path / "two", 2, "ct", 1, 6.0)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    monkeypatch.setattr(phantom_files, "_write", _full_disk)
    monkeypatch.setattr(phantom_files, "cpus", lambda: 1)
    with pytest.raises(OSError, match="no space"):
        write_phantoms(tmp_path / "three", 2, "ct", 1, 6.0)


def _full_disk(*args: object) -> None:
    raise OSError("no space")


def test_no_cohort_of_phantoms_takes_all_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="99999999 phantoms: at most 10,000"):
        write_phantoms(tmp_path / "many", 99_999_999)
    assert not (tmp_path / "many").exists()

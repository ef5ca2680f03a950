"""A program's softmax as second opinion: on the cache grid, of the right structures, never of another prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.special import softmax

from whqa.data.cache import Cache, PreparedCase
from whqa.data.folds import make_folds
from whqa.data.preprocess import Preprocess
from whqa.data.sources.folder import read_folder
from whqa.errors import InputError
from whqa.masks.external import ExternalMethod, choose_methods
from whqa.masks.external_opinion import agreement
from whqa.masks.external_settings import ExternalSettings
from whqa.masks.importing import Imported, import_masks
from whqa.masks.made_from import MadeFrom, refuse_mixed_origins, refuse_other_masks, write_made_from
from whqa.masks.opinion import LOWEST_LOG_P
from whqa.masks.store import mask_path, read_index, unseen_by_maker

# acdc: rv 1, myo 2, lv 3
KEYS = ("rv", "myo", "lv")
SHAPE = (14, 12, 10)
# Axes of the stored files: straight; turned, flipped and of three spacings; as most NIfTI files lie.
AXES = {
    "a": np.diag([2.0, 2.5, 3.0]),
    "b": np.array([[0, 2.0, 0], [0, 0, -2.5], [-3.0, 0, 0]]),
    "c": np.diag([-2.0, -2.5, 3.0]),
}


def _affine(case: str) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = AXES[case], (-20, 7, 33)
    return affine


def _save(path: Path, array: np.ndarray, case: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, _affine(case)), path)


def _softmax(case: str, classes: int = 4) -> np.ndarray:
    """(class, X, Y, Z), float16 as nnU-Net keeps it: blocks, each structure present."""
    logits = np.random.default_rng(ord(case)).normal(0, 1, (classes, *SHAPE))
    for number in range(1, classes):
        logits[number, 2 * number : 2 * number + 3, 3:9, 2:8] += 6
    logits[0] += 2
    return softmax(logits, axis=0).astype(np.float16)


class Study:
    """Images, references, and what a program predicted, with its softmax."""

    def __init__(self, root: Path, spacing: float | None = None) -> None:
        self.root, self.experiment, self.softmax = root, root / "runs" / "x", root / "softmax"
        self.softmax.mkdir()
        for case in AXES:
            image = np.random.default_rng(ord(case)).normal(100, 20, SHAPE).astype(np.float32)
            _save(root / "data" / f"{case}_image.nii.gz", image, case)
            _save(root / "data" / f"{case}_label.nii.gz", _softmax(case).argmax(axis=0).astype(np.int16), case)
            self.predict(case, _softmax(case))
        self.cohort = read_folder(root / "data", scheme="acdc")
        cache = Cache(root / "cache", Preprocess(spacing=(spacing,) * 3))
        self.cases: dict[str, PreparedCase] = {c.id: cache.prepare(self.cohort, c) for c in self.cohort.cases}
        self.folds = make_folds(self.cohort, 3, 0)

    def predict(self, case: str, p_CXYZ: np.ndarray, mask: np.ndarray | None = None) -> None:
        labels = p_CXYZ.argmax(axis=0) if mask is None else mask
        _save(self.root / "preds" / f"{case}.nii.gz", labels.astype(np.uint8), case)
        self.tell(case, p_CXYZ.transpose(0, 3, 2, 1))

    def tell(self, case: str, array: np.ndarray) -> None:
        np.savez_compressed(self.softmax / f"{case}.npz", probabilities=array)

    def bring(self, **settings: Any) -> Imported:
        given = {"root": self.root / "preds", "unseen": True, "probabilities": self.softmax}
        method = ExternalMethod("nnunet", **given | settings)
        return import_masks(method, self.experiment, self.cohort, self.folds, self.cases)

    def p(self, **settings: Any) -> dict[str, np.ndarray]:
        found = self.bring(**settings).opinions
        return {case: np.exp(o.codes().astype(float) * LOWEST_LOG_P / 255) for case, o in found.items()}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def _canonical(p_CXYZ: np.ndarray, case: str) -> np.ndarray:
    image = nib.Nifti1Image(np.moveaxis(p_CXYZ.astype(np.float32), 0, -1), _affine(case))
    return np.moveaxis(np.asarray(nib.as_closest_canonical(image).dataobj), -1, 0)


def test_probabilities_come_to_the_grid_of_their_image(study: Study) -> None:
    found = study.p()
    assert list(found) == list(AXES)
    for case, p in found.items():
        expected = _canonical(_softmax(case), case)
        assert p.shape == (4, *study.cases[case].image().shape)
        np.testing.assert_allclose(p, np.maximum(expected, np.exp(LOWEST_LOG_P)), rtol=0.03)
        # but for near ties, which the codes do not tell apart
        mask = next(item for item in study.bring().items if item.case == case).mask()
        assert (p.argmax(axis=0) == mask).mean() > 0.99


@pytest.mark.parametrize("spacing", [1.7, 4.0])
def test_probabilities_are_resampled_linearly_and_add_up_to_one(tmp_path: Path, spacing: float) -> None:
    study = Study(tmp_path, spacing)
    for case, p in study.p().items():
        np.testing.assert_allclose(p.sum(axis=0), 1, atol=0.025)
        geometry = study.cases[case].geometry
        points = [line.positions().clip(0, n - 1) for line, n in zip(geometry.lines(), _turned(case), strict=True)]
        for label in range(4):
            source = _canonical(_softmax(case), case)[label].astype(float)
            for axis, at in enumerate(points):
                source = np.apply_along_axis(lambda v, at=at: np.interp(at, np.arange(len(v)), v), axis, source)
            np.testing.assert_allclose(p[label], source, rtol=0.03, atol=2e-3)
        mask = next(item for item in study.bring().items if item.case == case).mask()
        assert (p.argmax(axis=0) == mask).mean() > 0.9


def _turned(case: str) -> tuple[int, ...]:
    return _canonical(_softmax(case), case).shape[1:]


def test_the_store_says_whose_opinion_it_is(study: Study) -> None:
    imported = study.bring()
    rows = {row["case"]: row for row in read_index(study.experiment / "external" / "nnunet")}
    for case, opinion in imported.opinions.items():
        path = study.experiment / "external" / "nnunet" / "masks" / case / "opinion.npz"
        assert (opinion.case, opinion.path, opinion.segmenter) == (case, path, "nnunet")
        assert unseen_by_maker(path, case, must_be_unseen=True)
        assert imported.digests[f"{case}/opinion"] == rows[case]["opinion_sha256"]
    without = study.bring(probabilities=None)
    assert without.opinions == {}
    assert sorted(without.digests) == [f"{case}/nnunet" for case in AXES]


def test_classes_of_one_structure_are_added_and_other_organs_are_background(study: Study) -> None:
    """Classes 1 and 3 are the left ventricle, 2 the right one, 4 the liver; nobody tells of the myocardium."""
    scheme = {"lv": [1, 3], "rv": 2, "myo": 9, "ignore": [4]}
    for case in AXES:
        study.predict(case, _softmax(case, 5))
    for case, p in study.p(scheme=scheme).items():
        of = _canonical(_softmax(case, 5), case).astype(float)
        expected = np.stack([of[0] + of[4], of[2], np.zeros(of.shape[1:]), of[1] + of[3]])
        np.testing.assert_allclose(p, np.maximum(expected, np.exp(LOWEST_LOG_P)), rtol=0.03)


def test_what_the_program_left_out_is_background(study: Study) -> None:
    p = _softmax("c")
    p[:, 9:] = 0
    study.predict("c", p)
    found, empty = study.p()["c"], _canonical(p, "c").sum(axis=0) == 0
    assert empty.any()
    np.testing.assert_allclose(found[0][empty], 1)
    np.testing.assert_allclose(found[1:, empty], np.exp(LOWEST_LOG_P))


def test_a_mask_from_which_the_program_took_pieces_away_is_still_its_own(study: Study) -> None:
    p = _softmax("a")
    mask = p.argmax(axis=0)
    mask[mask == 3] = 0
    study.predict("a", p, mask)
    assert list(study.bring().opinions) == list(AXES)


def test_files_may_be_named_as_their_mask_or_lie_beside_it(study: Study) -> None:
    expected = study.p()
    for case in AXES:
        (study.root / "preds" / f"{case}.nii.gz").rename(study.root / "preds" / f"{case}_seg.nii.gz")
        (study.softmax / f"{case}.npz").rename(study.root / "preds" / f"{case}_seg.npz")
    found = study.p(pattern="*_seg.nii.gz", probabilities=study.root / "preds")
    for case, p in found.items():
        np.testing.assert_array_equal(p, expected[case])


def test_one_volume_a_class_gives_the_same(study: Study) -> None:
    expected = study.p()
    for case in AXES:
        (study.softmax / f"{case}.npz").unlink()
        _save(study.softmax / f"{case}.nii.gz", np.moveaxis(_softmax(case).astype(np.float32), 0, -1), case)
    for case, p in study.p().items():
        np.testing.assert_array_equal(p, expected[case])


def test_a_turned_mask_turns_its_probabilities(study: Study) -> None:
    expected = study.p()["c"]
    turned = nib.as_closest_canonical(nib.load(study.root / "preds" / "c.nii.gz"))
    nib.save(turned, study.root / "preds" / "c.nii.gz")
    study.tell("c", _canonical(_softmax("c"), "c").astype(np.float16).transpose(0, 3, 2, 1))
    np.testing.assert_array_equal(study.p()["c"], expected)


# -- never silently wrong


def _other_axes(study: Study) -> None:
    study.tell("b", _softmax("b"))


def _flipped(study: Study) -> None:
    study.tell("b", _softmax("b")[:, ::-1].transpose(0, 3, 2, 1))


def _other_order(study: Study) -> None:
    study.tell("b", _softmax("b")[[0, 1, 3, 2]].transpose(0, 3, 2, 1))


def _background_last(study: Study) -> None:
    study.tell("b", _softmax("b")[[1, 2, 3, 0]].transpose(0, 3, 2, 1))


def _other_case(study: Study) -> None:
    p = np.roll(_softmax("b"), 5, axis=2)
    study.tell("b", p.transpose(0, 3, 2, 1))


def _nothing_there(study: Study) -> None:
    study.tell("b", np.array([1, 0, 0, 0], np.float16)[:, None, None, None] * np.ones(SHAPE[::-1], np.float16))


def _more_classes(study: Study) -> None:
    study.tell("b", np.concatenate([_softmax("b"), np.zeros((1, *SHAPE), np.float16)]).transpose(0, 3, 2, 1))


def _lost(study: Study) -> None:
    (study.softmax / "b.npz").unlink()


def _twice(study: Study) -> None:
    _save(study.softmax / "b.nii.gz", np.moveaxis(_softmax("b").astype(np.float32), 0, -1), "b")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_other_axes, r"b\.npz: its probabilities of 4 classes have 10 x 12 x 14 voxels .*not the 14 x 12 x 10 of"),
        (
            _flipped,
            r"b\.npz: case b: its most probable labels and the mask .* have only \d+ % of .* in common",
        ),
        (_other_order, r"case b: .* have only \d % of structure (myo|lv) in common.*in another order than \(class, z"),
        (_background_last, r"case b: .* have only \d+ % of "),
        (_other_case, r"case b: .* in common; .*or leave masks\.external\.nnunet\.probabilities out$"),
        (_nothing_there, r"case b: .* have only 0 % of structure rv in common"),
        (_more_classes, r"holds 5 classes, .*'acdc' has no 4; say what .* in \+\+masks\.external\.nnunet\.scheme"),
        (_lost, r"b\.npz: no such probabilities, as of 1 of 3 cases; add them .*--save_probabilities"),
        (_twice, r"b\.npz and b\.nii\.gz are both probabilities of case b; remove one"),
    ],
)
def test_what_is_not_the_masks_own_softmax_is_refused_in_one_line(
    spoil: Callable[[Study], None], says: str, study: Study
) -> None:
    spoil(study)
    with pytest.raises(InputError, match=says) as caught:
        study.bring()
    assert "\n" not in str(caught.value)


def test_a_swap_of_two_small_structures_is_noticed() -> None:
    """Of all voxels, and of those of the heart, nearly all agree; of the two structures none does."""
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[2:18, 2:18, 2:18], mask[3, 3, 3:9], mask[5, 5, 3:9] = 1, 2, 3
    told = np.array([0, 1, 3, 2], np.uint8)[mask]
    assert (told == mask).mean() > 0.998
    np.testing.assert_allclose(agreement(told, mask, 5), [1, 1, 0, 0, np.nan])
    np.testing.assert_allclose(agreement(mask, mask, 5), [1, 1, 1, 1, np.nan])


# -- what is there is kept, and made again when it must


def _damaged(study: Study) -> None:
    mask_path(study.experiment / "external" / "nnunet", "b", "opinion").write_bytes(b"PK\x03\x04 half")


def _replaced(study: Study) -> None:
    path = mask_path(study.experiment / "external" / "nnunet", "b", "opinion")
    with np.load(path) as arrays:
        known = dict(arrays)
    np.savez_compressed(path, **known | {"log_p": np.zeros_like(known["log_p"])})


@pytest.mark.parametrize("change", [_damaged, _replaced])
def test_an_opinion_is_made_again_when_it_must(study: Study, change: Callable[[Study], None]) -> None:
    first, before = study.bring(), study.p()
    times = {o.case: o.path.stat().st_mtime_ns for o in first.opinions.values()}
    change(study)
    assert study.bring() == first
    after = study.p()
    for case in AXES:
        np.testing.assert_array_equal(after[case], before[case])
    assert {o.case for o in first.opinions.values() if o.path.stat().st_mtime_ns != times[o.case]} == {"b"}


def test_a_network_is_not_continued_on_other_opinions(study: Study) -> None:
    run_dir = study.experiment / "errormap" / "0"
    (run_dir.parent / "0").mkdir(parents=True)
    write_made_from(run_dir, MadeFrom({}, {"nnunet": study.bring().digests}))
    (run_dir / "checkpoints").mkdir()
    refuse_other_masks([run_dir], {"nnunet": study.bring().digests})
    refuse_mixed_origins(study.experiment, [])
    p = _softmax("b").astype(np.float32)
    study.tell(
        "b", (0.9 * p + 0.1 * (np.arange(4) == p.argmax(axis=0)[..., None]).transpose(3, 0, 1, 2)).transpose(0, 3, 2, 1)
    )
    with pytest.raises(InputError, match=r"other masks .*\(masks of nnunet: case b\)"):
        refuse_other_masks([run_dir], {"nnunet": study.bring().digests})
    with pytest.raises(InputError, match="case b"):
        refuse_mixed_origins(study.experiment, [])


# -- settings


def test_an_opinion_must_be_unseen_and_have_classes() -> None:
    with pytest.raises(
        InputError, match=r"^masks\.external\.a\.probabilities: .* state \+\+masks\.external\.a\.unseen"
    ):
        ExternalMethod("a", "preds", probabilities="softmax")
    with pytest.raises(InputError, match=r"binary masks \(parts\) have no classes; leave masks\.external\.a\.prob"):
        ExternalMethod("a", "preds", parts={"lv": "x.nii"}, unseen=True, probabilities="softmax")


def test_one_program_speaks_and_only_where_there_are_no_segmenters() -> None:
    of = {name: ExternalSettings(f"/{name}", unseen=True, probabilities="/p") for name in "ab"}
    silent = ExternalSettings("/c", unseen=True)
    chosen, methods = choose_methods(None, of)
    assert chosen.needs_segmenters
    assert [m.probabilities for m in methods] == [None, None]
    chosen, methods = choose_methods(["a", "c"], of | {"c": silent})
    assert [(m.name, m.probabilities) for m in methods] == [("a", "/p"), ("c", None)]
    with pytest.raises(
        InputError, match=r"masks\.external\.a\.probabilities and masks\.external\.b\.probabilities: one"
    ):
        choose_methods(["a", "b"], of)

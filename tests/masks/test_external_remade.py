"""Masks of another program are kept, and made again as soon as what they follow from changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from external_study import (
    AXES,
    OBLIQUE,
    SHAPE,
    Study,
    affine_of,
    canonical,
    perturbed,
    save_image,
)

from whqa.errors import InputError
from whqa.masks.external import ExternalMethod, predictions
from whqa.masks.made_from import MadeFrom, refuse_other_masks, write_made_from
from whqa.masks.run_state import COMPLETED
from whqa.masks.store import mask_path, read_index, write_mask


def _times(study: Study) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (study.experiment / "external").rglob("*.*") if p.is_file()} | {
        case: mask_path(study.experiment / "external" / "nnunet", case, "nnunet").stat().st_mtime_ns for case in AXES
    }


def test_what_is_there_is_kept(study: Study) -> None:
    first = study.bring()
    before = _times(study)
    assert study.bring() == first
    assert _times(study) == before


def _change_prediction(study: Study) -> None:
    # of the same size and with the old time, as a careless copy leaves it
    path = study.root / "preds" / "c.nii.gz"
    times = path.stat()
    save_image(path, np.roll(perturbed("c"), 1, axis=0), affine_of(OBLIQUE))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _damage_mask(study: Study) -> None:
    mask_path(study.experiment / "external" / "nnunet", "c", "nnunet").write_bytes(b"PK\x03\x04 half")


def _replace_mask(study: Study) -> None:
    path = mask_path(study.experiment / "external" / "nnunet", "c", "nnunet")
    write_mask(path, np.ones(SHAPE), None, "nnunet", True, made_from=np.array("0" * 16))


def _lose_row(study: Study) -> None:
    table = study.experiment / "external" / "nnunet" / "cases.csv"
    table.write_text("".join(x for x in table.read_text().splitlines(keepends=True) if not x.startswith("c,")))


@pytest.mark.parametrize("change", [_change_prediction, _damage_mask, _replace_mask, _lose_row])
def test_a_mask_is_made_again_when_it_must(study: Study, change: Callable[[Study], None]) -> None:
    study.bring()
    before = _times(study)
    change(study)
    mask = study.masks()["c"]
    np.testing.assert_array_equal(mask, canonical(study.root / "preds" / "c.nii.gz"))
    after = _times(study)
    assert {case for case in AXES if after[case] != before[case]} == {"c"}
    assert len(read_index(study.experiment / "external" / "nnunet")) == 4


def test_another_reference_is_measured_again(root: Path) -> None:
    Study(root).bring()
    shutil.copy(root / "preds" / "c.nii.gz", root / "data" / "c_label.nii.gz")
    rates = {item.case: item.error_rate for item in Study(root).bring().items}
    assert rates.pop("c") == 0
    assert min(rates.values()) > 0


def test_an_unreadable_index_is_made_again(study: Study) -> None:
    first = study.bring()
    (study.experiment / "external" / "nnunet" / "cases.csv").write_bytes(b"\xff\xfe\x00case\x00\n1\n")
    assert study.bring() == first


def test_several_at_once_write_the_same(root: Path) -> None:
    study, other = Study(root), Study(root)
    other.experiment = root / "runs" / "alone"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: study.bring(), range(4)))
    alone = other.bring()
    for one in found:
        assert one.digests == alone.digests
        assert one.items == tuple(replace(i, path=o.path) for i, o in zip(alone.items, one.items, strict=True))
    assert not list(root.rglob(".*.npz"))


@pytest.mark.parametrize("began", ["checkpoints", COMPLETED])
def test_a_network_is_not_continued_on_other_masks(study: Study, began: str) -> None:
    run_dir = study.experiment / "errormap" / "0"
    run_dir.mkdir(parents=True)
    write_made_from(run_dir, MadeFrom({}, {"nnunet": study.bring().digests}))
    place = run_dir / began
    place.mkdir() if began == "checkpoints" else place.touch()
    refuse_other_masks([run_dir], {"nnunet": study.bring().digests})
    _change_prediction(study)
    now = {"nnunet": study.bring().digests}
    with pytest.raises(InputError, match=r"errormap/0: holds a run with other masks .*\(masks of nnunet: case c\)"):
        refuse_other_masks([run_dir], now)
    place.rmdir() if place.is_dir() else place.unlink()
    refuse_other_masks([run_dir], now)


def test_predictions_take_the_place_of_the_reference(study: Study) -> None:
    found = predictions(ExternalMethod("nnunet", study.root / "preds"), study.cohort)
    assert [(c.id, c.label) for c in found] == [(c, study.root / "preds" / f"{c}.nii.gz") for c in AXES]
    assert all(c.image == study.cohort[c.id].image for c in found)

"""The judge that knows the phantoms' truth, against numpy on phantoms made anew and written masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from whqa.data.phantom import make_phantom
from whqa.errors import InputError
from whqa.masks.store import mask_path, write_mask
from whqa.structures import MMWHS
from whqa.sweep.ceiling import NOISE_FREE, ROWS, noise_free_rows

CASE, SPACING = "mr_train_1002", 6.0


@pytest.fixture(scope="module")
def volumes() -> dict[str, np.ndarray]:
    """Label and truth along R, A, S at their own spacing, and a mask of the truth with a hole."""
    import nibabel as nib

    phantom = make_phantom(3, 1, "mr", SPACING)
    found = {
        name: np.asarray(nib.as_closest_canonical(nib.Nifti1Image(values, phantom.affine)).dataobj)
        for name, values in (("label", phantom.label), ("truth", phantom.truth))
    }
    found = {name: MMWHS.to_indices(values, name) for name, values in found.items()}
    holed = found["truth"].copy()
    middle = [int(m) for m in np.argwhere(holed == 1).mean(axis=0)]
    holed[tuple(slice(m - 2, m + 2) for m in middle)] = 0
    return found | {"holed": holed}


@pytest.fixture
def run(tmp_path: Path, volumes: dict[str, np.ndarray]) -> tuple[Path, pd.DataFrame]:
    """A run of one phantom with three masks, and the rows of its network."""
    config = {
        "stage": "errormap",
        "fold": "0",
        "errormap": {"head": "label"},
        "network": {"width": 1},
        "data": {"_target_": "whqa.data.phantom.phantom_cohort", "seed": 3, "spacing_mm": SPACING},
        "preprocess": {
            "spacing": [None] * 3,
            "crop_mm": None,
            "centre": "image",
            "ct_window": [-200, 800],
            "mr_percentiles": [0.5, 99.5],
        },
    }
    (tmp_path / "errormap" / "0").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), tmp_path / "errormap" / "0" / "config.yaml")
    rows = []
    for kind, name in (("final", "holed"), ("early", "truth"), ("reference", "label")):
        write_mask(mask_path(tmp_path / "segmenter" / "0", CASE, kind), volumes[name], None, "0", True)
        acc = float((volumes[name] == volumes["label"]).mean())
        row = {"case": CASE, "mask_kind": kind, "method": "errormap", "segmenter": "0", "acc_volume": acc}
        rows.append(row | {"seconds": 1.0, "error_dice": 0.5})
    return tmp_path, pd.DataFrame(rows)


def test_it_calls_wrong_what_differs_from_the_truth(
    run: tuple[Path, pd.DataFrame], volumes: dict[str, np.ndarray]
) -> None:
    found = noise_free_rows(*run)
    assert found is not None
    assert set(found["method"]) == {NOISE_FREE}
    label, truth = volumes["label"], volumes["truth"]
    for row, name in zip(found.to_dict("records"), ("holed", "truth", "label"), strict=True):
        wrong, called = volumes[name] != label, volumes[name] != truth
        total = wrong.sum() + called.sum()
        assert row["error_dice"] == pytest.approx(2 * (wrong & called).sum() / total)
        assert row["qi_volume"] == pytest.approx(1 - called.mean())
        assert np.isnan(row["seconds"]), "that is the other method's"
        lv = 2 * ((volumes[name] == 1) & (truth == 1)).sum() / ((volumes[name] == 1).sum() + (truth == 1).sum())
        assert row["dice_lv_predicted"] == pytest.approx(lv)
    assert 0 < found["error_dice"][0] < 1, "the label has noise"
    assert found["error_dice"][1] == found["error_dice"][2] == 0


def test_rows_are_made_once_and_anew_for_other_masks(run: tuple[Path, pd.DataFrame]) -> None:
    directory, first = run
    made = noise_free_rows(directory, first)
    assert made is not None
    written = (directory / ROWS).read_bytes()
    (directory / "segmenter").rename(directory / "gone")
    kept = noise_free_rows(directory, first)
    assert kept is not None
    np.testing.assert_allclose(kept["error_dice"], made["error_dice"])
    assert (directory / ROWS).read_bytes() == written
    with pytest.raises(InputError, match="final"):
        noise_free_rows(directory, first.assign(acc_volume=0.5))


def test_other_phantoms_than_those_that_were_judged_are_refused(run: tuple[Path, pd.DataFrame]) -> None:
    directory, first = run
    with pytest.raises(InputError, match=r"config\.yaml .* not those"):
        noise_free_rows(directory, first.assign(acc_volume=0.5))


def test_no_truth_is_known_of_scans(run: tuple[Path, pd.DataFrame]) -> None:
    directory, first = run
    config = directory / "errormap" / "0" / "config.yaml"
    config.write_text(config.read_text().replace("phantom.phantom_cohort", "sources.folder.read_folder"))
    assert noise_free_rows(directory, first) is None
    config.unlink()
    assert noise_free_rows(directory, first) is None, "a run of an earlier version"

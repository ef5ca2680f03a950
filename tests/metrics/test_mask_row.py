import numpy as np
import torch

from whqa.metrics.mask_row import mask_columns, measure_mask


def test_a_row_names_what_it_measures() -> None:
    rng = np.random.default_rng(0)
    mask, reference = (torch.from_numpy(rng.integers(0, 3, (6, 5, 4)).astype("uint8")) for _ in range(2))
    row = measure_mask(mask, reference, (1.0, 1.0, 2.0), ("lv", "rv"), surfaces=True)
    assert tuple(row) == mask_columns(("lv", "rv")) == ("error_rate", "dice_lv", "dice_rv", "hd95_lv", "hd95_rv")
    assert row["error_rate"] == float((mask != reference).double().mean())
    for label, key in ((1, "lv"), (2, "rv")):
        a, b = (mask == label).numpy(), (reference == label).numpy()
        np.testing.assert_allclose(row[f"dice_{key}"], 2 * (a & b).sum() / (a.sum() + b.sum()), rtol=1e-12)
        assert row[f"hd95_{key}"] > 0


def test_distances_are_left_out_where_nobody_wants_them() -> None:
    mask = torch.ones(3, 3, 3, dtype=torch.uint8)
    row = measure_mask(mask, mask, (1.0, 1.0, 1.0), ("lv",), surfaces=False)
    assert (row["error_rate"], row["dice_lv"]) == (0.0, 1.0)
    assert np.isnan(row["hd95_lv"])

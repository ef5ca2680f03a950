"""A network that looks at an input, and one that does not, with another patient's in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from whqa.callbacks.shuffled import Shuffled, make_shuffled
from whqa.errors import InputError
from whqa.loading.brightness import brightness
from whqa.modules.errormap import RawVerdict
from whqa.modules.volume_batches import judged_case
from whqa.results.tables import ABLATIONS

SHAPES = {"a": (6, 7, 8), "a2": (6, 7, 8), "b": (8, 7, 5)}
ITEMS = [(case, kind) for case in SHAPES for kind in ("final", "corrupted1", "corrupted2", "nnunet")]


class _Data(SimpleNamespace):
    """Stands for a data module."""

    def __init__(self, items: Sequence[tuple[str, str]] = ITEMS) -> None:
        self.test_items = items
        self.cases = {case: SimpleNamespace(patient=case[0]) for case in SHAPES}

    def volumes(self, items: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        return ({k: v[0] if isinstance(v, Tensor) else v for k, v in _batch(*item).items()} for item in items)


class _Module(SimpleNamespace):
    """Stands for an error-map module; remembers what it was shown and about which mask it was asked."""

    n_classes = 3

    def raw(self, batch: dict[str, Any], shown: dict[str, Any]) -> RawVerdict:
        self.asked, self.shown = batch, shown
        return RawVerdict(torch.zeros(batch["mask"].shape[1:]), None)

    def judged(self, batch: dict[str, Any]) -> Any:
        return judged_case(batch)

    def predict(self, raw: RawVerdict, case: Any) -> Any:
        return case


def _batch(case: str, kind: str) -> dict[str, Any]:
    rng = np.random.default_rng([len(case), ord(case[0]), len(kind), ord(kind[-1])])
    mask = torch.from_numpy(rng.integers(0, 3, (1, *SHAPES[case])))
    image = torch.from_numpy(rng.standard_normal((1, 1, *SHAPES[case]))).float()
    spacing = (2.0, 2.0, 3.0)
    seen = brightness(image[0, 0].numpy(), mask[0].numpy().astype(np.uint8), spacing, 3)
    return {
        "image": image,
        "plain": image,
        "mask": mask,
        "label": mask,
        "brightness": torch.from_numpy(seen)[None],
        "spacing": torch.tensor([spacing]),
        "case": [case],
        "kind": [kind],
    }


@pytest.mark.parametrize("kind", ["final", "corrupted1", "nnunet"])
def test_the_mask_of_another_patient_is_shown_and_the_own_is_judged(kind: str) -> None:
    module, batch = _Module(), _batch("a", kind)
    judged = Shuffled("mask").predict(module, _Data(), batch)  # type: ignore[arg-type]
    other = _batch("b", kind)["mask"]
    # 8 x 7 x 5 -> 6 x 7 x 8: cut to its middle, and padded with background
    expected = torch.zeros(1, 6, 7, 8, dtype=torch.int64)
    expected[..., 1:6] = other[:, 1:7]
    assert torch.equal(module.shown["mask"], expected)
    assert torch.equal(module.shown["image"], batch["image"])
    seen = brightness(batch["image"][0, 0].numpy(), expected[0].numpy().astype(np.uint8), (2.0, 2.0, 3.0), 3)
    np.testing.assert_array_equal(module.shown["brightness"][0], seen)
    assert torch.equal(module.asked["mask"], batch["mask"])
    assert torch.equal(judged.mask.long(), batch["mask"][0])  # type: ignore[union-attr]


def test_the_image_of_another_patient_is_shown_with_what_follows_from_it() -> None:
    module, batch = _Module(), _batch("b", "final")
    Shuffled("image").predict(module, _Data(), batch)  # type: ignore[arg-type]
    other = _batch("a", "final")["image"]
    expected = torch.full((1, 1, 8, 7, 5), float(other.min()))
    expected[:, :, 1:7] = other[..., 1:6]
    assert torch.equal(module.shown["image"], expected)
    assert torch.equal(module.shown["plain"], expected)
    assert torch.equal(module.shown["mask"], batch["mask"])
    seen = brightness(expected[0, 0].numpy(), batch["mask"][0].numpy().astype(np.uint8), (2.0, 2.0, 3.0), 3)
    np.testing.assert_array_equal(module.shown["brightness"][0], seen)


def test_one_mask_of_a_family_is_enough() -> None:
    assert Shuffled("mask").predict(_Module(), _Data(), _batch("a", "corrupted2")) is None  # type: ignore[arg-type]


def test_a_fold_of_one_patient_has_nobody_to_exchange_with() -> None:
    data = _Data([item for item in ITEMS if item[0] != "b"])
    with pytest.raises(InputError, match=r"no mask 'final' of another patient; leave it out, or use fewer folds"):
        Shuffled("mask").predict(_Module(), data, _batch("a2", "final"))  # type: ignore[arg-type]


def test_only_inputs_that_are_masks_or_images_are_exchanged() -> None:
    assert [one.name for one in make_shuffled(["mask", "image", "mask"])] == list(ABLATIONS)
    with pytest.raises(InputError, match=r"errormap\.shuffled=\['label'\]: must be some of mask, image"):
        make_shuffled(["label"])


def test_a_program_with_masks_of_one_patient_alone_has_no_row() -> None:
    items = [("a", "final"), ("b", "final"), ("a", "nnunet"), ("a2", "nnunet")]
    for name in ("mask", "image"):
        assert Shuffled(name).predict(_Module(), _Data(items), _batch("a", "nnunet")) is None  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no mask 'final' of another patient"):
        Shuffled("mask").predict(_Module(), _Data([("a", "final")]), _batch("a", "final"))  # type: ignore[arg-type]

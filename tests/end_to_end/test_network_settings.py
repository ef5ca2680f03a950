"""Settings of the error-map network that are off by default: trained, loaded and assessed; what they want is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from whqa.assessment import assess, load_run

ALL = (
    "errormap.inputs=[image,mask,distances,opinion]",
    "errormap.deep_mask=true",
    "errormap.warm_start=true",
    "errormap.opinion_dropout=0.3",
    "errormap.mask_dropout=0.3",
    "errormap.opinion_views=false",
)
# The least that there is: weights stay what they start as.
STILL = ("errormap.learning_rate=1e-12", "errormap.weight_decay=0")


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_network_with_all_of_them_starts_from_its_own_folds_segmenter_and_is_assessed(
    segmented: Path, tmp_path: Path, train: Callable[..., int], tiny: Callable[[Path], list[str]]
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), *ALL, *STILL, "stage=errormap", "fold=1") == 0
    study = tmp_path / "runs" / "tiny"
    own, given = _weights(study / "errormap" / "1"), _weights(study / "segmenter" / "1")
    other = _weights(study / "segmenter" / "0")
    for name in ("network.stages.1.1.conv2.weight", "network.stages.0.0.weight"):
        torch.testing.assert_close(own[name], given[name], atol=1e-6, rtol=0)
        assert not torch.allclose(own[name], other[name], atol=1e-3)
    torch.testing.assert_close(own["network.stem.0.weight"][:, :1], given["network.stem.0.weight"], atol=1e-6, rtol=0)
    for values in (own["network.stem.0.weight"][:, 1:], own["network.joins.2.mix.weight"]):
        torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-6, rtol=0)
    run = load_run(study)
    assert run.networks[0].module.seen == ("image", "mask", "distances", "opinion")
    assert not run.networks[0].module.hears_views
    image = next((tmp_path / "data").rglob("ct_train_1001_image.nii.gz"))
    found = assess(image, image.with_name(image.name.replace("image", "label")), run)
    assert 0 <= found.quality["qi"]["heart"]["value"] <= 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["errormap.warm_start=true", "errormap.validation_fraction=0.5"],
            "must not have learned from the cases that its successor is calibrated on; set "
            "segmenter.validation_fraction=0.5 too, or errormap.warm_start=false",
        ),
        (
            ["errormap.warm_start=true", "errormap.inputs=[mask,opinion]"],
            "errormap.warm_start=true: the network does not see the image; set errormap.warm_start=false",
        ),
        (
            ["errormap.deep_mask=true", "network=dynunet"],
            "errormap.deep_mask=true: whqa.networks.monai_networks.dynunet cannot; use network=voxresnet, or "
            "errormap.deep_mask=false",
        ),
        (["errormap.deep_mask=true", "errormap=mask_withheld"], "errormap.inputs=['image'] withholds the mask"),
        (
            ["errormap.opinion_dropout=0.2", "errormap=no_opinion"],
            "errormap.opinion_dropout=0.2: no opinion is heard; set it to 0",
        ),
        (
            ["errormap.mask_dropout=0.2", "errormap.head=binary"],
            "errormap.mask_dropout=0.2: wants a network that sees the mask and says which label is right; set it to 0, "
            "or errormap.inputs=null errormap.head=label",
        ),
    ],
)
def test_what_a_setting_wants_is_said(
    words: list[str],
    says: str,
    segmented: Path,
    tmp_path: Path,
    train: Callable[..., int],
    tiny: Callable[[Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(segmented, tmp_path, dirs_exist_ok=True)
    assert train(*tiny(tmp_path), *words, "stage=errormap", "fold=0") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in line
    assert not (tmp_path / "runs" / "tiny" / "errormap" / "0" / "checkpoints").exists()

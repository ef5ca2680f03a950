"""Pictures of a few masks, fixed ones and the worst judged ones: image with mask, true error, predicted error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl

from whqa.callbacks.ranks import gather_by_index
from whqa.files import atomic_path
from whqa.masks.plan import is_delivered
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction, JudgedCase, one_minus_mean
from whqa.structures import LabelScheme


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a picture needs, in the smallest types that show it."""

    title: str
    name: str
    image: npt.NDArray[np.float16]
    mask: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float16]
    error_map: npt.NDArray[np.bool_]
    spacing: tuple[float, float, float]


class Overlays(pl.Callback):
    """In the test loop: a PNG for the final mask of each of the first `n` cases, and for the 2 n worst judged others.

    Worst judged are the delivered masks with the largest |QI - Acc| over the volume: the summary page shows them. Where
    no final masks are judged, those of the first other program take their place.

    Args:
        directory: where <case>-<kind>.png is written.
        scheme: gives colours and names.
        n: number of fixed cases.
    """

    def __init__(self, directory: Path, scheme: LabelScheme, n: int) -> None:
        self.directory = directory
        self.scheme = scheme
        self.n = n
        self.worst: dict[int, tuple[float, _Shown]] = {}

    def on_test_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget what another test left."""
        self.worst = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Draw the mask if it is one of the fixed ones; keep it if it is among the worst so far."""
        if not self.n or not is_delivered(batch["kind"][0]):
            return
        items = trainer.datamodule.test_items  # type: ignore[attr-defined]
        fixed = sorted({case for case, _ in items})[: self.n]
        delivered = sorted({kind for _, kind in items if is_delivered(kind)}, key=lambda kind: (kind != "final", kind))
        case = judged_case(batch)
        if case.case in fixed and case.kind == delivered[0]:
            self._draw(_shown(case, outputs))
            return
        gap = abs(outputs.quality() - one_minus_mean(case.error))
        if len(self.worst) < 2 * self.n or gap > min(self._gaps().values()):
            self.worst[int(batch["index"][0])] = (gap, _shown(case, outputs))
            self.worst = {index: self.worst[index] for index in self._highest(self._gaps())}

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Draw what is among the worst of all processes."""
        for index in self._highest(gather_by_index(self._gaps())):
            if index in self.worst:
                self._draw(self.worst[index][1])
        self.worst = {}

    def _gaps(self) -> dict[int, float]:
        return {index: gap for index, (gap, _) in self.worst.items()}

    def _highest(self, gaps: dict[int, float]) -> list[int]:
        return sorted(gaps, key=lambda index: (-gaps[index], index))[: 2 * self.n]

    def _draw(self, shown: _Shown) -> None:
        # matplotlib is needed for a few cases only
        from whqa.report.slices import overlay_figure
        from whqa.report.style import png

        figure = overlay_figure(
            shown.image,
            shown.mask,
            shown.reference,
            shown.probability,
            shown.error_map,
            shown.spacing,
            self.scheme.colours,
            self.scheme.titles,
            shown.title,
        )
        with atomic_path(self.directory / f"{shown.name}.png") as temporary:
            temporary.write_bytes(png(figure, dpi=110))


def _shown(case: JudgedCase, verdict: ErrorPrediction) -> _Shown:
    assert case.reference is not None
    return _Shown(
        f"{case.case}, {case.kind} mask",
        f"{case.case}-{case.kind}",
        case.image.half().cpu().numpy(),
        case.mask.cpu().numpy(),
        case.reference.cpu().numpy(),
        verdict.probability.half().cpu().numpy(),
        verdict.error_map.cpu().numpy(),
        case.spacing,
    )

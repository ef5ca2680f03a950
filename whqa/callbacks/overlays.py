"""Pictures of a few fixed cases: image with mask, true error, predicted error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from whqa.callbacks.tables import judged_case
from whqa.files import atomic_path
from whqa.masks.plan import is_delivered
from whqa.structures import LabelScheme


class Overlays(pl.Callback):
    """In the test loop: one PNG for the final mask of each of the first `n` test cases.

    Where no final masks are judged, those of the first other program take their place.

    Args:
        directory: where <case>-final.png is written.
        scheme: gives colours and names.
        n: number of cases.
    """

    def __init__(self, directory: Path, scheme: LabelScheme, n: int) -> None:
        self.directory = directory
        self.scheme = scheme
        self.n = n

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Draw the case if it is one of the fixed ones."""
        items = trainer.datamodule.test_items  # type: ignore[attr-defined]
        fixed = sorted({case for case, _ in items})[: self.n]
        delivered = sorted({kind for _, kind in items if is_delivered(kind)}, key=lambda kind: (kind != "final", kind))
        if batch["case"][0] not in fixed or batch["kind"][0] not in delivered[:1]:
            return
        from whqa.report.slices import overlay_figure  # matplotlib is needed for a few cases only

        case = judged_case(batch)
        assert case.reference is not None
        figure = overlay_figure(
            case.image.cpu().numpy(),
            case.mask.cpu().numpy(),
            case.reference.cpu().numpy(),
            outputs.probability.cpu().numpy(),
            outputs.error_map.cpu().numpy(),
            case.spacing,
            self.scheme.colours,
            self.scheme.titles,
            f"{case.case}, {case.kind} mask",
        )
        with atomic_path(self.directory / f"{case.case}-{case.kind}.png") as temporary:
            figure.savefig(temporary, dpi=110)

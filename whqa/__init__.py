"""Segmentation quality assessment for whole hearts: error maps, quality indicators and cross-validated experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whqa.assessment import Assessment

__version__ = "0.1.0"


def assess(image: Any, mask: Any, model: Any, **options: Any) -> Assessment:
    """Judge one mask of one image, see `whqa.assessment.pipeline.assess`."""
    from whqa.assessment import assess as judge  # torch takes seconds to import

    return judge(image, mask, model, **options)

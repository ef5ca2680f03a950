"""Synthetic whole hearts, CT-like or MR-like, in the MMWHS file layout."""

from whqa.data.phantom.cohort import Phantom, make_phantom, phantom_cohort, write_phantoms

__all__ = ["Phantom", "make_phantom", "phantom_cohort", "write_phantoms"]

"""Synthetic whole hearts, CT-like or MR-like, in the MMWHS file layout."""

from whqa.data.phantom.phantom_files import phantom_cohort, phantom_of_case, write_phantoms
from whqa.data.phantom.synthesis import Phantom, make_phantom

__all__ = ["Phantom", "make_phantom", "phantom_cohort", "phantom_of_case", "write_phantoms"]

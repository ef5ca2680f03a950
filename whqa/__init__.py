"""Segmentation quality assessment for whole hearts: error maps, quality indicators and cross-validated experiments."""

__version__ = "0.1.0"

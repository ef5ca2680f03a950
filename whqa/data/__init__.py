"""Cohorts, preprocessing, cache, folds, patches and the data module."""

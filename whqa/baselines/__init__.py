"""Baselines behind the interface of the error-map network."""

"""Readers of public data layouts: one small file a layout."""

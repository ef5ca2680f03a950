"""Masks under judgement: which segmenter makes them (plan) and where they lie (store)."""

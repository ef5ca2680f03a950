"""Metrics as torchmetrics classes over functional cores."""

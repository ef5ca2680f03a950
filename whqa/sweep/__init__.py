"""A sweep: every combination of some settings is a whole cross-validation, and one table compares them."""

"""What can be wrong with a case or a cohort: one small module a kind, pure functions on arrays, grids and records."""

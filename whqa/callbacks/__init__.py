"""Lightning callbacks: they drive metrics and write tables, pictures and masks."""

"""What other programs rely on: the content of quality.json and summary.json, key by key."""

"""One training loop for every network: an objective is a file, the rest is shared."""

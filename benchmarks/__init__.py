"""What `make bench` runs: every figure is a ratio against a baseline of the same run."""

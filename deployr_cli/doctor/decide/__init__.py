"""What the answers mean: pure decisions of `deployr doctor`."""

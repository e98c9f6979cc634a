"""The feature declarations that are shipped, not yet fitted, and their schema."""

"""Where training data comes from: a warehouse extract and its mapping, read into the facts of the core."""

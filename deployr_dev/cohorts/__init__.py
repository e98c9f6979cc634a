"""Tasks: which rows there are, when each is predicted, and what its label is."""

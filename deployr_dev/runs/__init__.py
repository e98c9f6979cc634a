"""Model configs and training runs: what is declared, what it was trained on, and what came of it."""

"""Whether a model in service still works, and whether it helps: arrays in, figures with intervals out."""

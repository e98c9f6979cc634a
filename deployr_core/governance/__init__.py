"""Governance papers: what each asks, what is known, what is missing, and whether a model is fit to go live. Pure."""

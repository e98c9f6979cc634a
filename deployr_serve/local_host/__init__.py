"""Runs function_app.py without Azure."""

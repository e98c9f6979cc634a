"""Attach the outcomes that were observed later."""

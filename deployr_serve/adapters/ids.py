"""Ids that mean nothing but themselves."""

from __future__ import annotations

import uuid


def new_correlation_id() -> str:
    """Give a fresh id to follow one request through the logs by."""
    return str(uuid.uuid4())

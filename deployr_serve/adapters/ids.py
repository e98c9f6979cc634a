"""Ids that mean nothing but themselves."""

from __future__ import annotations

import uuid


def new_correlation_id() -> str:
    """Give a fresh id to follow one request through the logs by."""
    return str(uuid.uuid4())


def new_entry_id() -> str:
    """Give a fresh id for something that is kept for a while and named by nothing else."""
    return uuid.uuid4().hex

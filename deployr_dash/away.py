"""What pages say where something of the site's cannot be read right now."""

from __future__ import annotations


class StoreAway(Exception):
    """The store, or what lies beside it, cannot be read; the message is a sentence that says what to do."""

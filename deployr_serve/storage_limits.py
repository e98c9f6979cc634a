"""How long a call to Azure Storage may take, for the app and for the local host alike."""

from __future__ import annotations

from typing import Any


def storage_limits(*, connecting_s: float, reading_s: float) -> dict[str, Any]:
    """Give a storage client's arguments: one repeat, soon; whoever asked does so again.

    The SDK's own limits repeat three times, and wait 15 s before the first: somebody waits for an answer here.

    Args:
        connecting_s: the longest that a connection may take, s.
        reading_s: the longest that an answer may take, s.

    Source: azure-core's ``ExponentialRetry`` of the storage clients, ``initial_backoff`` and ``random_jitter_range``.
    """
    return {
        "retry_total": 1,
        "initial_backoff": 0.1,
        "random_jitter_range": 0.1,
        "connection_timeout": connecting_s,
        "read_timeout": reading_s,
    }

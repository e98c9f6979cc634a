"""What an answer of Azure Cosmos DB means for the call that got it."""

from __future__ import annotations

from enum import Enum, auto

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from deployr_serve.core.errors import StoreUnavailable


class Verdict(Enum):
    """What to make of it.

    ``TAKEN``: the id is. ``CHANGED``: it no longer has the tag. ``ABSENT``: no such item. ``AGAIN``: nothing was done,
    and the same call may be made again at once. ``UNKNOWN``: it may or may not have been done. The others end the call,
    with nothing done: ``THROTTLED``, ``REFUSED`` (key or identity), ``SKEWED`` (our clock), ``FULL`` (the
    partition), ``TOO_LARGE``, ``DOWN``.
    """

    TAKEN = auto()
    CHANGED = auto()
    ABSENT = auto()
    AGAIN = auto()
    UNKNOWN = auto()
    THROTTLED = auto()
    REFUSED = auto()
    SKEWED = auto()
    FULL = auto()
    TOO_LARGE = auto()
    DOWN = auto()


_BY_STATUS = {
    401: Verdict.REFUSED,
    403: Verdict.REFUSED,
    408: Verdict.UNKNOWN,
    409: Verdict.TAKEN,
    410: Verdict.AGAIN,
    412: Verdict.CHANGED,
    413: Verdict.TOO_LARGE,
    429: Verdict.THROTTLED,
    449: Verdict.AGAIN,
    **dict.fromkeys((500, 502, 503, 504), Verdict.UNKNOWN),
}
_BY_SUBSTATUS = {
    # Writes are forbidden, or the account is not found, while another region takes over: no question of credentials.
    (403, 3): Verdict.DOWN,
    (403, 1008): Verdict.DOWN,
    (403, 1014): Verdict.FULL,
}
_SAID = {
    Verdict.AGAIN: ("expected a call that the store can carry out; others keep getting in its way", "unavailable"),
    Verdict.UNKNOWN: ("expected an answer of the store", "unavailable"),
    Verdict.THROTTLED: ("expected the store to have throughput left", "throttled"),
    Verdict.REFUSED: ("expected the store to let this app in; see its key or its identity's roles", "refused"),
    Verdict.SKEWED: ("expected this machine's clock to be within 15 minutes of the store's", "clock-skew"),
    Verdict.FULL: ("expected a partition of less than 20 GB; none should ever be near it", "partition-full"),
    Verdict.TOO_LARGE: ("expected a document of less than 2 MB", "unavailable"),
    Verdict.DOWN: ("expected a store that can be read and written", "unavailable"),
}


def verdict(error: AzureError) -> Verdict:
    """Judge an error that the SDK raised after its own repeats.

    Source: Microsoft Learn, "HTTP status codes for Azure Cosmos DB"; substatus codes as in the SDK's http_constants.
    """
    if isinstance(error, ClientAuthenticationError):
        return Verdict.REFUSED
    if not isinstance(error, CosmosHttpResponseError | CosmosBatchOperationError):
        # Cut off, timed out, or not connected at all: the SDK's transport tells these apart by no more than its words.
        return Verdict.UNKNOWN
    status, substatus = error.status_code or 0, error.sub_status or 0
    if status == 404:
        # Otherwise it is the container, or a replica that has not seen our own writes yet.
        return Verdict.ABSENT if substatus == 0 else Verdict.DOWN
    if status in {401, 403} and "not valid at the current time" in str(error.http_error_message or "").lower():
        return Verdict.SKEWED
    return _BY_SUBSTATUS.get((status, substatus)) or _BY_STATUS.get(status, Verdict.DOWN)


def unavailable(said: Verdict) -> StoreUnavailable:
    """Give the error for a call that ends with this verdict."""
    message, why = _SAID.get(said, _SAID[Verdict.DOWN])
    return StoreUnavailable(message, why=why)

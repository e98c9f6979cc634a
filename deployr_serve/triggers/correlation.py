"""The id that ties a caller's log to ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)


def correlation_id(given: str | None, *, fresh: Callable[[], str]) -> str:
    """Give the caller's id if it is fit for a header and a log line, else a fresh one."""
    return given if given is not None and _CORRELATION_ID.match(given) else fresh()

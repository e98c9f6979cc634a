"""How often each caller may ask: so that one that went wild takes nobody else's turn. No clock of its own."""

from __future__ import annotations

import math

from deployr_serve.core.errors import TooManyRequests


class Allowance:
    """A bucket of tokens for each caller, in this process alone; every worker has its own.

    Args:
        per_s: how many requests a second a caller may make for good.
        burst: how many at once after a pause.
    """

    def __init__(self, *, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, *, now: float) -> None:
        """Take a request off the caller's allowance; see `wait_s`.

        Raises:
            TooManyRequests: nothing is left of it; says when there is again.
        """
        if wait_s := self.wait_s(caller, now=now):
            error = TooManyRequests("expected fewer requests a second from this caller")
            error.retry_after_s = float(wait_s)
            raise error

    def wait_s(self, caller: str, *, now: float) -> int:
        """Take a request off the caller's allowance; give 0, or after how many whole seconds there is one again.

        Args:
            caller: one of the known ones: an unknown name must not get a bucket.
            now: on `Clock.monotonic`.
        """
        left, since = self._left.get(caller, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._per_s)
        allowed = left >= 1.0
        self._left[caller] = (left - 1.0 if allowed else left, now)
        return 0 if allowed else math.ceil((1.0 - left) / self._per_s)

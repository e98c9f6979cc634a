"""The EMR's clock: the instant whose chart the EMR shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime


class EmrClock:
    """Stands where it was put; until then it follows the real time.

    It may be put back as well as forth, so that one day can be replayed. Tokens and assertions do not run on it.
    """

    def __init__(self, *, real_now: Callable[[], datetime], now: datetime | None = None) -> None:
        """Start at ``now`` if given.

        Args:
            real_now: gives the real instant, aware.
            now: aware, or None to follow the real time until `put`.

        Raises:
            ValueError: ``now`` has no offset.
        """
        self._real_now = real_now
        self._now = None if now is None else _utc(now)

    def now(self) -> datetime:
        """Give the instant that the EMR is at, aware UTC."""
        return self.real_now() if self._now is None else self._now

    def real_now(self) -> datetime:
        """Give the real instant, aware UTC, wherever the EMR is."""
        return _utc(self._real_now())

    def is_put(self) -> bool:
        """Tell whether the clock stands at an instant that someone chose."""
        return self._now is not None

    def put(self, instant: datetime) -> None:
        """Put the EMR at ``instant``, before or after where it is.

        Raises:
            ValueError: ``instant`` has no offset.
        """
        self._now = _utc(instant)


def _utc(instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise ValueError("expected an instant with an offset")
    return instant.astimezone(UTC)

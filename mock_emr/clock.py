"""The EMR's clock: the instant whose chart the EMR shows. It can be set, stepped, run at a pace and paused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mock_emr.dates import FOREVER

FASTEST = 100_000.0
"""The most EMR seconds to a real one: a day and more in each."""
TICK = timedelta(milliseconds=100)
"""So long, of real time, a running clock stands between two moves."""


class ClockError(ValueError):
    """The clock cannot go there; the message says what was expected."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a running clock goes: so many EMR seconds to a real one, to the end of time or to ``until`` at most."""

    rate: float
    until: datetime | None = None


class EmrClock:
    """Stands where it was put, or runs from there; until it is first moved it follows the real time.

    It may be put back as well as forth, so that one day can be replayed. Tokens and assertions do not run on it. A
    running clock moves in ticks and stands in between; whoever follows is told of each move before anybody sees it.
    """

    def __init__(
        self,
        *,
        real_now: Callable[[], datetime],
        now: datetime | None = None,
        tell: Callable[[datetime], None] | None = None,
    ) -> None:
        """Start at ``now`` if given.

        Args:
            real_now: gives the real instant, aware.
            now: aware, or None to follow the real time until it is moved.
            tell: called with each instant that the clock comes to stand at, see `ClockFile`.

        Raises:
            ValueError: ``now`` has no offset.
        """
        self._real_now = real_now
        self._tell = tell
        self._now: datetime | None = None
        self._pace: Pace | None = None
        self._moved_at = self.real_now()
        if now is not None:
            self._stand(_utc(now))

    def now(self) -> datetime:
        """Give the instant that the EMR is at, aware UTC."""
        if self._now is None:
            return self.real_now()
        if self._pace is not None:
            self._run(self._now, self._pace)
        return self._now

    def real_now(self) -> datetime:
        """Give the real instant, aware UTC, wherever the EMR is."""
        return _utc(self._real_now())

    def is_put(self) -> bool:
        """Tell whether the clock goes by what someone chose, rather than by the real time."""
        return self._now is not None

    def pace(self) -> Pace | None:
        """Give how the clock runs; None where it stands, or follows the real time."""
        self.now()
        return self._pace

    def put(self, instant: datetime) -> None:
        """Put the EMR at ``instant``, before or after where it is. A running clock runs on from there.

        Raises:
            ValueError: ``instant`` has no offset.
        """
        self._stand(_utc(instant))

    def step(self, length: timedelta) -> None:
        """Move the EMR by ``length``, back if it is negative. A running clock runs on from there.

        Raises:
            ClockError: that would leave the calendar.
        """
        try:
            self._stand(self.now() + length)
        except OverflowError as error:
            raise ClockError("expected a step that stays within the years 1 to 9999") from error

    def run(self, rate: float, *, until: datetime | None = None) -> None:
        """Run at ``rate`` EMR seconds to a real one, from where the clock is; at ``until`` it stands.

        Raises:
            ClockError: the rate is not over 0 and at most FASTEST, or ``until`` is not ahead.
        """
        if not 0 < rate <= FASTEST:
            raise ClockError(f"expected a rate over 0 and at most {FASTEST:.0f}")
        now = self.now()
        if until is not None and _utc(until) <= now:
            raise ClockError("expected an until that is ahead of the clock")
        self._stand(now)
        self._pace = Pace(rate=rate, until=None if until is None else _utc(until))

    def pause(self) -> None:
        """Let the clock stand where it is."""
        self._stand(self.now())
        self._pace = None

    def _run(self, from_: datetime, pace: Pace) -> None:
        elapsed = self.real_now() - self._moved_at
        if elapsed < TICK:
            return
        end = pace.until or FOREVER
        # What is left is compared in seconds, because at this pace the calendar may end within a tick.
        seconds = elapsed.total_seconds() * pace.rate
        arrived = seconds >= (end - from_).total_seconds()
        self._stand(end if arrived else from_ + timedelta(seconds=seconds))
        if arrived:
            self._pace = None

    def _stand(self, instant: datetime) -> None:
        if self._tell is not None:
            self._tell(instant)
        self._now, self._moved_at = instant, self.real_now()


class ClockFile:
    """A file that holds the clock's instant, for others who share it: ISO 8601 in ASCII, always whole.

    The bridge reads such a file where it replays past days (its DEPLOYR_CLOCK_FILE).
    """

    def __init__(self, path: Path) -> None:
        """Write to ``path``; its folder must be there."""
        self._path = path

    def write(self, instant: datetime) -> None:
        """Put ``instant`` in place of what the file holds, all at once.

        Raises:
            OSError: the file cannot be written.
        """
        beside = self._path.with_name(self._path.name + ".new")
        beside.write_text(instant.isoformat(), encoding="ascii")
        beside.replace(self._path)


async def keep_moving(clock: EmrClock, *, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Have a running clock move, and tell of it, also while nobody asks what time it is; ends by being cancelled.

    Args:
        clock: whichever; one that stands is left alone.
        sleep: waits so many seconds.
    """
    while True:
        clock.now()
        await sleep(TICK.total_seconds())


def _utc(instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise ValueError("expected an instant with an offset")
    return instant.astimezone(UTC)

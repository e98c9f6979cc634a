"""What the EMR was asked and what was written to it: calls without their values, and how many at once."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import islice


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A write that was accepted: ``kind`` is `score`; ``is_new`` is false where the job had been written before."""

    kind: str
    model_id: str
    job_id: str
    is_new: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One answered call. Holds parameter names and no values.

    ``at`` is the real instant of the call, ``emr_now`` the EMR's; ``duration_ms`` includes delays that were asked for,
    yet no dripping; ``size_bytes`` is that of the answer's body; ``parameters`` are those of a search;
    ``correlation_id`` is what the caller sent as such; ``fault`` names the rule that was played, `unnamed` where it has
    no name.
    """

    at: datetime
    emr_now: datetime
    method: str
    route: str
    status: int
    duration_ms: float
    size_bytes: int
    resource_type: str | None = None
    parameters: tuple[str, ...] = ()
    write: Write | None = None
    face: str | None = None
    correlation_id: str | None = None
    fault: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A call with its place in the journal, from 1."""

    sequence: int
    call: Call


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which calls are asked for: those for which all hold that is not None.

    ``after`` excluded and ``until`` included are on the EMR's clock; ``status`` is one, or a class of them as `4xx`;
    ``is_faulty`` is whether a fault was played.
    """

    after: datetime | None = None
    until: datetime | None = None
    face: str | None = None
    route: str | None = None
    resource_type: str | None = None
    method: str | None = None
    status: str | None = None
    correlation_id: str | None = None
    is_faulty: bool | None = None

    def holds(self, call: Call) -> bool:
        """Tell whether a call is one of them."""
        return (
            (self.after is None or self.after < call.emr_now)
            and (self.until is None or call.emr_now <= self.until)
            and self.face in (None, call.face)
            and self.route in (None, call.route)
            and self.resource_type in (None, call.resource_type)
            and self.method in (None, call.method)
            and self.status in (None, str(call.status), f"{call.status // 100}xx")
            and self.correlation_id in (None, call.correlation_id)
            and self.is_faulty in (None, call.fault is not None)
        )


EVERY_CALL = Wanted()


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many calls got this status from this route."""

    method: str
    route: str
    resource_type: str | None
    status: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All calls since the start, including those that the journal no longer holds."""

    calls: int
    tallies: tuple[Tally, ...]
    score_writes_new: int
    score_writes_repeated: int
    peak_concurrent: int


class Journal:
    """Keeps the latest calls, and counts over all of them."""

    def __init__(self, *, limit: int = 200_000) -> None:
        """Keep at most ``limit`` calls; older ones are dropped."""
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._sequence = 0
        self._tallies: Counter[tuple[str, str, str | None, int]] = Counter()
        self._writes: Counter[bool] = Counter()
        self._concurrent = 0
        self._peak = 0

    @contextmanager
    def underway(self) -> Iterator[None]:
        """Count a call as concurrent with the others until it is left."""
        self._concurrent += 1
        self._peak = max(self._peak, self._concurrent)
        try:
            yield
        finally:
            self._concurrent -= 1

    def note(self, call: Call) -> None:
        """Add a call that was answered."""
        self._sequence += 1
        self._entries.append(Entry(sequence=self._sequence, call=_sharing(call)))
        self._tallies[call.method, call.route, call.resource_type, call.status] += 1
        if call.write is not None:
            self._writes[call.write.is_new] += 1

    def since(self, sequence: int, *, limit: int, wanted: Wanted = EVERY_CALL) -> tuple[Entry, ...]:
        """Give at most ``limit`` of the calls that are wanted and came after ``sequence``, oldest first."""
        first = self._entries[0].sequence if self._entries else 1
        skipped = max(sequence + 1 - first, 0)
        later = islice(self._entries, skipped, None)
        return tuple(islice((entry for entry in later if wanted.holds(entry.call)), limit))

    def last_sequence(self) -> int:
        """Give the place of the latest call; 0 before the first."""
        return self._sequence

    def summary(self) -> Summary:
        """Count the calls by route and status, the score writes, and the most calls at once."""
        tallies = (
            Tally(method=method, route=route, resource_type=resource_type, status=status, count=count)
            for (method, route, resource_type, status), count in self._tallies.items()
        )
        return Summary(
            calls=self._sequence,
            tallies=tuple(sorted(tallies, key=lambda t: (t.route, t.resource_type or "", t.method, t.status))),
            score_writes_new=self._writes[True],
            score_writes_repeated=self._writes[False],
            peak_concurrent=self._peak,
        )


def _sharing(call: Call) -> Call:
    """Let calls of a kind share the texts that came with each of them, which are half of what the journal holds."""
    kind = call.resource_type
    return replace(call, resource_type=None if kind is None else sys.intern(kind), parameters=_one(call.parameters))


@lru_cache(maxsize=4096)
def _one(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the tuple that was first met with these names."""
    return names

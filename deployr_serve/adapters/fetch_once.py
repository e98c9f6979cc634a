"""One fetch for all who ask the same at the same time: the twelve models of one order read the chart once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime

from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.core.ports import Budget, Clock, FactSource, FetchedFacts, Handed

HOLD_S = 10.0
"""How long what was fetched serves others who ask about the same instant: longer than twelve calls take to arrive."""
_AT_MOST, _READ_AT_MOST = 64, 2
"""How many are held; and how many of those for which the EMR was not asked, because all was handed over: these are
quickly read again, and to let go of what is still in the processor's caches is a tenth of an answer cheaper."""

Needs = Callable[[FeatureSpec], Hashable]
"""Gives what would be asked of the EMR; declarations that need the same share one fetch, whatever they make of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    task: asyncio.Task[FetchedFacts]
    started: float


class FetchOnce:
    """A `FactSource` in front of another one.

    Shared is only what was asked about the same patient, encounter, order and instant, needs the same searches, and
    came with the same prefetched facts and the same lent token: another token may see another part of the record. The
    first asker's budget bounds the fetch; when its request is given up the fetch goes on for the others. A failure is
    shared by those who were waiting for it, and by nobody after them.
    """

    def __init__(self, source: FactSource, *, clock: Clock, needs: Needs) -> None:
        self._source = source
        self._clock = clock
        self._needs = needs
        self._shared: dict[Hashable, _Shared] = {}
        self._read: deque[Hashable] = deque()

    async def fetch(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None = None,
        handed: Handed | None = None,
    ) -> FetchedFacts:
        """See `deployr_serve.core.ports.FactSource`."""
        self._forget_the_old()
        key = (subject, as_of, self._needs(spec), _digest(handed))
        shared = self._shared.get(key)
        if shared is None:
            task = asyncio.ensure_future(self._source.fetch(subject, spec, as_of=as_of, budget=budget, handed=handed))
            shared = _Shared(task=task, started=self._clock.monotonic())
            self._shared[key] = shared
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(shared.task)

    def _forget_the_old(self) -> None:
        """Let go of what is old, and of the oldest where there is too much; what is under way stays."""
        oldest_kept = self._clock.monotonic() - HOLD_S
        over = len(self._shared) - _AT_MOST + 1
        let_go = []
        # They stand in the order in which they began.
        for place, (key, shared) in enumerate(self._shared.items()):
            if place >= over and shared.started >= oldest_kept:
                break
            if shared.task.done():
                let_go.append(key)
        for key in let_go:
            del self._shared[key]

    def _ended(self, key: Hashable, done: asyncio.Task[FetchedFacts]) -> None:
        """Let go of a failure, and of what was read before the last few."""
        # Asked for its exception even where nobody waits any more: asyncio complains of one that nobody looked at.
        if done.cancelled() or done.exception() is not None:
            self._shared.pop(key, None)
        elif not any(record.requests for record in done.result().fetches):
            self._read.append(key)
            if len(self._read) > _READ_AT_MOST:
                self._shared.pop(self._read.popleft(), None)


def _digest(handed: Handed | None) -> bytes:
    if handed is None:
        return b""
    digest = hashlib.sha256((handed.token or "").encode())
    for name, content in sorted(handed.prefetch.items()):
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.digest()

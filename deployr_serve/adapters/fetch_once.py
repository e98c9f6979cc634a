"""One fetch for all who ask the same at the same time: the twelve models of one order read the chart once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime

from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.core.errors import EmrTimeout
from deployr_serve.core.ports import Budget, Clock, FactSource, FetchedFacts, Handed

HOLD_S = 10.0
"""How long what was fetched serves others who ask about the same instant: longer than twelve calls take to arrive."""
_AT_MOST, _READ_AT_MOST = 64, 2
"""How many are held; and how many of those for which the EMR was not asked, because all was handed over: these are
quickly read again, and to let go of what is still in the processor's caches is a tenth of an answer cheaper."""

Needs = Callable[[FeatureSpec], tuple[tuple[str, Hashable], ...]]
"""Gives what would be asked of the EMR about a patient, each search after its name; declarations that need the same
share one fetch, whatever they make of it."""


class _Content:
    """What was handed over, equal by content: told apart by its sizes, and only where these agree by its digest.

    As nearly nobody hands over the same, the digest, which takes a hundredth of an answer, is nearly never made.
    """

    def __init__(self, handed: Handed | None) -> None:
        held = {} if handed is None else handed.prefetch
        self._held: tuple[tuple[str, bytes], ...] = tuple(sorted(held.items()))
        self._digest: bytes | None = None
        self._sizes = hash(tuple((name, len(content)) for name, content in self._held))

    def __hash__(self) -> int:
        return self._sizes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Content):
            return NotImplemented
        return self is other or self.digest() == other.digest()

    def digest(self) -> bytes:
        """Give it; from then on the content is not held any more."""
        if self._digest is None:
            digest = hashlib.sha256()
            for name, content in self._held:
                digest.update(f"{name} {len(content)}\n".encode())
                digest.update(content)
            self._digest, self._held = digest.digest(), ()
        return self._digest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    came: asyncio.Future[FetchedFacts]
    started: float


class FetchOnce:
    """A `FactSource` in front of another one.

    Shared is only what was asked about the same patient, encounter, order and instant, needs the same searches, and
    came with the same prefetched facts and the same lent token: another token may see another part of the record. The
    first asker's budget bounds the fetch; when its request is given up the fetch goes on for the others. A failure is
    shared by those who were waiting for it, and by nobody after them.

    Where all is handed over, the first asker reads it without a task apart, as nothing is waited for. Should some of it
    be of no use, so that the EMR is asked after all, and this request be given up meanwhile, the others fail with it.
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
        needs, content = self._needs(spec), _Content(handed)
        key = (subject, as_of, needs, _token_digest(handed), content)
        shared = self._shared.get(key)
        if shared is not None:
            return await asyncio.shield(shared.came)
        fetching = self._source.fetch(subject, spec, as_of=as_of, budget=budget, handed=handed)
        if handed is None or not _searches(subject, needs) <= handed.prefetch.keys():
            return await asyncio.shield(self._noted(key, content, asyncio.ensure_future(fetching)))
        came = self._noted(key, content, asyncio.get_running_loop().create_future())
        try:
            facts = await fetching
        except BaseException as error:
            given_up = EmrTimeout("expected the request that asked first to have had the time")
            came.set_exception(error if isinstance(error, Exception) else given_up)
            raise
        came.set_result(facts)
        return facts

    def _noted(
        self, key: Hashable, content: _Content, came: asyncio.Future[FetchedFacts]
    ) -> asyncio.Future[FetchedFacts]:
        self._shared[key] = _Shared(came=came, started=self._clock.monotonic())
        came.add_done_callback(lambda done: self._ended(key, content, done))
        return came

    def _forget_the_old(self) -> None:
        """Let go of what is old, and of the oldest where there is too much; what is under way stays."""
        oldest_kept = self._clock.monotonic() - HOLD_S
        over = len(self._shared) - _AT_MOST + 1
        let_go = []
        # They stand in the order in which they began.
        for place, (key, shared) in enumerate(self._shared.items()):
            if place >= over and shared.started >= oldest_kept:
                break
            if shared.came.done():
                let_go.append(key)
        for key in let_go:
            del self._shared[key]

    def _ended(self, key: Hashable, content: _Content, done: asyncio.Future[FetchedFacts]) -> None:
        """Let go of a failure, and of what was read before the last few."""
        # Asked for its exception even where nobody waits any more: asyncio complains of one that nobody looked at.
        if done.cancelled() or done.exception() is not None:
            self._shared.pop(key, None)
        elif not any(record.requests for record in done.result().fetches):
            self._read.append(key)
            if len(self._read) > _READ_AT_MOST:
                self._shared.pop(self._read.popleft(), None)
        else:
            # Held for longer than those; what was handed over with it need not be.
            content.digest()


def _searches(subject: Subject, needs: Iterable[tuple[str, Hashable]]) -> set[str]:
    """Give the names of all that would be asked about this patient, encounter and order."""
    named = {"patient": subject.patient_id, "encounter": subject.encounter_id, "order": subject.order_id}
    return {name for name, asked in (*needs, *named.items()) if asked is not None}


def _token_digest(handed: Handed | None) -> bytes | None:
    return None if handed is None or handed.token is None else hashlib.sha256(handed.token.encode()).digest()

"""Which bundles' scores people may see, as the registry's journals say: of the champion, and those that went before it.

Every worker looks at the journals' heads anew after `HOLD_S`, and reads a journal again when it has come farther. So
within that time plus two reads of the store a bundle that was rolled back or retired is shown to nobody any more,
wherever it still runs; and one that was never approved and deployed never is. Its packets are stored as in silent mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from deployr_core.registry.journal import Head, JournalBroken
from deployr_core.signing import TrustedKey
from deployr_serve.core.ports import Clock, Records
from deployr_serve.core.registry_journal import heads, read_journal

HOLD_S = 2.0
"""How long a worker goes by what it read, in seconds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What a journal said when it was read.

    ``at``: the look that led to it. ``head``: what it was read for. ``shown``: digests of bundles. ``told``: the last
    entry that this worker has ever seen to be right; a journal that lacks it was cut off. ``doubts``: how often in a
    row it was not what was written; after one it is read again.
    """

    at: float
    head: Head | None
    shown: frozenset[str]
    told: Head | None
    doubts: int


class Approvals:
    """What may be shown, as of at most `HOLD_S` ago.

    A journal that is not what was written lets nothing be shown. Only at the second look: what another worker has just
    written may not be found whole at the first, and until then it stays as it was.
    """

    def __init__(self, records: Records, *, clock: Clock, keys: Sequence[TrustedKey] = ()) -> None:
        """``keys``: whose signatures of a journal's entries count; without any, none is asked for."""
        self._records = records
        self._keys = keys
        self._clock = clock
        self._heads: dict[str, Head] = {}
        self._read: dict[str, _Read] = {}
        self._looked_at = float("-inf")
        self._one_reads = asyncio.Lock()

    async def is_shown(self, model_id: str, bundle_sha256: str) -> bool:
        """Say whether this bundle's scores may be shown now.

        Raises:
            StoreUnavailable: nobody knows.
        """
        if self._is_stale(model_id):
            # Of all who ask at the same time one reads.
            async with self._one_reads:
                await self._look(model_id)
        return self.was_shown(model_id, bundle_sha256)

    def was_shown(self, model_id: str, bundle_sha256: str) -> bool:
        """Say it as of when the journal was read last, however long ago; false if this worker never read it."""
        read = self._read.get(model_id)
        return read is not None and bundle_sha256 in read.shown

    def _is_stale(self, model_id: str) -> bool:
        if self._clock.monotonic() - self._looked_at >= HOLD_S:
            return True
        head, read = self._heads.get(model_id), self._read.get(model_id)
        if read is None:
            return head is not None
        return (head != read.head or read.doubts == 1) and read.at != self._looked_at

    async def _look(self, model_id: str) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at >= HOLD_S:
            self._heads = dict(await heads(self._records, now=self._clock.now()))
            # From before the read: what was written while it was under way is seen by the next one.
            self._looked_at = now
        if self._is_stale(model_id):
            self._read[model_id] = await self._read_anew(model_id, self._heads.get(model_id), self._read.get(model_id))

    async def _read_anew(self, model_id: str, head: Head | None, before: _Read | None) -> _Read:
        at, told = self._looked_at, None if before is None else before.told
        try:
            journal = await read_journal(
                self._records, model_id, now=self._clock.now(), told=() if told is None else (told,), keys=self._keys
            )
        except JournalBroken as error:
            if before is None or before.doubts == 0:
                _log.warning("journal of %s: looked at again: %s", model_id, error)
                shown = frozenset[str]() if before is None else before.shown
                return _Read(at=at, head=head, shown=shown, told=told, doubts=1)
            # Entries name runs and people of the staff; there is nothing of a patient in them.
            _log.error("alert=journal-broken model=%s: %s", model_id, error)
            return _Read(at=at, head=head, shown=frozenset(), told=told, doubts=before.doubts + 1)
        return _Read(at=at, head=head, shown=journal.standing.shown, told=journal.standing.head, doubts=0)

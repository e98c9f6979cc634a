"""A spool in memory, and one that is down."""

from __future__ import annotations

from deployr_serve.core.spool import SpoolUnavailable, Standing, Waiting


class MemorySpool:
    """See `deployr_serve.core.spool.Spool`."""

    def __init__(self, *entries):
        self.entries = list(entries)

    async def put(self, entry):
        self.entries.append(entry)

    async def oldest(self, *, limit):
        return tuple(Waiting(entry=entry, receipt=entry) for entry in self.entries[:limit])

    async def remove(self, waiting):
        self.entries = [entry for entry in self.entries if entry is not waiting.receipt]

    async def standing(self):
        oldest_at = min((entry.spooled_at for entry in self.entries), default=None)
        return Standing(waiting=len(self.entries), oldest_at=oldest_at)

    async def aclose(self):
        pass


class DeadSpool:
    """One that can be neither read nor written."""

    def __init__(self, reason="spool-unavailable"):
        self._reason = reason

    async def put(self, entry):
        raise SpoolUnavailable(self._reason)

    async def oldest(self, *, limit):
        raise SpoolUnavailable(self._reason)

    async def remove(self, waiting):
        raise SpoolUnavailable(self._reason)

    async def standing(self):
        raise SpoolUnavailable(self._reason)

"""Shared records in Azure Cosmos DB, each under its own id; the service takes out what has expired."""

from __future__ import annotations

import math
from datetime import datetime

from deployr_serve.adapters.cosmos_container import CosmosContainer, Document
from deployr_serve.adapters.cosmos_documents import content_in, item_id, record_document
from deployr_serve.adapters.cosmos_link import Conflict
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import Clock, Record

_KEPT_PAST_EXPIRY_S = 3600
"""The service goes by its own clock, we by ours; whether a record has expired is ours to say, by the instant in it."""


class CosmosRecords:
    """See `deployr_serve.core.ports.Records` for what each method promises."""

    def __init__(self, records: CosmosContainer, *, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def create_record(
        self, kind: str, record_id: str, content: bytes, *, now: datetime, expires_at: datetime | None = None
    ) -> Record | None:
        document = _expiring(record_document(kind, record_id, content, expires_at=expires_at), now)
        while True:
            try:
                return Record(content=content, etag=await self._records.create(document))
            except Conflict:
                held = await self._records.read(document["id"], key=document["id"])
            if held is None:
                # The service took it out in this very moment.
                continue
            if not _has_expired(held, now):
                return None
            try:
                return Record(content=content, etag=await self._records.replace(document, etag=held["_etag"]))
            except Conflict:
                continue

    async def read_record(self, kind: str, record_id: str, *, now: datetime) -> Record | None:
        key = item_id(kind, record_id)
        held = await self._records.read(key, key=key)
        return None if held is None or _has_expired(held, now) else _record(held)

    async def replace_record(
        self, kind: str, record_id: str, content: bytes, *, etag: str, expires_at: datetime | None = None
    ) -> Record:
        document = _expiring(record_document(kind, record_id, content, expires_at=expires_at), self._clock.now())
        try:
            return Record(content=content, etag=await self._records.replace(document, etag=etag))
        except Conflict:
            raise RecordChanged("expected the record with the tag that was read") from None

    async def records(self, kind: str, *, now: datetime) -> dict[str, Record]:
        found = await self._records.query("SELECT * FROM c WHERE c.kind = @kind", {"kind": kind})
        there = {each["record_id"]: _record(each) for each in found if not _has_expired(each, now)}
        return dict(sorted(there.items()))

    async def check(self) -> None:
        """Write a record that expires by itself, and that nobody asks for."""
        await self._records.upsert({"id": "check", "kind": "check", "ttl": _KEPT_PAST_EXPIRY_S})


def _expiring(document: Document, now: datetime) -> Document:
    if document["expires_at"] is None:
        return document
    left_s = max(0, math.ceil(document["expires_at"] - now.timestamp()))
    return {**document, "ttl": left_s + _KEPT_PAST_EXPIRY_S}


def _has_expired(held: Document, now: datetime) -> bool:
    expires_at = held["expires_at"]
    return expires_at is not None and expires_at <= now.timestamp()


def _record(held: Document) -> Record:
    return Record(content=content_in(held), etag=held["_etag"])

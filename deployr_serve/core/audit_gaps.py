"""Finds answers whose audit records were lost, by the packets, and writes them down.

A record is written right after its packet is stored. A worker that dies between the two, or a power cut before the
file was forced to the disk, leaves a packet without one. Its id can be told from the packet, so that what is missing
can be found and made again. What left no packet, such as a refusal, cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import msgspec

from deployr_core.forgetting import is_forgotten
from deployr_serve.core.audit import AuditSink, of_packet
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import Clock, InferenceStore, Records

KIND = "audit-watermark"
EVERY = timedelta(minutes=10)
_LEFT_ALONE = timedelta(minutes=5)
"""An inference that began so lately may still be under way."""
_AT_FIRST = timedelta(days=1)
_PAGE = 500


class _Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """Of all packets that began before this instant the records are there."""

    until: datetime


async def fill_gaps(
    *,
    store: InferenceStore,
    records: Records,
    sink: AuditSink,
    ids_since: Callable[[datetime], Collection[str]],
    site: str,
    clock: Clock,
) -> int | None:
    """Write down what is missing since the last look; give how many records, or None where it is not time yet.

    All workers must see each other's records. Of two that look at once both may write one, under the same id.

    Args:
        store: the packets.
        records: keeps the watermark.
        sink: where records go.
        ids_since: gives the ids of all records from an instant on; may read files, and is called once.
        site: whose watermark it is.
        clock: says what is late.
    """
    now = clock.now()
    held = await records.read_record(KIND, site, now=now)
    since = msgspec.json.decode(held.content, type=_Watermark).until if held else now - _AT_FIRST
    until = now - _LEFT_ALONE
    if until - since < EVERY:
        return None
    known = ids_since(since)
    count = 0
    for model_id in await store.model_ids():
        after: str | None = None
        while packets := await store.packets(model_id=model_id, after=after, limit=_PAGE, since=since, until=until):
            after = packets[-1].packet_id
            for packet in packets:
                record = of_packet(packet)
                if packet.is_terminal and not is_forgotten(packet) and record.audit_id not in known:
                    sink.record(record)
                    count += 1
    content = msgspec.json.encode(_Watermark(until=until))
    try:
        if held is None:
            await records.create_record(KIND, site, content, now=now)
        else:
            await records.replace_record(KIND, site, content, etag=held.etag)
    except RecordChanged:
        # Another worker has moved it.
        pass
    return count

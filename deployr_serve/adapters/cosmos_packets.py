"""Packets in Azure Cosmos DB, and what is written with them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from azure.core.exceptions import AzureError

from deployr_core.packet import Delivery, Event, InferencePacket
from deployr_serve.adapters.blob_bodies import BlobBodies
from deployr_serve.adapters.cosmos_container import CosmosContainer, Document, Operation
from deployr_serve.adapters.cosmos_documents import (
    decoded,
    delivery_document,
    delivery_in,
    encoded,
    event_document,
    event_in,
    instant_key,
    item_id,
    label_in,
    packet_document,
    packet_in,
)
from deployr_serve.adapters.cosmos_errors import Verdict
from deployr_serve.adapters.cosmos_layout import LARGEST_BODY, MOST_IN_BATCH
from deployr_serve.adapters.cosmos_link import Conflict
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.ports import Belongings, Changed, Stored

_MOST_TRIES = 20
_FIRST_INSTANT, _PAST_ALL_INSTANTS = "", "9999-12-31T24"
_LOOKED_AT_AGAIN_S = 60


class OnCosmos:
    """What the parts of the store share: the container of packets, and the blobs of the largest ones."""

    def __init__(self, documents: CosmosContainer, blobs: BlobBodies) -> None:
        self._documents = documents
        self._blobs = blobs

    async def _document(self, kind: str, record_id: str, packet_id: str) -> Document | None:
        return await self._documents.read(item_id(kind, record_id), key=packet_id)

    async def _body_for(self, packet: InferencePacket) -> dict[str, str]:
        body = encoded(packet)
        if len(body) <= LARGEST_BODY:
            return {"body": body.decode()}
        try:
            return {"blob": await self._blobs.put(packet.packet_id, body)}
        except AzureError as error:
            raise StoreUnavailable("expected a blob container that takes what is too large for a document") from error

    async def _packet_in(self, document: Document) -> InferencePacket:
        if "blob" not in document:
            return decoded(packet_in, document["body"])
        try:
            return decoded(packet_in, await self._blobs.get(document["packet_id"], document["blob"]))
        except AzureError as error:
            raise StoreUnavailable("expected the blob that the packet's document names") from error

    async def _packets_found(
        self, sql: str, values: Mapping[str, object], *, limit: int
    ) -> tuple[InferencePacket, ...]:
        found = await self._documents.query(sql, values, limit=limit)
        return tuple([await self._packet_in(document) for document in found])

    async def _packets_named(self, ids: Collection[str]) -> tuple[InferencePacket, ...]:
        """Give those that there are, in this order."""
        documents = await self._documents.read_many([(item_id("packet", each), each) for each in ids])
        by_id = {each["packet_id"]: each for each in documents}
        return tuple([await self._packet_in(by_id[each]) for each in ids if each in by_id])


class CosmosPackets(OnCosmos):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    async def create(self, packet: InferencePacket) -> Stored | None:
        document = packet_document(packet, await self._body_for(packet))
        try:
            return Stored(packet=packet, etag=await self._documents.create(document))
        except Conflict:
            return None

    async def read(self, packet_id: str) -> Stored | None:
        document = await self._document("packet", packet_id, packet_id)
        if document is None:
            return None
        etag = _with_labels(document["_etag"], tuple(document.get("labelled", ())))
        return Stored(packet=await self._packet_in(document), etag=etag)

    async def replace(
        self,
        packet: InferencePacket,
        *,
        etag: str,
        deliveries: tuple[Delivery, ...] = (),
        events: tuple[Event, ...] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Stored:
        if meanwhile is not None:
            asyncio.get_running_loop().call_soon(meanwhile)
        body, (held, labelled) = await self._body_for(packet), _labels_in(etag)
        parts = {part["id"]: part for part in (*map(delivery_document, deliveries), *map(event_document, events))}
        for _ in range(_MOST_TRIES):
            document = packet_document(packet, body, labelled=labelled)
            operations: list[Operation] = [("replace", (document["id"], document), {"if_match_etag": held})]
            operations += [("create", (part,), {}) for part in parts.values()]
            try:
                if parts:
                    changed = await self._documents.batch(operations, key=packet.packet_id, by=document)
                else:
                    changed = await self._documents.replace(document, etag=held)
                return Stored(packet=packet, etag=_with_labels(changed, labelled))
            except Conflict as conflict:
                if conflict.found is not Verdict.TAKEN:
                    break
            # What is there already stays as it is.
            for part_id in await self._ids_of(packet.packet_id):
                parts.pop(part_id, None)
        raise RecordChanged("expected the packet with the tag that was read")

    async def packets(
        self,
        *,
        model_id: str,
        after: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[InferencePacket, ...]:
        sql = (
            "SELECT TOP @limit * FROM c WHERE c.model_id = @model AND c.packet_id > @after"
            " AND c.started_at >= @since AND c.started_at < @until ORDER BY c.model_id, c.packet_id"
        )
        values = {
            "model": model_id,
            "after": after or "",
            "since": _FIRST_INSTANT if since is None else instant_key(since),
            "until": _PAST_ALL_INSTANTS if until is None else instant_key(until),
        }
        return await self._packets_found(sql, values, limit=limit)

    async def changed(self, *, after: str | None, limit: int) -> Changed:
        # The service stamps every write with its second, and always indexes that.
        # Source: Microsoft Learn, "Indexing policies in Azure Cosmos DB".
        since = int(after or 0)
        sql = "SELECT TOP @limit c.packet_id, c._ts FROM c WHERE c._ts > @since ORDER BY c._ts"
        found = await self._documents.query(sql, {"since": since}, limit=limit)
        last = found[-1]["_ts"] if found else since
        is_all = len(found) < limit
        if is_all:
            # Clocks of partitions differ, and what was written meanwhile may be of a second that was read already.
            last = max(since, last - _LOOKED_AT_AGAIN_S)
        else:
            found += await self._documents.query("SELECT c.packet_id FROM c WHERE c._ts = @second", {"second": last})
        ids = dict.fromkeys(each["packet_id"] for each in found)
        return Changed(packets=await self._packets_named(ids), cursor=str(last), is_all=is_all)

    async def model_ids(self) -> tuple[str, ...]:
        found: list[str] = []
        # From each to the next one in the index: what there are few of is not counted through all that there is.
        sql = "SELECT TOP 1 c.model_id FROM c WHERE c.model_id > @last ORDER BY c.model_id"
        while documents := await self._documents.query(sql, {"last": found[-1] if found else ""}):
            found.append(documents[0]["model_id"])
        return tuple(found)

    async def packets_of(self, patient_hash: str, *, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        sql = (
            "SELECT TOP @limit * FROM c WHERE c.patient = @patient AND c.packet_id > @after"
            " ORDER BY c.patient, c.packet_id"
        )
        return await self._packets_found(sql, {"patient": patient_hash, "after": after or ""}, limit=limit)

    async def belongings(self, packet_id: str) -> Belongings:
        documents = await self._documents.query("SELECT * FROM c", {}, key=packet_id)
        deliveries = [decoded(delivery_in, each["body"]) for each in documents if each["type"] == "delivery"]
        labels = [decoded(label_in, each["body"]) for each in documents if each["type"] == "label"]
        events = [decoded(event_in, each["body"]) for each in documents if each["type"] == "event"]
        return Belongings(
            deliveries=tuple(sorted(deliveries, key=lambda each: each.delivery_id)),
            labels=tuple(sorted(labels, key=lambda each: each.label_id)),
            events=tuple(sorted(events, key=lambda each: (each.at, each.event_id))),
        )

    async def erase(self, packet_id: str, *, leaving: InferencePacket | None) -> bool:
        mark = None if leaving is None else packet_document(leaving, await self._body_for(leaving))
        was_there = has_blobs = False
        for _ in range(_MOST_TRIES):
            held = await self._document("packet", packet_id, packet_id)
            is_done = held is None or (mark is not None and held["write"] == mark["write"])
            was_there = was_there or held is not None
            has_blobs = has_blobs or (held is not None and not is_done and "blob" in held)
            belonging = [each for each in await self._ids_of(packet_id) if held is None or each != held["id"]]
            if is_done and not belonging:
                if has_blobs:
                    await self._erase_blobs(packet_id)
                return was_there
            operations: list[Operation] = [("delete", (each,), {}) for each in belonging[: MOST_IN_BATCH - 1]]
            # The packet goes last: as long as it is there, it is found and erased again. Then it is looked once more,
            # since something may have been added meanwhile; from now on whoever adds something sees the mark.
            if held is not None and not is_done and len(belonging) < MOST_IN_BATCH:
                how = {"if_match_etag": held["_etag"]}
                operations.append(
                    ("delete", (held["id"],), how) if mark is None else ("replace", (held["id"], mark), how)
                )
            try:
                await self._documents.erase(operations, key=packet_id)
            except Conflict:
                continue
        raise StoreUnavailable("expected to erase a packet that others leave alone meanwhile")

    async def _erase_blobs(self, packet_id: str) -> None:
        try:
            await self._blobs.erase(packet_id)
        except AzureError as error:
            raise StoreUnavailable("expected a blob container that can be erased from") from error

    async def _ids_of(self, packet_id: str) -> list[str]:
        return [each["id"] for each in await self._documents.query("SELECT c.id FROM c", {}, key=packet_id)]


def _with_labels(etag: str, labelled: tuple[str, ...]) -> str:
    """Give the tag that others name: who writes the packet anew then tells by which rules it was labelled."""
    return "\n".join((etag, *labelled))


def _labels_in(etag: str) -> tuple[str, tuple[str, ...]]:
    held, *labelled = etag.split("\n")
    return held, tuple(labelled)

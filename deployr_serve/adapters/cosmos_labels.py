"""Labels in Azure Cosmos DB. A packet's document names the rules that it is labelled by, in the same batch."""

from __future__ import annotations

from datetime import datetime

from deployr_core.packet import InferencePacket, Label
from deployr_serve.adapters.cosmos_container import Document, Operation
from deployr_serve.adapters.cosmos_documents import (
    decoded,
    instant_key,
    label_document,
    label_in,
    label_key,
    new_write,
    packet_of,
)
from deployr_serve.adapters.cosmos_link import Conflict
from deployr_serve.adapters.cosmos_packets import OnCosmos
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.ports import StoredLabel

_MOST_TRIES = 20


class CosmosLabels(OnCosmos):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises.

    Attaching a label gives its packet another tag, since what the packet is found by changes with it.
    """

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        # Those that this rule alone has labelled, nearly all, are left out by the index; the last condition is for
        # packets with labels by several rules.
        sql = (
            "SELECT TOP @limit * FROM c WHERE c.model_id = @model AND c.packet_id > @after"
            " AND (c.labelled_by < @rule OR c.labelled_by > @rule) AND NOT ARRAY_CONTAINS(c.labelled, @rule)"
            " ORDER BY c.model_id, c.packet_id"
        )
        return await self._packets_found(sql, {"model": model_id, "rule": rule, "after": after or ""}, limit=limit)

    async def attach_label(self, label: Label) -> bool:
        for _ in range(_MOST_TRIES):
            packet = await self._document("packet", label.packet_id, label.packet_id)
            if packet is None or packet["is_forgotten"]:
                return False
            document = label_document(label, label_of=label_key(packet["model_id"], label.rule))
            operations: list[Operation] = [
                ("create", (document,), {}),
                ("replace", (packet["id"], _labelled(packet, label.rule)), {"if_match_etag": packet["_etag"]}),
            ]
            try:
                await self._documents.batch(operations, key=label.packet_id, by=document)
            except Conflict:
                if await self._document("label", label.label_id, label.packet_id) is not None:
                    return False
                # The packet was changed meanwhile.
                continue
            return True
        raise StoreUnavailable("expected to attach a label to a packet that others leave alone meanwhile")

    async def read_label(self, label_id: str) -> StoredLabel | None:
        document = await self._document("label", label_id, packet_of(label_id))
        if document is None:
            return None
        return StoredLabel(label=decoded(label_in, document["body"]), etag=document["_etag"])

    async def replace_label(self, label: Label, *, etag: str) -> StoredLabel:
        held = await self._document("label", label.label_id, label.packet_id)
        if held is None:
            raise RecordChanged("expected the label with the tag that was read")
        try:
            changed = await self._documents.replace(label_document(label, label_of=held["label_of"]), etag=etag)
        except Conflict:
            raise RecordChanged("expected the label with the tag that was read") from None
        return StoredLabel(label=label, etag=changed)

    async def labels(self, *, model_id: str, rule: str, after: str | None, limit: int) -> tuple[Label, ...]:
        sql = (
            "SELECT TOP @limit c.body FROM c WHERE c.label_of = @of AND c.label_id > @after"
            " ORDER BY c.label_of, c.label_id"
        )
        values = {"of": label_key(model_id, rule), "after": after or ""}
        found = await self._documents.query(sql, values, limit=limit)
        return tuple(decoded(label_in, each["body"]) for each in found)

    async def labelled(
        self, *, model_id: str, rule: str, since: datetime, until: datetime, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        sql = (
            "SELECT TOP @limit c.packet_id FROM c WHERE c.label_of = @of AND c.packet_id > @after"
            " AND c.attached_at >= @since AND c.attached_at < @until ORDER BY c.label_of, c.packet_id"
        )
        values = {
            "of": label_key(model_id, rule),
            "since": instant_key(since),
            "until": instant_key(until),
            "after": after or "",
        }
        ids = [each["packet_id"] for each in await self._documents.query(sql, values, limit=limit)]
        return await self._packets_named(ids)


def _labelled(packet: Document, rule: str) -> Document:
    """Give a packet's document with one rule more that it is labelled by."""
    rules = sorted({*packet.get("labelled", ()), rule})
    ours = {name: value for name, value in packet.items() if not name.startswith("_")}
    return {**ours, "write": new_write(), "labelled": rules, "labelled_by": "|".join(rules)}

"""Deliveries and events in Azure Cosmos DB."""

from __future__ import annotations

from datetime import datetime

from deployr_core.packet import Delivery, DeliveryState, Event
from deployr_serve.adapters.cosmos_documents import (
    decoded,
    delivery_document,
    delivery_in,
    encoded,
    event_document,
    event_in,
    instant_key,
    packet_of,
)
from deployr_serve.adapters.cosmos_link import Conflict
from deployr_serve.adapters.cosmos_packets import OnCosmos
from deployr_serve.core.errors import RecordChanged


class CosmosDeliveries(OnCosmos):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        document = await self._document("delivery", delivery_id, packet_of(delivery_id))
        return None if document is None else decoded(delivery_in, document["body"])

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        held = await self._document("delivery", was.delivery_id, was.packet_id)
        changed = held is None or held["body"] != encoded(was).decode()
        if held is not None and not changed:
            try:
                await self._documents.replace(delivery_document(delivery), etag=held["_etag"])
            except Conflict:
                changed = True
        if changed:
            raise RecordChanged("expected the delivery as it was read")

    async def pending_deliveries(self, *, due_before: datetime, limit: int) -> tuple[Delivery, ...]:
        sql = "SELECT TOP @limit c.body FROM c WHERE c.due < @before ORDER BY c.due"
        found = await self._documents.query(sql, {"before": instant_key(due_before)}, limit=limit)
        return tuple(decoded(delivery_in, each["body"]) for each in found)

    async def deliveries(self, *, state: DeliveryState, after: str | None, limit: int) -> tuple[Delivery, ...]:
        sql = (
            "SELECT TOP @limit c.body FROM c WHERE c.state = @state AND c.delivery_id > @after"
            " ORDER BY c.state, c.delivery_id"
        )
        values = {"state": str(state), "after": after or ""}
        found = await self._documents.query(sql, values, limit=limit)
        return tuple(decoded(delivery_in, each["body"]) for each in found)

    async def append_event(self, event: Event) -> bool:
        document = event_document(event)
        try:
            await self._documents.create(document)
        except Conflict:
            return False
        # Looked at afterwards: who erases the packet sets its mark first, and then takes out what came in between.
        packet = await self._document("packet", event.packet_id, event.packet_id)
        if packet is None or not packet["is_forgotten"]:
            return True
        await self._documents.delete(document["id"], key=event.packet_id)
        return False

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        sql = "SELECT c.body FROM c WHERE c.type = @type"
        found = await self._documents.query(sql, {"type": "event"}, key=packet_id)
        events = [decoded(event_in, each["body"]) for each in found]
        return tuple(sorted(events, key=lambda event: (event.at, event.event_id)))

    async def shown(self, *, since: datetime, after: str | None, limit: int) -> tuple[Event, ...]:
        sql = "SELECT TOP @limit c.body FROM c WHERE c.shown_at >= @since AND c.shown_id > @after ORDER BY c.shown_id"
        values = {"since": instant_key(since), "after": after or ""}
        found = await self._documents.query(sql, values, limit=limit)
        return tuple(decoded(event_in, each["body"]) for each in found)

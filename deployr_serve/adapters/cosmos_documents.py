"""How records look as documents: the body as its own JSON text, and beside it what it is found by.

A body is text, not a nested object: the service reads numbers and writes them anew, and a packet's features must come
back to the bit. ``write`` is an id of the one write that made the document, by which a write whose answer was lost is
recognised as done.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from deployr_core.forgetting import is_forgotten
from deployr_core.packet import Delivery, DeliveryState, Event, EventKind, InferencePacket, Label, Scored
from deployr_serve.adapters.cosmos_layout import LARGEST_PART
from deployr_serve.core.errors import StoreUnavailable

Document = dict[str, Any]
_T = TypeVar("_T")

_LEGAL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
"""The service takes more, but not ``/ \\ ? #``, and its clients stumble over some of the rest."""

packet_in = msgspec.json.Decoder(InferencePacket).decode
delivery_in = msgspec.json.Decoder(Delivery).decode
label_in = msgspec.json.Decoder(Label).decode
event_in = msgspec.json.Decoder(Event).decode


def encoded(record: InferencePacket | Delivery | Event | Label) -> bytes:
    """Give the body."""
    return msgspec.json.encode(record)


def decoded(read: Callable[[bytes | str], _T], body: bytes | str) -> _T:
    """Read a body by one of the readers above.

    Raises:
        StoreUnavailable: it is not what it should be.
    """
    try:
        return read(body)
    except msgspec.MsgspecError:
        # Its message may repeat a part of the record.
        raise StoreUnavailable("expected stored records that can be read") from None


def item_id(kind: str, record_id: str) -> str:
    """Give a document's id: the record's own, after its kind, or where that is no legal id its digest."""
    legal = f"{kind}:{record_id}"
    return legal if _LEGAL_ID.fullmatch(legal) else f"{kind}:{hashlib.sha256(record_id.encode()).hexdigest()}"


def packet_of(record_id: str) -> str:
    """Give the id of the packet that a delivery, an event or a label belongs to: theirs begins with it and a dot."""
    return record_id.partition(".")[0]


def new_write() -> str:
    """Give the id of one write."""
    return uuid.uuid4().hex


def packet_document(packet: InferencePacket, body: dict[str, str], *, labelled: tuple[str, ...] = ()) -> Document:
    """Give a packet's document.

    Args:
        packet: what it is about.
        body: ``body`` and its text, or ``blob`` and its digest.
        labelled: the rules by which it has labels.
    """
    document = {
        "id": item_id("packet", packet.packet_id),
        "packet_id": packet.packet_id,
        "type": "packet",
        "write": new_write(),
        "model_id": packet.model.model_id,
        "started_at": instant_key(packet.started_at),
        "is_forgotten": is_forgotten(packet),
        **body,
    }
    if not is_forgotten(packet):
        document["patient"] = packet.patient_hash
    if isinstance(packet.outcome, Scored):
        # Only what can be labelled has it. One text for all the rules: of a model there are few such texts, so that the
        # index leaves out those packets that need no label any more.
        document |= {"labelled": sorted(labelled), "labelled_by": "|".join(sorted(labelled))}
    return document


def delivery_document(delivery: Delivery) -> Document:
    """Give a delivery's document; only what is pending has ``due``, which orders it by when, then by id."""
    document = {
        **_part("delivery", delivery.delivery_id, delivery.packet_id, encoded(delivery)),
        "delivery_id": delivery.delivery_id,
        "state": str(delivery.state),
    }
    if delivery.state is DeliveryState.PENDING:
        document["due"] = f"{instant_key(delivery.due_at or delivery.created_at)}|{delivery.delivery_id}"
    return document


def event_document(event: Event) -> Document:
    """Give an event's document; only that an advisory was shown is ever looked for beyond one packet."""
    document = _part("event", event.event_id, event.packet_id, encoded(event))
    if event.kind is EventKind.SHOWN:
        document |= {"shown_at": instant_key(event.at), "shown_id": event.event_id}
    return document


def label_document(label: Label, *, label_of: str) -> Document:
    """Give a label's document. ``label_of``: see `label_key`."""
    return {
        **_part("label", label.label_id, label.packet_id, encoded(label)),
        "label_of": label_of,
        "label_id": label.label_id,
        "attached_at": instant_key(label.attached_at),
    }


def record_document(kind: str, record_id: str, content: bytes, *, expires_at: datetime | None) -> Document:
    """Give a shared record's document, without its time to live."""
    if len(content) > LARGEST_PART:
        raise StoreUnavailable(f"expected a shared record of at most {LARGEST_PART} bytes")
    return {
        "id": item_id(kind, record_id),
        "kind": kind,
        "record_id": record_id,
        "write": new_write(),
        "content": base64.b64encode(content).decode(),
        "expires_at": expires_at.timestamp() if expires_at else None,
    }


def content_in(document: Document) -> bytes:
    """Give a shared record's content."""
    return base64.b64decode(document["content"])


def instant_key(instant: datetime) -> str:
    """Give an instant as text that sorts as instants do."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def label_key(model_id: str, rule: str) -> str:
    """Give what the labels of a model by a rule are found by."""
    return f"{model_id}|{rule}"


def _part(kind: str, record_id: str, packet_id: str, body: bytes) -> Document:
    if packet_of(record_id) != packet_id:
        raise ValueError(f"expected the id of a {kind} to begin with its packet's")
    if len(body) > LARGEST_PART:
        raise StoreUnavailable(f"expected a {kind} of at most {LARGEST_PART} bytes")
    return {
        "id": item_id(kind, record_id),
        "packet_id": packet_id,
        "type": kind,
        "write": new_write(),
        "body": body.decode(),
    }

"""How an inference ends: its packet and all that follows from it are stored in one write, or spooled together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from deployr_core.packet import Delivery, DeliveryState, InferencePacket, Scored
from deployr_core.packet_ids import derive_delivery_id
from deployr_serve.core.decide import outputs_of
from deployr_serve.core.deliver import LEFT_TO_REQUEST
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.events import shown_by_answer
from deployr_serve.core.life import moved, stepped
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import InferenceStore, Output, Stored
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.without_store import Spooling, withheld

Prepare = Callable[[InferencePacket], None]
"""Makes ready what will be told of a packet, while the store waits for a disk: a tenth of an answer's time.

It is called or not, and nothing of it may be told before the answer has come: the packet may not get stored, and
another may be told of instead.
"""
UNCLAIMED = ""
"""The tag of a packet that could not be claimed, because the store is down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """Where an inference ends up, and by which policy.

    ``is_known_on``: when the switches were last read, this model was on.
    """

    store: InferenceStore
    spooling: Spooling | None
    policy: Policy
    outputs: tuple[Output, ...]
    deadline_s: float
    is_known_on: bool
    prepare: Prepare | None = None


async def end(
    packet: InferencePacket, ours: Stored, request: InferenceRequest, ending: Ending
) -> tuple[InferencePacket, tuple[Delivery, ...]]:
    """Store the finished packet; give it as it may be told, with the deliveries that may be sent now.

    Where the store is down it goes into the spool, with its deliveries, which are sent when it has come out of there.

    Raises:
        RecordChanged: somebody else has taken the request over.
        StoreUnavailable: it is not in the store, and nothing may be shown before it is.
    """
    deliveries = _deliveries(packet, ending)
    try:
        if ours.etag == UNCLAIMED:
            raise StoreUnavailable("expected a store that packets can be claimed in")
        await ending.store.replace(
            stepped(ours.packet, packet),
            etag=ours.etag,
            deliveries=deliveries,
            events=shown_by_answer(request, packet, ending.policy),
            meanwhile=None if ending.prepare is None else partial(_prepare, ending.prepare, packet),
        )
    except StoreUnavailable:
        spooling = ending.spooling
        if spooling is None or not spooling.takes(request):
            raise
        may_show = spooling.may_show(request, is_known_on=ending.is_known_on)
        packet = packet if may_show else withheld(packet)
        is_kept = await spooling.keep(
            stepped(ours.packet, packet),
            deliveries=_deliveries(packet, ending),
            events=shown_by_answer(request, packet, ending.policy),
        )
        if not (is_kept and may_show):
            raise
        return packet, ()
    return packet, deliveries


def _prepare(prepare: Prepare, packet: InferencePacket) -> None:
    # What goes wrong here will again when it is to be told, where somebody answers for it.
    with suppress(Exception):
        prepare(packet)


def _deliveries(packet: InferencePacket, ending: Ending) -> tuple[Delivery, ...]:
    if not isinstance(packet.outcome, Scored) or packet.outcome.decision is None:
        return ()
    names = outputs_of(ending.policy, packet.outcome.decision, tuple(output.name for output in ending.outputs))
    now = packet.updated_at
    left_to_request = max(LEFT_TO_REQUEST, timedelta(seconds=2 * ending.deadline_s))
    return tuple(
        moved(
            None,
            Delivery(
                delivery_id=derive_delivery_id(packet.packet_id, name),
                packet_id=packet.packet_id,
                output=name,
                state=DeliveryState.PENDING,
                created_at=now,
                updated_at=now,
                due_at=now + left_to_request,
            ),
        )
        for name in names
    )

"""What comes too late for whoever asked: it is neither shown nor written, and its packet says so.

The caller has been told by then that there is no answer. A score that turned up in the chart all the same would be one
that nobody expects any more; asked again, the request is answered afresh. Batches have nobody who waits.
"""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec

from deployr_core.packet import Delivery, Failed, InferencePacket, Scored
from deployr_serve.core.deliver import HELD_FOR
from deployr_serve.core.errors import DeadlinePassed, RecordChanged
from deployr_serve.core.life import moved
from deployr_serve.core.ports import Clock, InferenceStore, Lane
from deployr_serve.core.request import InferenceRequest

_FOR_ANSWERING = 0.02
"""Which share of the deadline is kept for rendering the answer, once its packet is stored."""
_log = logging.getLogger(__name__)


def is_too_late(request: InferenceRequest, packet: InferencePacket, *, clock: Clock, until: float, of_s: float) -> bool:
    """Tell whether a score can no longer be answered by ``until``, on `Clock.monotonic`; ``of_s`` is the whole time."""
    is_waited_for = request.lane is Lane.CLICK and isinstance(packet.outcome, Scored)
    return is_waited_for and clock.monotonic() >= until - _FOR_ANSWERING * of_s


def late(packet: InferencePacket, *, now: datetime) -> InferencePacket:
    """Give the packet as it is kept of a score that came too late."""
    failed = Failed(reason=DeadlinePassed.reason, retryable=True)
    return msgspec.structs.replace(packet, outcome=failed, updated_at=now)


async def taken_back(
    packet: InferencePacket, deliveries: tuple[Delivery, ...], *, store: InferenceStore, clock: Clock
) -> InferencePacket:
    """Take back a score that the store was slow to take, and give what stands in its place.

    Its deliveries go with it, and the note that its advisory was shown: nothing was sent, and nothing will be. They are
    held first, as whoever sends them does; of one that is already under way the packet stays as it is.

    Raises:
        StoreUnavailable: nobody knows what stands there now.
    """
    now = clock.now()
    for delivery in deliveries:
        held = moved(delivery, msgspec.structs.replace(delivery, due_at=now + HELD_FOR, updated_at=now))
        try:
            await store.save_delivery(held, was=delivery)
        except RecordChanged:
            return packet
    failed = late(packet, now=now)
    await store.erase(packet.packet_id, leaving=failed)
    _log.warning("stored too late, taken back: packet=%s", packet.packet_id)
    return failed

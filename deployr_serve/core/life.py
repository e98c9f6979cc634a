"""The life of a packet and of its deliveries: which state may follow which, and no other.

Whoever changes a stored record passes it through here on its way to the store; the store sees to it that nobody else
changed it meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from deployr_core.packet import (
    Abstained,
    Attempt,
    Delivery,
    DeliveryState,
    Failed,
    InferencePacket,
    Received,
    Rejected,
    Scored,
    Sending,
)
from deployr_serve.core.decide import SWITCHED_OFF


class PacketState(StrEnum):
    """Where a packet stands. ``switched-off``: abstained for that reason, which may pass."""

    RECEIVED = "received"
    SCORED = "scored"
    ABSTAINED = "abstained"
    SWITCHED_OFF = "switched-off"
    FAILED = "failed"
    REJECTED = "rejected"


TERMINAL = frozenset(PacketState) - {PacketState.RECEIVED}
PACKET_STEPS: Mapping[PacketState | None, frozenset[PacketState]] = {
    None: frozenset({PacketState.RECEIVED}),
    # Received once more: whoever had taken it on has died.
    PacketState.RECEIVED: TERMINAL | {PacketState.RECEIVED},
    PacketState.SWITCHED_OFF: frozenset({PacketState.RECEIVED}),
    PacketState.FAILED: frozenset({PacketState.RECEIVED}),
    PacketState.SCORED: frozenset(),
    PacketState.ABSTAINED: frozenset(),
    PacketState.REJECTED: frozenset(),
}
"""By state, None before there was any: which may come next."""
DELIVERY_STEPS: Mapping[DeliveryState | None, frozenset[DeliveryState]] = {
    # Expired at once: the packet came out of the spool too late.
    None: frozenset({DeliveryState.PENDING, DeliveryState.EXPIRED}),
    # Pending once more: put off, for whoever sends it or until it is worth another try.
    DeliveryState.PENDING: frozenset(DeliveryState),
    # By hand.
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING}),
    DeliveryState.SENT: frozenset(),
    DeliveryState.SUPERSEDED: frozenset(),
    DeliveryState.EXPIRED: frozenset(),
}
LABELLED = frozenset({PacketState.SCORED})
"""What may get a label."""


class ImpossibleStep(ValueError):
    """A record was to become what it cannot become: a mistake of ours, and nothing is stored."""


def state_of(packet: InferencePacket) -> PacketState:
    """Say where a packet stands."""
    match packet.outcome:
        case Received():
            return PacketState.RECEIVED
        case Scored():
            return PacketState.SCORED
        case Abstained(reason=reason):
            return PacketState.SWITCHED_OFF if reason == SWITCHED_OFF else PacketState.ABSTAINED
        case Failed():
            return PacketState.FAILED
        case Rejected():
            return PacketState.REJECTED


def stepped(before: InferencePacket | None, after: InferencePacket) -> InferencePacket:
    """Give the packet as it is to be stored.

    Raises:
        ImpossibleStep: it cannot come after what it was, or is about another request.
    """
    came, comes = (None if before is None else state_of(before)), state_of(after)
    if comes not in PACKET_STEPS[came]:
        raise ImpossibleStep(f"expected one of {_names(PACKET_STEPS[came])} after {came}, got {comes}")
    if before is not None and (before.packet_id, before.trigger.request_sha256) != (
        after.packet_id,
        after.trigger.request_sha256,
    ):
        raise ImpossibleStep("expected a packet to stay about the same request")
    return after


def attempt_of(held: InferencePacket) -> Attempt:
    """Give what stays on record of an attempt that another one takes over from; one without an end had died."""
    outcome = held.outcome
    tag = str(outcome.__struct_config__.tag)
    reason = "lease-expired" if isinstance(outcome, Received) else getattr(outcome, "reason", tag)
    return Attempt(started_at=held.started_at, ended_at=held.updated_at, reason=reason)


def moved(before: Delivery | None, after: Delivery) -> Delivery:
    """Give the delivery as it is to be stored.

    Raises:
        ImpossibleStep: it cannot come after what it was, or is another one.
    """
    came = None if before is None else before.state
    if after.state not in DELIVERY_STEPS[came]:
        raise ImpossibleStep(f"expected one of {_names(DELIVERY_STEPS[came])} after {came}, got {after.state}")
    if before is not None and (before.delivery_id, before.packet_id, before.output) != (
        after.delivery_id,
        after.packet_id,
        after.output,
    ):
        raise ImpossibleStep("expected a delivery to stay the same packet's, to the same output")
    return after


def sent_again(delivery: Delivery, *, now: datetime) -> Delivery:
    """Give a dead delivery as it is when somebody has it sent again: pending, due at once, with how it had ended.

    Raises:
        ImpossibleStep: it is not dead.
    """
    if delivery.state is not DeliveryState.DEAD:
        raise ImpossibleStep(f"expected a dead delivery, got one that is {delivery.state}")
    ended = Sending(
        state=delivery.state,
        ended_at=delivery.updated_at,
        attempts=delivery.attempts,
        last_error=delivery.last_error,
    )
    pending = msgspec.structs.replace(
        delivery,
        state=DeliveryState.PENDING,
        attempts=0,
        last_error=None,
        due_at=now,
        updated_at=now,
        earlier=(*delivery.earlier, ended),
    )
    return moved(delivery, pending)


def _names(states: frozenset[PacketState] | frozenset[DeliveryState]) -> str:
    return ", ".join(sorted(states)) or "nothing"

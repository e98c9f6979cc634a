"""Whose a request is: many may ask the same thing at once, on several workers, and one of them answers it."""

from __future__ import annotations

import msgspec

from deployr_core.forgetting import is_forgotten
from deployr_core.packet import Abstained, Failed, InferencePacket, Received
from deployr_serve.core.decide import SWITCHED_OFF
from deployr_serve.core.errors import InProgress, KeyReused, RecordChanged
from deployr_serve.core.life import attempt_of, stepped
from deployr_serve.core.ports import Clock, InferenceStore, Stored

POLL_S = 0.02


async def claim(
    fresh: InferencePacket, *, store: InferenceStore, clock: Clock, until: float, is_off: bool
) -> Stored | InferencePacket:
    """Make the packet ours to answer, or give the terminal packet that there already is.

    Args:
        fresh: what we would begin with.
        store: where it is claimed.
        clock: times the waiting for whoever is answering it now.
        until: when waiting ends, on `Clock.monotonic`.
        is_off: the model is switched off, so that what was not scored for that reason stays so.

    Raises:
        KeyReused: its idempotency key was used for another request.
        InProgress: somebody else has not answered it by then.
    """
    created = await store.create(fresh)
    if created is not None:
        return created
    waited = False
    while True:
        held = await store.read(fresh.packet_id)
        if held is None:
            raise InProgress("expected the packet that holds this id; it was there a moment ago")
        if is_forgotten(held.packet):
            return held.packet
        if held.packet.trigger.request_sha256 != fresh.trigger.request_sha256:
            raise KeyReused("expected an idempotency key that was not used for another request")
        retried = _retry(held.packet, fresh, is_off=is_off)
        # Who waited for an attempt takes its answer: many who ask at once must not try a struggling EMR one by one.
        if retried is not None and not (waited and held.packet.is_terminal):
            try:
                return await store.replace(stepped(held.packet, retried), etag=held.etag)
            except RecordChanged:
                continue
        if held.packet.is_terminal:
            return held.packet
        await _pause(clock, until=until)
        waited = True


async def answered(packet_id: str, *, store: InferenceStore, clock: Clock, until: float) -> InferencePacket:
    """Wait for somebody else's terminal packet.

    Raises:
        InProgress: there is none by then.
    """
    while True:
        held = await store.read(packet_id)
        if held is not None and held.packet.is_terminal:
            return held.packet
        await _pause(clock, until=until)


def _retry(held: InferencePacket, fresh: InferencePacket, *, is_off: bool) -> InferencePacket | None:
    """Give the packet to take over with; None if what is stored stands, or is being answered by somebody alive.

    A failure is tried again whenever it is asked again: whoever asks has reason to, and the evidence of the first
    attempt is kept.
    """
    match held.outcome:
        case Failed():
            pass
        case Abstained(reason=reason) if reason == SWITCHED_OFF and not is_off:
            pass
        case Received(lease_until=lease) if lease < fresh.started_at:
            pass
        case _:
            return None
    return msgspec.structs.replace(fresh, earlier_attempts=(*held.earlier_attempts, attempt_of(held)))


async def _pause(clock: Clock, *, until: float) -> None:
    if clock.monotonic() >= until:
        raise InProgress("expected the same request, asked elsewhere, to be answered within the deadline")
    await clock.sleep(POLL_S)

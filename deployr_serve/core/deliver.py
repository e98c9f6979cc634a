"""Sending what a stored packet owes the EMR: once when it was scored, and again by the relay until it is settled.

What may heal is tried again until its score has expired, however often that is: an EMR that is down for a night must
not turn a night's scores into dead letters. A delivery is held by whoever sends it: its ``due_at`` is put off before
anything goes out, so that two relays, or a relay and a request, never send the same one at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.packet import Delivery, DeliveryState, InferencePacket
from deployr_serve.core.errors import (
    UNEXPECTED,
    AskDifferently,
    EmrTimeout,
    Expired,
    FixSetup,
    RecordChanged,
    ServeError,
    StoreUnavailable,
    Superseded,
    TryLater,
    Undelivered,
)
from deployr_serve.core.life import moved
from deployr_serve.core.ports import Budget, Clock, InferenceStore, Lane, Models, Output
from deployr_serve.core.switches import Switches

AT_ONCE_WITHIN_S = 2.0
"""How long a request waits for each of its deliveries; what takes longer is the relay's."""
LEFT_TO_REQUEST = timedelta(minutes=1)
"""How long a delivery is left to the request that made it, so that the relay does not send beside it; a request with a
longer deadline leaves it to itself for twice that."""
RELAY_WITHIN_S = 30.0
"""How long the relay waits for one delivery."""
RELAY_RUNS_S = 25.0
"""For how long one run of the relay begins with further deliveries."""
HELD_FOR = timedelta(seconds=2 * RELAY_WITHIN_S)
"""How long a delivery that is being sent is nobody else's: of a worker that died meanwhile it is sent again then."""
EXPIRES_AFTER = timedelta(hours=24)
"""How long after it was made a score may still be sent, unless the site says otherwise."""
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=5)
_LINES = 8
"""How many patients' deliveries the relay sends at a time."""
_READS = 32
"""How many packets it reads at a time."""
_STATE_OF: dict[type[ServeError], DeliveryState] = {
    Superseded: DeliveryState.SUPERSEDED,
    Expired: DeliveryState.EXPIRED,
}


def wait_after(attempts: int, *, asked_s: float | None = None) -> timedelta:
    """Give how long a delivery waits after so many attempts that failed: 30 s, twice as long each time, at most 5 min.

    ``asked_s``: how long the EMR asked us to wait, which is heeded if it is longer, up to an hour.
    """
    wait = min(_FIRST_WAIT * (1 << min(max(attempts - 1, 0), 10)), _LONGEST_WAIT)
    return max(wait, min(timedelta(seconds=asked_s or 0.0), timedelta(hours=1)))


async def deliver(
    delivery: Delivery,
    packet: InferencePacket,
    bundle: Bundle,
    *,
    store: InferenceStore,
    outputs: tuple[Output, ...],
    clock: Clock,
    budget: Budget,
) -> Delivery:
    """Send one delivery that is held for us, and store how it went; a failure is a state, not an error.

    Refused for good: dead, with the reason. Failed in a way that may heal, or not done within the budget: pending, for
    the relay. A delivery that somebody else settled meanwhile is left to them.
    """
    after = await _sent(delivery, packet, bundle, outputs=outputs, clock=clock, budget=budget)
    return await _saved(after, store=store, clock=clock, was=delivery)


async def _saved(after: Delivery, *, store: InferenceStore, clock: Clock, was: Delivery) -> Delivery:
    after = moved(was, msgspec.structs.replace(after, updated_at=clock.now()))
    try:
        await store.save_delivery(after, was=was)
    except RecordChanged:
        return await store.read_delivery(was.delivery_id) or was
    except StoreUnavailable:
        # It stands in the store as it was; the relay sends it again, under the same id.
        return was
    return after


@dataclass(frozen=True, kw_only=True, slots=True)
class _Relay:
    """One run of the relay: all that it reaches the world through."""

    store: InferenceStore
    models: Models
    outputs: tuple[Output, ...]
    clock: Clock
    switches: Switches
    expires_after: timedelta


async def relay(
    *,
    store: InferenceStore,
    models: Models,
    outputs: tuple[Output, ...],
    clock: Clock,
    switches: Switches,
    expires_after: timedelta = EXPIRES_AFTER,
    limit: int = 500,
) -> Counter[DeliveryState]:
    """Send what is due, batch after batch of at most ``limit``; give how many ended in which state.

    Each delivery is tried once. Patients are served side by side; what goes to one output for one patient and model
    goes one after another, the oldest score first. What is pending of a model that is switched off, or silent by now,
    is given up: sent when it is switched on again, it would be an old score.

    Raises:
        StoreUnavailable: what was not reached stays due.
    """
    run = _Relay(
        store=store, models=models, outputs=outputs, clock=clock, switches=switches, expires_after=expires_after
    )
    states: Counter[DeliveryState] = Counter()
    tried: set[str] = set()
    until = clock.monotonic() + RELAY_RUNS_S
    while True:
        due = await store.pending_deliveries(due_before=clock.now(), limit=limit)
        fresh = [delivery for delivery in due if delivery.delivery_id not in tried]
        tried.update(delivery.delivery_id for delivery in fresh)
        lines = _lines(await _with_packets(fresh, store))
        turn = asyncio.Semaphore(_LINES)
        came = await asyncio.gather(*(_relay_line(line, run, turn) for line in lines), return_exceptions=True)
        for each in came:
            if isinstance(each, BaseException):
                raise each
            states.update(each)
        if not fresh or len(due) < limit or clock.monotonic() >= until:
            return states


async def _with_packets(
    deliveries: Iterable[Delivery], store: InferenceStore
) -> list[tuple[Delivery, InferencePacket]]:
    turn = asyncio.Semaphore(_READS)

    async def read(delivery: Delivery) -> tuple[Delivery, InferencePacket] | None:
        async with turn:
            stored = await store.read(delivery.packet_id)
        return None if stored is None else (delivery, stored.packet)

    found = await asyncio.gather(*(read(delivery) for delivery in deliveries))
    return [each for each in found if each is not None]


def _lines(owed: Iterable[tuple[Delivery, InferencePacket]]) -> list[list[tuple[Delivery, InferencePacket]]]:
    """Give what must go one after another: by patient, model and output, each line from its oldest score on."""
    lines: dict[tuple[str, str, str], list[tuple[Delivery, InferencePacket]]] = {}
    for delivery, packet in owed:
        lines.setdefault((packet.subject.patient_id, packet.model.model_id, delivery.output), []).append(
            (delivery, packet)
        )
    return [sorted(line, key=lambda each: (each[1].as_of, each[0].delivery_id)) for line in lines.values()]


async def _relay_line(
    line: list[tuple[Delivery, InferencePacket]], run: _Relay, turn: asyncio.Semaphore
) -> Counter[DeliveryState]:
    states: Counter[DeliveryState] = Counter()
    async with turn:
        for delivery, packet in line:
            after = await _relay_one(delivery, packet, run)
            if after is None:
                # Whoever is at it sends the rest of the line, too; beside them, a newer score might overtake.
                break
            states[after.state] += 1
    return states


async def _relay_one(delivery: Delivery, packet: InferencePacket, run: _Relay) -> Delivery | None:
    """Send one delivery, and give how it stands then; None if somebody else is at it."""
    clock, model_id = run.clock, packet.model.model_id

    async def saved(state: DeliveryState, reason: str, *, due_at: datetime | None) -> Delivery:
        after = msgspec.structs.replace(delivery, state=state, last_error=reason, due_at=due_at)
        return await _saved(after, store=run.store, clock=clock, was=delivery)

    if (reason := await run.switches.why_nothing_is_sent(model_id, packet.model.bundle_sha256)) is not None:
        return await saved(DeliveryState.DEAD, reason, due_at=delivery.due_at)
    if clock.now() - packet.updated_at > run.expires_after:
        return await saved(DeliveryState.EXPIRED, Expired.reason, due_at=delivery.due_at)
    try:
        bundle = run.models.bundle(model_id)
    except ServeError as error:
        return await saved(DeliveryState.PENDING, error.reason, due_at=clock.now() + _LONGEST_WAIT)
    held = moved(delivery, msgspec.structs.replace(delivery, due_at=clock.now() + HELD_FOR))
    try:
        await run.store.save_delivery(held, was=delivery)
    except RecordChanged:
        return None
    budget = Budget(
        deadline=clock.monotonic() + RELAY_WITHIN_S,
        correlation_id=packet.trigger.correlation_id,
        lane=Lane.BATCH,
    )
    return await deliver(held, packet, bundle, store=run.store, outputs=run.outputs, clock=clock, budget=budget)


async def _sent(
    delivery: Delivery,
    packet: InferencePacket,
    bundle: Bundle,
    *,
    outputs: tuple[Output, ...],
    clock: Clock,
    budget: Budget,
) -> Delivery:
    output = next((output for output in outputs if output.name == delivery.output), None)
    if output is None:
        due_at = clock.now() + _LONGEST_WAIT
        return msgspec.structs.replace(delivery, last_error="output-not-configured", due_at=due_at)
    attempts, asked_s = delivery.attempts + 1, None
    state = DeliveryState.PENDING
    try:
        async with asyncio.timeout(budget.deadline - clock.monotonic()):
            location = await output.send(packet, bundle, delivery_id=delivery.delivery_id, budget=budget)
    except (FixSetup, AskDifferently, Undelivered) as error:
        reason, state = error.reason, _STATE_OF.get(type(error), DeliveryState.DEAD)
    except TryLater as error:
        reason, asked_s = error.reason, error.retry_after_s
    except TimeoutError:
        reason = EmrTimeout.reason
    except Exception:  # noqa: BLE001 the score is stored and answered; one poisoned delivery must not stop the relay
        reason = UNEXPECTED
    else:
        return msgspec.structs.replace(
            delivery, state=DeliveryState.SENT, attempts=attempts, last_error=None, location=location
        )
    due_at = clock.now() + wait_after(attempts, asked_s=asked_s)
    return msgspec.structs.replace(delivery, state=state, attempts=attempts, last_error=reason, due_at=due_at)

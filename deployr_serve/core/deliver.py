"""Sending what a stored packet owes the EMR: once when it was scored, and again by the relay until it is settled."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

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
from deployr_serve.core.ports import Budget, Clock, InferenceStore, Lane, Models, Output
from deployr_serve.core.switches import Switches

MAX_ATTEMPTS = 10
RELAY_AFTER = timedelta(minutes=1)
"""How long a delivery is left to the request that made it, so that the relay does not send beside it."""
RELAY_WITHIN_S = 30.0
"""How long the relay waits for one delivery."""
_STATE_OF: dict[type[ServeError], DeliveryState] = {
    Superseded: DeliveryState.SUPERSEDED,
    Expired: DeliveryState.EXPIRED,
}


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
    """Send one delivery and store how it went; a failure is a state, not an error.

    Refused for good, or failed `MAX_ATTEMPTS` times: dead, with the reason. Failed in a way that may heal, or not done
    within the budget: pending, for the relay. A delivery that somebody else settled meanwhile is left to them.
    """
    after = await _sent(delivery, packet, bundle, outputs=outputs, clock=clock, budget=budget)
    return await _saved(after, store=store, clock=clock, was=delivery)


async def _saved(after: Delivery, *, store: InferenceStore, clock: Clock, was: Delivery) -> Delivery:
    after = msgspec.structs.replace(after, updated_at=clock.now())
    try:
        await store.save_delivery(after, was=was)
    except RecordChanged:
        return await store.read_delivery(was.delivery_id) or was
    except StoreUnavailable:
        # It stands in the store as it was; the relay sends it again, under the same id.
        return was
    return after


async def relay(
    *,
    store: InferenceStore,
    models: Models,
    outputs: tuple[Output, ...],
    clock: Clock,
    switches: Switches,
    limit: int = 500,
) -> Counter[DeliveryState]:
    """Send what is pending, oldest first; give how many ended in which state.

    What is pending of a model that is switched off, or silent by now, is given up: sent when it is switched on again,
    it would be an old score.
    """
    states: Counter[DeliveryState] = Counter()
    for delivery in await store.pending_deliveries(created_before=clock.now() - RELAY_AFTER, limit=limit):
        stored = await store.read(delivery.packet_id)
        if stored is None:
            continue
        model_id = stored.packet.model.model_id
        if (reason := await switches.why_nothing_is_sent(model_id)) is not None:
            after = msgspec.structs.replace(delivery, state=DeliveryState.DEAD, last_error=reason)
            states[(await _saved(after, store=store, clock=clock, was=delivery)).state] += 1
            continue
        try:
            bundle = models.bundle(model_id)
        except ServeError:
            states[delivery.state] += 1
            continue
        budget = Budget(
            deadline=clock.monotonic() + RELAY_WITHIN_S,
            correlation_id=stored.packet.trigger.correlation_id,
            lane=Lane.BATCH,
        )
        after = await deliver(delivery, stored.packet, bundle, store=store, outputs=outputs, clock=clock, budget=budget)
        states[after.state] += 1
    return states


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
        return msgspec.structs.replace(delivery, last_error="output-not-configured")
    attempts = delivery.attempts + 1
    may_heal, given_up = True, DeliveryState.DEAD
    try:
        async with asyncio.timeout(budget.deadline - clock.monotonic()):
            await output.send(packet, bundle, delivery_id=delivery.delivery_id, budget=budget)
    except (FixSetup, AskDifferently, Undelivered) as error:
        reason, may_heal = error.reason, False
        given_up = _STATE_OF.get(type(error), DeliveryState.DEAD)
    except TryLater as error:
        reason = error.reason
    except TimeoutError:
        reason = EmrTimeout.reason
    except Exception:  # noqa: BLE001 the score is stored and answered; one poisoned delivery must not stop the relay
        reason = UNEXPECTED
    else:
        return msgspec.structs.replace(delivery, state=DeliveryState.SENT, attempts=attempts, last_error=None)
    state = DeliveryState.PENDING if may_heal and attempts < MAX_ATTEMPTS else given_up
    return msgspec.structs.replace(delivery, state=state, attempts=attempts, last_error=reason)

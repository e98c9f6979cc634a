"""Where the store is what is slow, a score that nobody waits for any more is neither shown nor written."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import DeliveryState, Failed, Mode, Scored
from deployr_core.packet_ids import derive_delivery_id
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.deliver import relay
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Advisory, Policy, Suppression
from deployr_serve.core.ports import Lane

DEADLINE_S = 8.0
ADVISING = Policy(
    schema_version=1,
    model="hematocrit",
    mode=Mode.LIVE,
    threshold=0.5,
    suppression=Suppression(hours=1.0),
    advisory=Advisory(headline="Look twice"),
)


def slow(kind, clock, *arguments, commit_s=0.0, record_s=0.0, relay_first=False):
    """Give a store whose finished packets take so long to be stored, and its shared records so long to be read."""

    class Slow(kind):
        async def replace(self, packet, **more):
            stored = await super().replace(packet, **more)
            clock.pass_time(commit_s)
            if relay_first:
                [delivery] = more["deliveries"]
                held = msgspec.structs.replace(delivery, due_at=delivery.due_at + timedelta(minutes=1))
                await self.save_delivery(held, was=delivery)
            return stored

        async def read_record(self, kind, record_id, *, now):
            clock.pass_time(record_s if kind == "advised" else 0.0)
            return await super().read_record(kind, record_id, now=now)

    return Slow(*arguments)


@pytest.fixture(params=["memory", "sqlite"])
async def site(request, services_of, output_of, clock, tmp_path):
    """Give a function that makes services on a slow store, and their one output."""
    stores = []

    def make(**slowness):
        if request.param == "memory":
            store = slow(MemoryStore, clock, **slowness)
        else:
            store = slow(SqliteStore, clock, tmp_path / "store.sqlite", **slowness)
            stores.append(store)
        output = output_of()
        return services_of(store=store, outputs=(output,), deadline_s=DEADLINE_S, policies=(ADVISING,)), output

    yield make
    for store in stores:
        await store.aclose()


async def relayed(services, clock):
    clock.pass_time(120.0)
    await relay(
        store=services.store,
        models=services.models,
        outputs=services.outputs,
        clock=clock,
        switches=services.switches,
    )


def asked(request_of, **changes):
    return dataclasses.replace(request_of(), answer_shows=True, **changes)


@pytest.mark.parametrize("slowness", [{"commit_s": DEADLINE_S}, {"record_s": DEADLINE_S}])
async def test_a_score_that_is_stored_too_late_leaves_a_failure_and_nothing_else(site, request_of, clock, slowness):
    services, output = site(**slowness)
    answer = await infer(asked(request_of), services)
    assert answer.packet.outcome == Failed(reason="deadline", retryable=True)
    packet_id = answer.packet.packet_id
    assert (await services.store.read(packet_id)).packet == answer.packet
    assert await services.store.events(packet_id) == ()
    assert await services.store.read_delivery(derive_delivery_id(packet_id, output.name)) is None
    await relayed(services, clock)
    assert output.sent == []


async def test_one_that_is_stored_just_in_time_is_shown_and_written(site, request_of):
    services, output = site(commit_s=0.97 * DEADLINE_S)
    answer = await infer(asked(request_of), services)
    assert isinstance(answer.packet.outcome, Scored)
    assert len(await services.store.events(answer.packet.packet_id)) == 1
    assert len(output.sent) == 1


async def test_asked_again_it_is_answered_afresh_and_written_once(site, request_of, clock):
    services, output = site(commit_s=DEADLINE_S)
    first = await infer(asked(request_of), services)
    in_time = dataclasses.replace(services, site=dataclasses.replace(services.site, deadline_s=3 * DEADLINE_S))
    again = await infer(asked(request_of), in_time)
    assert again.packet.packet_id == first.packet.packet_id
    assert isinstance(again.packet.outcome, Scored)
    assert [attempt.reason for attempt in again.packet.earlier_attempts] == ["deadline"]
    await relayed(services, clock)
    assert len(output.sent) == 1
    delivery = await services.store.read_delivery(derive_delivery_id(again.packet.packet_id, output.name))
    assert delivery.state is DeliveryState.SENT


async def test_what_somebody_else_is_sending_already_is_not_taken_back(site, request_of):
    services, _ = site(commit_s=DEADLINE_S, relay_first=True)
    answer = await infer(asked(request_of), services)
    assert isinstance(answer.packet.outcome, Scored)
    assert isinstance((await services.store.read(answer.packet.packet_id)).packet.outcome, Scored)


async def test_a_batch_takes_its_time(site, request_of, clock):
    services, output = site(commit_s=DEADLINE_S)
    answer = await infer(asked(request_of, lane=Lane.BATCH), services)
    assert isinstance(answer.packet.outcome, Scored)
    await relayed(services, clock)
    assert len(output.sent) == 1

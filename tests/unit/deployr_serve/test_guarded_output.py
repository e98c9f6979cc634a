"""The guards that every way out shares: environment, number, age, order."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.errors import (
    EmrRefused,
    EmrTimeout,
    Expired,
    InProgress,
    InvalidScore,
    OutcomeUnknown,
    Superseded,
    WrongEnvironment,
)
from deployr_serve.core.guarded_output import GuardedOutput
from deployr_serve.core.ports import Budget

MINUTE = timedelta(minutes=1)


@pytest.fixture
def guard_of(clock):
    """Give a function that puts the guards before an output, with one memory of what was sent last."""
    store = MemoryStore()

    def make(output):
        return GuardedOutput(
            output,
            records=store,
            clock=clock,
            environment="TEST",
            id_key=b"0123456789abcdef",
            expires_after=timedelta(hours=24),
        )

    make.store = store
    return make


@pytest.fixture
def send(guard_of, bundle, clock):
    async def run(output, packet, *, within_s=60.0):
        budget = Budget(deadline=clock.monotonic() + within_s, correlation_id="c-1")
        await guard_of(output).send(packet, bundle, delivery_id=f"{packet.packet_id}.{output.name}", budget=budget)

    return run


async def test_a_packet_of_another_environment_is_refused_unsent(send, output_of, packet_of):
    output = output_of()
    with pytest.raises(WrongEnvironment):
        await send(output, packet_of(environment="PRD"))
    assert output.sent == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.0, None, "1", True, np.float64(0.5)], ids=repr)
async def test_what_is_no_plain_finite_float_is_refused_unsent(send, output_of, packet_of, number):
    output, packet = output_of(), packet_of()
    msgspec.structs.force_setattr(packet.outcome, "score", number)
    with pytest.raises(InvalidScore):
        await send(output, packet)
    assert output.sent == []


async def test_a_probability_stays_between_0_and_1_and_a_number_with_a_unit_need_not(send, output_of, packet_of):
    output, packet = output_of(), packet_of()
    with_unit = packet_of("p02", outcome=msgspec.structs.replace(packet.outcome, score=138.0, value_unit="mmol/L"))
    await send(output, with_unit)
    msgspec.structs.force_setattr(packet.outcome, "score", 1.5)
    with pytest.raises(InvalidScore):
        await send(output, packet)
    assert output.sent == ["p02.score-column"]


async def test_a_score_that_was_made_a_day_ago_is_still_sent_and_a_second_later_is_not(
    send, output_of, packet_of, clock
):
    output = output_of()
    clock.pass_time(24 * 3600)
    await send(output, packet_of())
    clock.pass_time(1)
    with pytest.raises(Expired):
        await send(output, packet_of("p02"))
    assert output.sent == ["p01.score-column"]


async def test_an_older_score_after_a_newer_one_is_superseded(send, output_of, packet_of, now):
    output = output_of()
    await send(output, packet_of("p02"))
    with pytest.raises(Superseded):
        await send(output, packet_of("p01", as_of=now - MINUTE))
    assert output.sent == ["p02.score-column"]


@pytest.mark.parametrize("change", [{"patient_id": "p2"}, {"model_id": "anemia"}], ids=["patient", "model"])
async def test_the_order_is_kept_for_each_patient_and_model(guard_of, output_of, packet_of, bundle, now, change):
    output = output_of()
    await guard_of(output).send(packet_of("p02"), bundle, delivery_id="p02.score-column")
    other = packet_of("p01", as_of=now - MINUTE, **change)
    manifest = msgspec.structs.replace(bundle.manifest, model_id=other.model.model_id)
    await guard_of(output).send(
        other, msgspec.structs.replace(bundle, manifest=manifest), delivery_id="p01.score-column"
    )
    assert output.sent == ["p02.score-column", "p01.score-column"]


async def test_two_scores_of_one_instant_supersede_neither(send, output_of, packet_of):
    output = output_of()
    await send(output, packet_of("p02"))
    await send(output, packet_of("p01"))
    assert output.sent == ["p02.score-column", "p01.score-column"]


async def test_what_may_have_arrived_counts_as_sent_and_what_was_refused_does_not(send, output_of, packet_of, now):
    output = output_of(EmrRefused("no"), None, EmrTimeout("slow"))
    older, newer, newest = (packet_of(f"p0{n}", as_of=now - n * MINUTE) for n in (3, 2, 1))
    with pytest.raises(EmrRefused):
        await send(output, newest)
    await send(output, older)
    with pytest.raises(EmrTimeout):
        await send(output, newest)
    with pytest.raises(Superseded):
        await send(output, newer)


async def test_a_score_of_which_nobody_knows_whether_it_arrived_keeps_older_ones_back(send, output_of, packet_of, now):
    output = output_of(OutcomeUnknown("the worker died"))
    with pytest.raises(OutcomeUnknown):
        await send(output, packet_of("p02"))
    with pytest.raises(Superseded):
        await send(output, packet_of("p01", as_of=now - MINUTE))
    assert output.sent == ["p02.score-column"]


async def test_the_same_delivery_may_be_sent_again(send, output_of, packet_of):
    output = output_of(EmrTimeout("slow"))
    with pytest.raises(EmrTimeout):
        await send(output, packet_of())
    await send(output, packet_of())
    assert output.sent == ["p01.score-column"] * 2


class Slow:
    """Takes its time, until it is told to go on."""

    name = "score-column"

    def __init__(self):
        self.sent, self.begun, self.go_on = [], asyncio.Event(), asyncio.Event()

    async def send(self, packet, bundle, *, delivery_id, budget=None):
        self.begun.set()
        await self.go_on.wait()
        self.sent.append(delivery_id)


async def test_a_newer_score_waits_for_an_older_one_that_is_on_its_way(send, packet_of, now):
    output = Slow()
    older = asyncio.create_task(send(output, packet_of("p01", as_of=now - MINUTE)))
    await output.begun.wait()
    newer = asyncio.create_task(send(output, packet_of("p02")))
    await asyncio.sleep(0)
    output.go_on.set()
    await asyncio.gather(older, newer)
    assert output.sent == ["p01.score-column", "p02.score-column"]


async def test_a_score_that_waited_in_vain_is_left_to_the_relay(send, packet_of, now):
    output = Slow()
    older = asyncio.create_task(send(output, packet_of("p01", as_of=now - MINUTE)))
    await output.begun.wait()
    with pytest.raises(InProgress):
        await send(output, packet_of("p02"), within_s=1.0)
    output.go_on.set()
    await older
    assert output.sent == ["p01.score-column"]


async def test_a_worker_that_died_while_sending_keeps_others_waiting_for_a_minute(
    send, output_of, packet_of, clock, now
):
    dying = Slow()
    task = asyncio.create_task(send(dying, packet_of("p01", as_of=now - MINUTE)))
    await dying.begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    output = output_of()
    clock.pass_time(60)
    await send(output, packet_of("p02"))
    assert output.sent == ["p02.score-column"]


async def test_what_is_remembered_names_no_patient(guard_of, send, output_of, packet_of, clock):
    await send(output_of(), packet_of(patient_id="CANARY"))
    [(key, record)] = (await guard_of.store.records("sent", now=clock.now())).items()
    assert "CANARY" not in key
    assert b"CANARY" not in record.content

"""A run ends in time, goes on where it left off, and leaves nobody out for ever."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import Abstained, Decision, Failed, Mode, Received
from deployr_serve.core.outcome_source import OutcomeFacts
from label_extractors import waiting
from label_extractors.collect import collect_labels
from label_extractors.pace import Pace
from label_extractors.standing import standing_of
from label_extractors.waiting import Place, left_off

DAY = 24 * 3600


@pytest.fixture
def many(store_packets, packet_of):
    async def run(count):
        await store_packets(*(packet_of(f"p{n:03}", patient_id=f"patient{n}", order_id=f"o{n}") for n in range(count)))

    return run


async def test_a_run_begins_nobody_after_its_time_and_the_next_one_goes_on(services, many, outcomes_of, clock):
    await many(20)
    clock.pass_time(2 * DAY)
    slow = outcomes_of(clock=clock, costs_s=1.0)
    pace = Pace(budget_s=5.0)
    first = await collect_labels(services, slow, pace=pace)
    assert first["censored"] + first["left"] == 20
    # Eight at a time: who was begun in time is finished.
    assert 5 <= first["censored"] <= 13
    done = first["censored"]
    while done < 20:
        counts = await collect_labels(services, slow, pace=pace)
        assert counts["censored"] > 0
        done += counts["censored"]
    assert len(slow.asked) == 20
    assert await collect_labels(services, slow, pace=pace) == {}


async def test_a_gap_of_weeks_is_labelled_whole_a_bounded_part_at_a_time(
    services, many, outcomes_of, clock, monkeypatch
):
    monkeypatch.setattr(waiting, "PAGE", 4)
    await many(30)
    clock.pass_time(40 * DAY)
    outcomes = outcomes_of()
    told = []
    counts = await collect_labels(
        services, outcomes, pace=Pace(together=8), tell=lambda done, known: told.append((done, known))
    )
    assert counts == {"censored": 30}
    assert told[-1] == (30, 30)
    assert [known for _, known in told[::8]] == [8, 16, 24, 30]


async def test_where_a_run_ended_for_want_of_time_is_stored_and_where_it_came_to_its_end_is_not(
    services, many, outcomes_of, clock, monkeypatch
):
    monkeypatch.setattr(waiting, "PAGE", 2)
    await many(8)
    # None is ripe: all of them wait, and a run that always began at the first would never reach the last.
    slow = outcomes_of(clock=clock, costs_s=10.0)
    pace = Pace(budget_s=15.0, together=2)
    reached = []
    for _ in range(6):
        asked = len(slow.asked)
        await collect_labels(services, slow, pace=pace)
        reached.append(sorted(patient_id for patient_id, _ in slow.asked[asked:]))
    assert {patient_id for each in reached for patient_id in each} == {f"patient{n}" for n in range(8)}
    quick = outcomes_of()
    await collect_labels(services, quick)
    await collect_labels(services, quick)
    assert await left_off(services.records, "all", now=clock.now()) is None


async def test_a_run_that_ended_at_a_model_that_is_gone_begins_at_the_first(services, many, outcomes_of, clock):
    await many(3)
    clock.pass_time(2 * DAY)
    place = Place(model_id="albumin", again=False, after="p001")
    await waiting.leave_off(services.records, "all", place, now=clock.now())
    assert await collect_labels(services, outcomes_of()) == {"censored": 3}


async def test_a_run_goes_on_past_the_packet_at_which_the_last_one_ended(services, many, outcomes_of, clock):
    await many(4)
    clock.pass_time(2 * DAY)
    place = Place(model_id="hematocrit", again=False, after="p001")
    await waiting.leave_off(services.records, "all", place, now=clock.now())
    assert await collect_labels(services, outcomes_of()) == {"censored": 2}
    assert await collect_labels(services, outcomes_of()) == {"censored": 2}


async def test_a_run_may_be_of_some_models_only(services, many, packet_of, outcomes_of, clock):
    await many(1)
    clock.pass_time(2 * DAY)
    assert await collect_labels(services, outcomes_of(), model_ids=()) == {}
    assert await collect_labels(services, outcomes_of(), model_ids=("hematocrit",)) == {"censored": 1}


async def test_packets_that_nobody_saw_are_labelled_like_others(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    packet = packet_of()
    decision = Decision(mode=Mode.SILENT, advise=False, why="silent", policy_sha256="0" * 64)
    await store_packets(
        msgspec.structs.replace(packet, outcome=msgspec.structs.replace(packet.outcome, decision=decision))
    )
    clock.pass_time(DAY)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),)))
    assert await collect_labels(services, outcomes) == {"observed": 1}


# -- how labels stand


async def test_what_is_scored_labelled_overdue_and_left_out_is_counted(
    services, store_packets, packet_of, outcomes_of, abnormal, clock, now
):
    await store_packets(
        *(packet_of(f"p0{n}", patient_id=f"p{n}", order_id=f"o{n}") for n in range(3)),
        packet_of("p04", patient_id="p9", as_of=now + timedelta(days=2)),
        packet_of("p05", outcome=Failed(reason="emr-timeout", retryable=True)),
        packet_of("p06", outcome=Abstained(reason="sparse")),
        packet_of("p07", outcome=Received(lease_until=now)),
    )
    clock.pass_time(2 * DAY)
    broken = outcomes_of(p0=OutcomeFacts(labs=(abnormal("o0"),)), p1=RuntimeError("a bug"))
    assert await collect_labels(services, broken) == {
        "observed": 1,
        "censored": 1,
        "failed:unexpected": 1,
        "not-yet": 1,
    }
    [found] = [each async for each in standing_of(services, ["hematocrit"], now=clock.now())]
    assert (found.model_id, found.rule) == ("hematocrit", "lab-component")
    assert (found.scored, found.ripe, found.observed, found.overdue, found.not_yet) == (4, 3, 1, 1, 1)
    assert found.censored == {"order-not-visible": 1}
    assert found.excluded == {"failed": 1, "abstained": 1, "received": 1}
    assert found.corrected == 0

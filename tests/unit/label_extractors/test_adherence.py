"""What clinicians did about an advisory: the first answer in time, or none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployr_core.packet import Event, EventKind, NotYet, Observed
from deployr_core.packet_ids import derive_event_id
from label_extractors.adherence import adherence
from label_extractors.collect import collect_labels
from label_extractors.pace import Pace

TICK, HOUR = timedelta(microseconds=1), timedelta(hours=1)


@pytest.fixture
def event(now):
    def make(kind, after=timedelta(0), *, packet_id="p01", reason=None):
        at = now + after
        return Event(
            event_id=derive_event_id(packet_id, kind, at, reason or ""),
            packet_id=packet_id,
            kind=kind,
            at=at,
            reason=reason,
        )

    return make


@pytest.fixture
def said(now):
    def ask(*events, after=2 * HOUR):
        return adherence(events, shown_at=now, hours=2, now=now + after)

    return ask


@pytest.mark.parametrize("kind", [EventKind.ACCEPTED, EventKind.OVERRIDDEN, EventKind.ACKNOWLEDGED])
def test_an_answer_is_one_from_when_it_was_shown_until_the_hours_are_over(said, event, now, kind):
    for after in (timedelta(0), HOUR, 2 * HOUR - TICK):
        answer = event(kind, after, reason="patient-declined")
        assert said(answer) == Observed(
            value=kind.value, at=answer.at, known_at=answer.at, source_id=answer.event_id, why="patient-declined"
        )
    assert said(event(kind, 2 * HOUR)).value == "no-response"


def test_an_answer_that_another_clock_dates_before_the_advisory_is_one_nevertheless(said, event):
    assert said(event(EventKind.ACCEPTED, -HOUR)).value == "accepted"


def test_the_first_answer_counts_and_of_two_at_once_the_one_that_follows_the_advice(said, event):
    overridden, accepted = event(EventKind.OVERRIDDEN, HOUR), event(EventKind.ACCEPTED, HOUR + TICK)
    assert said(accepted, overridden).value == "overridden"
    assert said(event(EventKind.ACCEPTED, HOUR), overridden).value == "accepted"


def test_no_answer_is_known_at_the_end_of_the_hours_and_not_before(said, event, now):
    shown = event(EventKind.SHOWN)
    assert said(shown, after=2 * HOUR - TICK) == NotYet(ripe_at=now + 2 * HOUR)
    end = now + 2 * HOUR
    assert said(shown, after=2 * HOUR) == Observed(value="no-response", at=end, known_at=end, source_id="")


# -- whole runs


@pytest.fixture
def told(services, event):
    async def run(*events):
        for each in events:
            await services.store.append_event(each)

    return run


async def outcome_of(services, packet_id):
    held = await services.store.read_label(f"{packet_id}.adherence")
    return None if held is None else (held.label.outcome.value, held.label.outcome.why)


async def test_answers_become_labels_of_their_own(
    services, store_packets, packet_of, outcomes_of, event, told, clock, now
):
    await store_packets(*(packet_of(f"p0{n}", patient_id=f"p{n}", as_of=now + timedelta(days=9)) for n in range(1, 5)))
    shown = EventKind.SHOWN
    await told(
        event(shown, packet_id="p01"),
        event(EventKind.ACCEPTED, HOUR, packet_id="p01", reason="suggestion-1"),
        event(shown, packet_id="p02"),
        event(shown, 2 * HOUR, packet_id="p02"),
        event(EventKind.OVERRIDDEN, HOUR, packet_id="p02", reason="known-already"),
        event(shown, packet_id="p03"),
    )
    clock.pass_time(3600 * 23)
    counts = await collect_labels(services, outcomes_of(), again=True)
    assert counts == {"not-yet": 4, "adherence.accepted": 1, "adherence.overridden": 1, "adherence.not-yet": 1}
    clock.pass_time(3600)
    counts = await collect_labels(services, outcomes_of(), again=True)
    assert counts == {"not-yet": 4, "adherence.unchanged": 2, "adherence.no-response": 1}
    assert [await outcome_of(services, f"p0{n}") for n in range(1, 5)] == [
        ("accepted", "suggestion-1"),
        ("overridden", "known-already"),
        ("no-response", None),
        None,
    ]


async def test_an_answer_that_is_reported_late_corrects_that_there_was_none(
    services, store_packets, packet_of, outcomes_of, event, told, clock, now
):
    await store_packets(packet_of(as_of=now + timedelta(days=90)))
    await told(event(EventKind.SHOWN))
    clock.pass_time(3600 * 48)
    await collect_labels(services, outcomes_of(), again=True)
    assert await outcome_of(services, "p01") == ("no-response", None)
    await told(event(EventKind.ACCEPTED, HOUR))
    clock.pass_time(60)
    counts = await collect_labels(services, outcomes_of(), again=True)
    assert counts["adherence.corrected"] == 1
    assert await outcome_of(services, "p01") == ("accepted", None)


async def test_advisories_of_long_ago_are_not_looked_at(
    services, store_packets, packet_of, outcomes_of, event, told, clock, now
):
    await store_packets(packet_of(as_of=now + timedelta(days=90)))
    await told(event(EventKind.SHOWN))
    pace = Pace(corrections=timedelta(days=1), adherence_hours=2)
    clock.pass_time(26 * 3600 + 1)
    assert await collect_labels(services, outcomes_of(), again=True, pace=pace) == {"not-yet": 1}
    assert (await collect_labels(services, outcomes_of(), again=True))["adherence.no-response"] == 1


async def test_a_run_that_looks_at_nothing_again_leaves_answers_alone(
    services, store_packets, packet_of, outcomes_of, event, told, clock
):
    await store_packets(packet_of())
    await told(event(EventKind.SHOWN))
    clock.pass_time(3600 * 48)
    assert await collect_labels(services, outcomes_of()) == {"censored": 1}

"""Calls by the hour from what changed: each packet once, however often it comes again."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from deployr_core.monitoring.alerting_operations import HourCount
from deployr_core.packet import Abstained, Failed, Rejected
from deployr_core.packet_ids import derive_packet_id
from deployr_serve.adapters.cosmos_layout import LARGEST_PART
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core import alert_tallies
from deployr_serve.core.alert_tallies import Tallies
from deployr_serve.core.errors import StoreUnavailable

HOUR = timedelta(hours=1)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def tallies(store, clock):
    return Tallies(store, store, clock=clock, site="test", slow_s=6.4)


@pytest.fixture
def asked(store, packet_of, now):
    """Give a function that stores a packet as it was asked for at an instant, and answered in so many seconds."""
    number = 0

    async def run(at=now, *, seconds=1.0, outcome=None, channel="json", **changes):
        nonlocal number
        number += 1
        packet = packet_of(f"p{number:04d}", outcome=outcome, **changes)
        trigger = msgspec.structs.replace(packet.trigger, channel=channel)
        packet = msgspec.structs.replace(
            packet, trigger=trigger, started_at=at, updated_at=at + timedelta(seconds=seconds)
        )
        return await store.create(packet)

    return run


async def hours_of(tallies, model="hematocrit"):
    return (await tallies.of_models([model]))[model]


async def test_an_hour_is_counted_by_what_became_of_its_packets(tallies, asked, now):
    await asked()
    await asked(seconds=7.0)
    await asked(outcome=Failed(reason="emr-timeout", retryable=True), seconds=8.0)
    await asked(outcome=Abstained(reason="too-little-data"))
    await asked(outcome=Abstained(reason="switched-off"))
    await asked(outcome=Rejected(reason="unknown-patient"))
    await asked(channel="batch", seconds=100.0)
    await asked(site="elsewhere")
    assert await tallies.count()
    hours, last_at = await hours_of(tallies)
    assert hours == {
        now.replace(minute=0): HourCount(asked=7, slots=1, answered=5, failed=1, abstained=1, waited=4, slow=2)
    }
    assert last_at == now


async def test_a_packet_that_changes_counts_as_what_it_is_now(tallies, asked, store, received, now):
    stored = await asked(outcome=received)
    await tallies.count()
    assert (await hours_of(tallies))[0][now.replace(minute=0)].answered == 0
    failed = msgspec.structs.replace(stored.packet, outcome=Failed(reason="deadline", retryable=True))
    await store.replace(failed, etag=stored.etag)
    await tallies.count()
    await tallies.count()
    hours, _ = await hours_of(tallies)
    assert hours[now.replace(minute=0)] == HourCount(asked=1, slots=1, answered=1, failed=1, waited=1)


async def test_five_minutes_with_many_packets_are_one_stretch(tallies, asked, now):
    hour = now.replace(minute=0)
    for minutes in (0, 1, 4, 5, 59):
        await asked(hour + timedelta(minutes=minutes))
    await tallies.count()
    hours, _ = await hours_of(tallies)
    assert (hours[hour].asked, hours[hour].slots) == (5, 3)


async def test_an_hour_that_is_over_for_a_day_is_closed_and_stays_the_same(tallies, asked, store, clock, now):
    for back in range(30):
        await asked(now - back * HOUR)
    await tallies.count()
    before, _ = await hours_of(tallies)
    clock.pass_time(86_400)
    stored = await asked(now + timedelta(days=1))
    await tallies.count()
    after, last_at = await hours_of(tallies)
    assert {hour: each for hour, each in after.items() if hour <= now} == before
    assert last_at == stored.packet.started_at
    # What was closed is one record, and no packet's id is left of it.
    open_hours = await store.records("alert-tally-test", now=clock.now())
    assert len(open_hours) == 2
    closed = (await store.records("alert-hours-test", now=clock.now()))["hematocrit"].content
    assert b"p00" not in closed


async def test_a_label_that_comes_later_changes_nothing(tallies, asked, store, clock, now):
    stored = await asked()
    await tallies.count()
    clock.pass_time(3 * 86_400)
    await tallies.count()
    await store.replace(stored.packet, etag=stored.etag)
    await tallies.count()
    hours, _ = await hours_of(tallies)
    assert [each.asked for each in hours.values()] == [1]


async def test_counts_are_kept_for_eight_weeks(tallies, asked, clock, now):
    await asked()
    await tallies.count()
    clock.pass_time(57 * 86_400)
    await asked(clock.now())
    await tallies.count()
    clock.pass_time(2 * 86_400)
    await tallies.count()
    hours, _ = await hours_of(tallies)
    assert len(hours) == 1


async def test_a_store_that_was_there_before_is_read_over_several_looks(tallies, asked, now, monkeypatch):
    monkeypatch.setattr(alert_tallies, "PAGE", 5)
    monkeypatch.setattr(alert_tallies, "MOST_PAGES", 2)
    for back in range(24):
        await asked(now - back * HOUR)
    looks = [await tallies.count() for _ in range(3)]
    assert looks[0] is False
    assert looks[-1] is True
    hours, _ = await hours_of(tallies)
    assert sum(each.asked for each in hours.values()) == 24


async def test_a_run_that_was_killed_while_it_closed_comes_to_the_same(tallies, asked, store, clock, now, monkeypatch):
    for back in range(5):
        await asked(now - back * HOUR)
    await tallies.count()
    before, _ = await hours_of(tallies)
    clock.pass_time(2 * 86_400)
    replace, calls = store.replace_record, 0

    async def die(kind, *args, **kwargs):
        nonlocal calls
        calls += 1
        if kind == "alert-tally-test":
            raise ConnectionError
        return await replace(kind, *args, **kwargs)

    monkeypatch.setattr(store, "replace_record", die)
    with pytest.raises(ConnectionError):
        await tallies.count()
    monkeypatch.undo()
    await tallies.count()
    after, _ = await hours_of(tallies)
    assert after == before


class Narrow(MemoryStore):
    """Takes of a shared record no more than so many bytes, as Cosmos DB does."""

    most = LARGEST_PART

    async def create_record(self, kind, record_id, content, **when):
        self._expect_small(content)
        return await super().create_record(kind, record_id, content, **when)

    async def replace_record(self, kind, record_id, content, **changes):
        self._expect_small(content)
        return await super().replace_record(kind, record_id, content, **changes)

    def _expect_small(self, content):
        if len(content) > self.most:
            raise StoreUnavailable("expected a smaller record")


def id_of(number):
    return derive_packet_id(b"0123456789abcdef", environment="E", model_id="hematocrit", request_key=str(number))


def as_one_part(*packet_ids, became="x00"):
    """Give an hour's record as it was before there were sixteen: of each packet, that it was asked for and no more."""
    return msgspec.json.encode({"hematocrit": {each[:16]: became for each in packet_ids}})


async def test_an_hour_of_more_packets_than_one_record_takes_is_counted_in_sixteen(packet_of, clock, now):
    store = Narrow()
    # 16 of 25 bytes in each part on the average, and 32 at the most; in one record there would be 256.
    store.most = 32 * 25
    for number in range(256):
        await store.create(packet_of(id_of(number)))
    tallies = Tallies(store, store, clock=clock, site="test", slow_s=6.4)
    assert await tallies.count()
    assert len(await store.records("alert-tally-test", now=now)) == 16
    assert (await hours_of(tallies))[0][now.replace(minute=0)].asked == 256


async def test_an_hour_that_was_too_much_for_one_record_is_counted_on_and_closed(packet_of, clock, now):
    # As an earlier version left it: the one part is full, and the cursor stands before the packets that it holds.
    store, hour = Narrow(), f"{now:%Y-%m-%dT%H:00+00:00}"
    full = as_one_part(*(id_of(number) for number in range(9_900)))
    assert len(full) <= LARGEST_PART < len(full) + 200 * 25
    await store.create_record("alert-tally-test", f"{hour}/p", full, now=now)
    for number in range(9_800, 10_100):
        await store.create(packet_of(id_of(number)))
    tallies = Tallies(store, store, clock=clock, site="test", slow_s=6.4)
    assert await tallies.count()
    hours, _ = await hours_of(tallies)
    # Of 300 packets more is known since: 100 of those that were counted, and 200 others; they came at 20:55.
    counted = HourCount(asked=10_100, slots=2, answered=300, waited=300)
    assert hours == {now.replace(minute=0): counted}
    clock.pass_time(2 * 86_400)
    assert await tallies.count()
    assert (await hours_of(tallies))[0] == hours
    assert await store.records("alert-tally-test", now=clock.now()) == {}


@pytest.mark.parametrize("part", ["", "/p"])
async def test_what_an_earlier_version_counted_of_a_packet_is_older_than_what_is_counted_since(
    tallies, asked, store, now, part
):
    stored = await asked()
    hour = f"{now:%Y-%m-%dT%H:00+00:00}"
    was = as_one_part(stored.packet.packet_id, id_of(1))
    await store.create_record("alert-tally-test", f"{hour}{part}", was, now=now)
    await tallies.count()
    [(_, counted)] = (await hours_of(tallies))[0].items()
    assert (counted.asked, counted.answered) == (2, 1)


async def test_a_model_that_nobody_asked_has_no_hours(tallies):
    assert await hours_of(tallies, "other") == ({}, None)

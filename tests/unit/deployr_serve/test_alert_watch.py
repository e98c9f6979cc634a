"""The app's own look: from packets in a store to what people are told, with nothing of anybody in it."""

from __future__ import annotations

import logging
from datetime import UTC, timedelta

import msgspec
import pytest

from deployr_core.monitoring.alert_rules import AlertRules, Rules
from deployr_core.monitoring.alerting import Verdict, What
from deployr_core.packet import Abstained, DeliveryState, Failed
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core import alert_tallies
from deployr_serve.core.alert_desk import AlertDesk
from deployr_serve.core.alert_tallies import Tallies
from deployr_serve.core.alert_watch import AlertWatch
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.outputs.alert_messages import (
    alert_communication,
    signed_event,
    slack_blocks,
    teams_card,
    text_of,
    title_of,
)
from tests.unit.deployr_serve.test_alert_desk import Sink, whats

MINUTE = timedelta(minutes=1)
CANARIES = ("CANARYPATIENT", "CANARYENCOUNTER", "CANARYORDER", "CANARYCALLER", "CANARYHASH", "CANARYCOMMENT")


class Down(MemoryStore):
    """A store that does not answer while ``is_down``."""

    is_down = False

    async def read_record(self, *args, **kwargs):
        if self.is_down:
            raise StoreUnavailable("down")
        return await super().read_record(*args, **kwargs)


@pytest.fixture
def store():
    return Down()


@pytest.fixture
def watch_of(services_of, store, clock, models_of, bundle):
    def make(*sinks, rules=None):
        services = services_of(store=store, models=models_of(hematocrit=bundle))
        desk = {"rules": rules or AlertRules(), "sinks": sinks, "clock": clock, "site": "test", "environment": "TEST"}
        return AlertWatch(
            services=services,
            desk=AlertDesk(records=store, **desk),
            own_desk=AlertDesk(records=MemoryStore(), **desk),
            tallies=Tallies(store, store, clock=clock, site="test", slow_s=6.4),
            zone=UTC,
        )

    return make


@pytest.fixture
def asked(store, packet_of):
    count = 0

    async def run(at, *, outcome=None, times=1, **changes):
        nonlocal count
        for _ in range(times):
            count += 1
            packet = packet_of(f"p{count:05d}", outcome=outcome, started_at=at, updated_at=at + MINUTE / 60, **changes)
            await store.create(packet)

    return run


FAILED = Failed(reason="emr-unreachable", retryable=True)


async def test_an_emr_that_goes_down_is_told_of_within_half_an_hour_and_when_it_is_back(watch_of, asked, clock):
    sink = Sink("teams")
    watch = watch_of(sink)
    begun = clock.now()
    for minute in range(0, 300, 5):
        outcome = FAILED if 60 <= minute < 120 else None
        await asked(clock.now(), outcome=outcome, times=4)
        await watch.look()
        clock.pass_time(300)
    notices = [each for message in sink.taken for each in message.notices]
    assert [each.what for each in notices] == [What.BEGUN, What.ENDED]
    assert notices[0].rule == "failures"
    assert notices[0].at - begun <= timedelta(minutes=60 + 30)


async def test_a_model_that_nobody_asks_any_more_is_told_of(watch_of, asked, clock):
    sink = Sink("teams")
    silence = msgspec.structs.replace(Rules().silence, longest_hours=2.0)
    watch = watch_of(sink, rules=AlertRules(rules=msgspec.structs.replace(Rules(), silence=silence)))
    await asked(clock.now())
    for _ in range(30):
        await watch.look()
        clock.pass_time(300)
    assert [each.rule for message in sink.taken for each in message.notices] == ["silence"]
    await asked(clock.now())
    await watch.look()
    assert whats(sink) == [What.BEGUN, What.ENDED]


async def test_deliveries_that_were_given_up_or_wait_are_told_of_by_output(
    watch_of, asked, store, delivery_of, clock, now
):
    await asked(now)
    stored = await store.read("p00001")
    dead = delivery_of("p00001", state=DeliveryState.DEAD)
    waits = delivery_of("p00001", output="flag", created_at=now - timedelta(hours=1))
    meant = delivery_of("p00001", output="flowsheet", state=DeliveryState.DEAD, last_error="switched-off")
    await store.replace(stored.packet, etag=stored.etag, deliveries=(dead, waits, meant))
    looked = await watch_of(Sink()).look()
    assert {each.key for each in looked.findings if each.verdict is Verdict.FIRING} == {
        "deliveries-given-up//score-column",
        "deliveries-waiting//flag",
    }
    assert "fewer than 5 given up" in looked.notices[0].said


async def test_a_queue_that_is_drained_ends_its_alert_after_the_rules_time(
    watch_of, asked, store, delivery_of, clock, now
):
    await asked(now)
    stored = await store.read("p00001")
    waits = delivery_of("p00001", created_at=now - timedelta(hours=1))
    await store.replace(stored.packet, etag=stored.etag, deliveries=(waits,))
    sink = Sink("teams")
    watch = watch_of(sink)
    await watch.look()
    await store.save_delivery(msgspec.structs.replace(waits, state=DeliveryState.SENT), was=waits)
    for _ in range(4):
        clock.pass_time(300)
        await watch.look()
    notices = [each for message in sink.taken for each in message.notices]
    assert [(each.what, each.rule) for each in notices] == [
        (What.BEGUN, "deliveries-waiting"),
        (What.ENDED, "deliveries-waiting"),
    ]
    # Clear for the first time after 5 minutes; over 10 minutes later, as the rule says.
    assert notices[1].at - notices[0].at == timedelta(minutes=15)
    assert notices[1].said == "Nothing waits."


async def test_an_alert_stays_while_there_is_more_to_read_than_one_look_reads(watch_of, asked, clock, monkeypatch):
    sink = Sink("teams")
    watch = watch_of(sink)
    for _ in range(3):
        await asked(clock.now(), outcome=FAILED, times=30)
        await watch.look()
        clock.pass_time(300)
    monkeypatch.setattr(alert_tallies, "PAGE", 5)
    monkeypatch.setattr(alert_tallies, "MOST_PAGES", 1)
    await asked(clock.now(), times=30)
    await watch.look()
    assert whats(sink) == [What.BEGUN]


async def test_a_store_that_is_down_is_told_of_all_the_same_and_when_it_is_back(watch_of, asked, store, clock):
    sink = Sink("mail")
    watch = watch_of(sink)
    await watch.look()
    store.is_down = True
    for _ in range(3):
        clock.pass_time(300)
        await watch.look()
    assert [each.rule for message in sink.taken for each in message.notices] == ["store"]
    store.is_down = False
    for _ in range(3):
        clock.pass_time(300)
        await watch.look()
    assert whats(sink) == [What.BEGUN, What.ENDED]


async def test_a_store_that_hiccups_once_wakes_nobody(watch_of, store, clock):
    sink = Sink("mail")
    watch = watch_of(sink)
    for is_down in (True, False, True, False):
        store.is_down = is_down
        await watch.look()
        clock.pass_time(300)
    assert sink.taken == []


async def test_nothing_of_anybody_is_in_what_is_told_kept_or_logged(watch_of, asked, store, delivery_of, clock, caplog):
    caplog.set_level(logging.DEBUG)
    sink = Sink("teams")
    about = {"patient_id": CANARIES[0], "order_id": CANARIES[2], "patient_hash": CANARIES[4]}
    for outcome in (FAILED, Abstained(reason="restricted"), None):
        await asked(clock.now(), outcome=outcome, times=30, **about)
    stored = await store.read("p00001")
    trigger = msgspec.structs.replace(stored.packet.trigger, caller=CANARIES[3], correlation_id=CANARIES[3])
    subject = msgspec.structs.replace(stored.packet.subject, encounter_id=CANARIES[1])
    changed = msgspec.structs.replace(stored.packet, trigger=trigger, subject=subject)
    dead = delivery_of("p00001", state=DeliveryState.DEAD, location=f"Patient/{CANARIES[0]}", last_error="emr-refused")
    await store.replace(changed, etag=stored.etag, deliveries=(dead,))
    watch = watch_of(sink)
    for _ in range(4):
        looked = await watch.look()
        clock.pass_time(300)
    assert {each.rule for message in sink.taken for each in message.notices} >= {"failures", "deliveries-given-up"}
    shapes = [
        part
        for message in sink.taken
        for part in (
            teams_card(message, dashboard="https://dash.example"),
            slack_blocks(message, dashboard="https://dash.example"),
            signed_event(message, dashboard=None, key=b"k" * 32, now=clock.now()).body,
            msgspec.json.encode(alert_communication(message, dashboard=None, recipients=("Group/on-call",))),
            text_of(message, dashboard=None).encode(),
            title_of(message).encode(),
        )
    ]
    kept = [record.content for record, _ in store._records.values()]
    told = b"\n".join([*shapes, *kept, caplog.text.encode(), repr((looked, sink.taken)).encode()]).decode()
    assert not [canary for canary in CANARIES if canary in told]

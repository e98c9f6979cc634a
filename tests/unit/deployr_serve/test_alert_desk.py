"""One state for all who look: an alert is told once, to every sink, and stays on record."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployr_core.monitoring.alert_rules import AlertRules, Rules, Severity
from deployr_core.monitoring.alerting import Finding, Silenced, Verdict, What
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.alert_desk import AlertDesk, Seen, silence, silences
from deployr_serve.core.errors import AlertUnsent, StoreUnavailable

FAILURES = Finding(rule="failures", model="hematocrit", verdict=Verdict.FIRING, said="Half of them.")
OVER = msgspec.structs.replace(FAILURES, verdict=Verdict.CLEAR, said="None of them.")
AT_ONCE = msgspec.structs.replace(Rules().failures, begin_minutes=0, end_minutes=0)
RULES = AlertRules(rules=msgspec.structs.replace(Rules(), failures=AT_ONCE))


class Sink:
    """Keeps what it took; ``fails`` are raised in place of the first ones."""

    def __init__(self, name="mail", *fails):
        self.name, self.fails, self.taken, self.asked = name, list(fails), [], 0

    async def send(self, message):
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails and (failure := self.fails.pop(0)) is not None:
            raise failure
        self.taken.append(message)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def desk_of(store, clock):
    def make(*sinks, rules=RULES, records=store):
        return AlertDesk(rules=rules, sinks=sinks, records=records, clock=clock, site="test", environment="TEST")

    return make


async def look(desk, *findings, evaluator="timer"):
    async def find(last_runs):
        await asyncio.sleep(0)
        return Seen(findings=findings, watched=("failures",))

    return await desk.look(evaluator, find)


def whats(sink):
    return [notice.what for message in sink.taken for notice in message.notices]


async def test_an_alert_is_told_once_to_every_sink_and_so_is_its_end(desk_of, clock):
    mail, chat = Sink("mail"), Sink("teams")
    desk = desk_of(mail, chat)
    for finding in (FAILURES, FAILURES, FAILURES, OVER, OVER):
        await look(desk, finding)
        clock.pass_time(300)
    assert whats(mail) == whats(chat) == [What.BEGUN, What.ENDED]


@pytest.fixture(params=["memory", "file"])
async def shared(request, tmp_path):
    """Give two ways to the same records, as two workers have them."""
    if request.param == "memory":
        one = MemoryStore()
        yield one, one
        return
    stores = [SqliteStore(tmp_path / "store.sqlite") for _ in range(2)]
    yield stores
    for store in stores:
        await store.aclose()


async def test_two_workers_that_look_at_the_same_moment_tell_it_once(desk_of, shared, clock):
    mail = Sink()
    workers = [desk_of(mail, records=shared[number % 2]) for number in range(5)]
    found = await asyncio.gather(*(look(worker, FAILURES) for worker in workers))
    # Whoever finds the others done looks too, and has nothing to tell.
    assert not all(each.was_busy for each in found)
    clock.pass_time(300)
    for worker in workers:
        await look(worker, FAILURES)
    assert whats(mail) == [What.BEGUN]


async def test_a_sink_that_fails_is_sent_to_by_the_next_look_and_the_others_hear_nothing_twice(desk_of, clock):
    mail, chat = Sink("mail", AlertUnsent("down"), RuntimeError("a fault of ours")), Sink("teams")
    desk = desk_of(mail, chat)
    unsent = []
    for _ in range(3):
        unsent.append((await look(desk, FAILURES)).unsent)
        clock.pass_time(300)
    assert unsent == [("mail",), ("mail",), ()]
    assert whats(mail) == whats(chat) == [What.BEGUN]
    assert mail.taken[0].message_id == chat.taken[0].message_id


async def test_a_sink_that_fails_is_asked_once_a_look(desk_of, clock):
    mail = Sink("mail", *[AlertUnsent("down")] * 10)
    desk = desk_of(mail)
    for finding in (FAILURES, OVER, FAILURES):
        await look(desk, finding)
        clock.pass_time(300)
    assert mail.asked == 3


async def test_what_a_sink_does_not_take_for_a_day_is_given_up(desk_of, clock, caplog):
    mail = Sink("mail", *[AlertUnsent("down")] * 2)
    desk = desk_of(mail)
    await look(desk, FAILURES)
    clock.pass_time(25 * 3600)
    # Given up, and then reminded of, since it still holds.
    await look(desk, FAILURES)
    clock.pass_time(300)
    await look(desk, FAILURES)
    assert whats(mail) == [What.REMINDER]
    assert "alert=alert-not-sent sink=mail" in caplog.text


async def test_a_worker_that_died_while_it_looked_keeps_others_waiting_for_five_minutes(desk_of, clock):
    class Died(BaseException):
        pass

    async def die(last_runs):
        raise Died

    with pytest.raises(Died):
        await desk_of().look("timer", die)
    mail = Sink()
    assert (await look(desk_of(mail), FAILURES)).was_busy
    clock.pass_time(300)
    assert not (await look(desk_of(mail), FAILURES)).was_busy
    assert whats(mail) == [What.BEGUN]


async def test_a_worker_that_died_between_two_sinks_leaves_the_other_to_the_next_look(desk_of, clock):
    class Died(BaseException):
        pass

    mail, chat = Sink("mail"), Sink("teams", Died())
    with pytest.raises(Died):
        await look(desk_of(mail, chat), FAILURES)
    clock.pass_time(301)
    await look(desk_of(mail, chat), FAILURES)
    assert whats(mail) == whats(chat) == [What.BEGUN]


async def test_a_look_that_fails_lets_go(desk_of):
    async def fail(last_runs):
        raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await desk_of().look("timer", fail)
    assert not (await look(desk_of(), FAILURES)).was_busy


async def test_sinks_are_told_from_the_severity_on_that_the_file_says(desk_of):
    note = msgspec.structs.replace(AT_ONCE, severity=Severity.NOTE)
    rules = msgspec.structs.replace(
        RULES, rules=msgspec.structs.replace(Rules(), failures=note), least={"fhir": "note"}
    )
    rules = msgspec.convert(msgspec.to_builtins(rules), AlertRules)
    sinks = [Sink(name) for name in ("log", "mail", "fhir")]
    await look(desk_of(*sinks, rules=rules), FAILURES)
    assert [sink.name for sink in sinks if sink.taken] == ["log", "fhir"]


async def test_what_was_told_stays_on_record_with_what_was_silenced(desk_of, store, clock, now):
    desk = desk_of(Sink())
    await look(desk, FAILURES)
    clock.pass_time(300)
    await look(desk, OVER)
    clock.pass_time(300)
    seen_to = Silenced(
        rule="failures",
        model=None,
        part=None,
        until=clock.now() + timedelta(hours=1),
        by="ana",
        why="x",
        at=clock.now(),
    )
    await silence(store, "test", seen_to)
    await look(desk, FAILURES)
    told = await desk.told(since=now)
    assert [(each.what, each.is_told) for each in told] == [
        (What.BEGUN, True),
        (What.ENDED, True),
        (What.BEGUN, False),
    ]
    assert list(await desk.standing()) == ["failures/hematocrit"]


async def test_a_silence_is_gone_when_its_time_is_over(store, now):
    until = now + timedelta(hours=1)
    made = Silenced(rule=None, model="hematocrit", part=None, until=until, by="ana", why="moving house", at=now)
    await silence(store, "test", made)
    assert await silences(store, "test", now=until - timedelta(seconds=1)) == (made,)
    assert await silences(store, "test", now=until) == ()
    assert await silences(store, "other", now=now) == ()


async def test_evidence_goes_back_over_months(desk_of, clock, now):
    desk = desk_of(Sink())
    for finding in (FAILURES, OVER, FAILURES):
        await look(desk, finding)
        clock.pass_time(20 * 86_400)
    assert len(await desk.told(since=now)) == 3
    assert len(await desk.told(since=now + timedelta(days=30))) == 1


async def test_evidence_of_this_month_is_given_whatever_the_time_of_day_it_is_asked_from(desk_of, clock):
    desk = desk_of(Sink())
    clock.pass_time((datetime(2015, 1, 31, 22, 0, tzinfo=UTC) - clock.now()).total_seconds())
    since = clock.now()
    # 1 February, 03:00: earlier in the day than what is asked from.
    clock.pass_time(5 * 3600)
    await look(desk, FAILURES)
    assert [each.what for each in await desk.told(since=since)] == [What.BEGUN]


async def test_evaluators_are_told_when_each_ran_last(desk_of, clock, now):
    seen = []

    async def find(last_runs):
        seen.append(dict(last_runs))
        return Seen(findings=(), watched=())

    for evaluator in ("timer", "nightly", "timer"):
        await desk_of().look(evaluator, find)
        clock.pass_time(60)
    assert seen == [{}, {"timer": now}, {"timer": now, "nightly": now + timedelta(minutes=1)}]


async def test_twelve_models_that_fail_at_once_are_one_message(desk_of):
    mail = Sink()
    findings = [msgspec.structs.replace(FAILURES, model=f"m{number}") for number in range(12)]
    await look(desk_of(mail), *findings)
    assert [len(each.notices) for each in mail.taken] == [12]

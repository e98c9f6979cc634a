"""Timers by an injected clock and an alarm that rings when the test says so."""

import asyncio
from datetime import UTC, datetime, timedelta

import azure.functions as func
import pytest

from deployr_serve.local_host.invocation import BackgroundRuns, Invoker
from deployr_serve.local_host.ncrontab import parse_schedule
from deployr_serve.local_host.schedule_status import FileStatusStore, NoStatusStore
from deployr_serve.local_host.threads import DaemonThreads
from deployr_serve.local_host.timers import SchedulerAlarm, TimerRunner, Timers, utc_now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = "0 0 * * * *"


class FakeClock:
    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


class FakeAlarm:
    """Remembers what it was asked for; rings by hand."""

    def __init__(self):
        self.asked = []
        self._call = None

    def ring_at(self, instant, call):
        self.asked.append(instant)
        self._call = call

    def stop(self):
        self._call = None

    def ring(self):
        call, self._call = self._call, None
        call()


class Recorder:
    """A timer function that notes its requests, and waits where it is told to."""

    def __init__(self, *, clock=None, lasts=timedelta(0), error=None):
        self.requests = []
        self.running = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self._clock, self._lasts, self._error = clock, lasts, error

    @property
    def past_due(self):
        return [request.past_due for request in self.requests]

    async def __call__(self, timer):
        self.requests.append(timer)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.began.set()
        try:
            await self.gate.wait()
            if self._clock is not None:
                self._clock.now += self._lasts
            if self._error is not None:
                raise self._error
        finally:
            self.running -= 1


@pytest.fixture
def runner(timer_function, tmp_path):
    def build(recorder, *, clock, expression=HOURLY, store=None, **function):
        async def call(timer):
            await recorder(timer)

        return TimerRunner(
            timer_function(call, **function),
            schedule=parse_schedule(expression, function="nightly", settings={}),
            zone=UTC,
            invoker=Invoker(folder=tmp_path, threads=DaemonThreads(limit=1), timeout=None),
            store=store or NoStatusStore(),
            clock=clock,
        )

    return build


@pytest.fixture
def store(tmp_path):
    return FileStatusStore(tmp_path / "timers")


async def settled():
    """Let every task that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_fresh_timer_waits_for_its_first_slot(runner, store):
    recorder = Recorder()
    timer = runner(recorder, clock=FakeClock(), store=store)

    await timer.start()

    assert recorder.requests == []
    assert timer.status.next == NOON + HOUR
    assert store.read("nightly") == timer.status


async def test_a_run_on_schedule_moves_the_stored_status_on(runner, store):
    recorder, clock = Recorder(), FakeClock()
    timer = runner(recorder, clock=clock, store=store)
    await timer.start()
    clock.now = NOON + HOUR

    await timer.run_slot()

    assert recorder.past_due == [False]
    assert store.read("nightly").last == NOON + HOUR
    assert store.read("nightly").next == NOON + 2 * HOUR


async def test_the_request_is_the_one_that_the_real_worker_builds(runner, store):
    recorder, clock = Recorder(), FakeClock()
    timer = runner(recorder, clock=clock, store=store)
    await timer.start()
    clock.now = NOON + HOUR
    await timer.run_slot()

    (request,) = recorder.requests
    assert isinstance(request, func.TimerRequest)
    assert request.schedule == {"AdjustForDST": True}
    assert request.schedule_status == {
        "Last": "0001-01-01T00:00:00",
        "Next": "2026-03-01T13:00:00+00:00",
        "LastUpdated": "2026-03-01T12:00:00+00:00",
    }


async def test_a_constant_schedule_does_not_adjust_for_daylight_saving(runner):
    recorder, clock = Recorder(), FakeClock()
    timer = runner(recorder, clock=clock, expression="01:00:00")
    await timer.start()
    await timer.run_slot()

    assert recorder.requests[0].schedule == {"AdjustForDST": False}


@pytest.mark.parametrize(
    "monitoring", [{"use_monitor": False}, {"expression": "*/10 * * * * *"}], ids=["asked-not-to", "too-often"]
)
async def test_a_timer_without_monitor_stores_nothing_and_shows_no_status(runner, store, monitoring):
    recorder, clock = Recorder(), FakeClock()
    timer = runner(recorder, clock=clock, store=store, **monitoring)
    await timer.start()
    await timer.run_slot()

    assert store.read("nightly") is None
    assert recorder.requests[0].schedule_status == {}


async def test_a_slot_missed_while_the_host_was_down_is_run_at_start_as_past_due(runner, store):
    clock = FakeClock()
    await runner(Recorder(), clock=clock, store=store).start()
    clock.now = NOON + 5 * HOUR + timedelta(minutes=30)
    recorder = Recorder()

    again = runner(recorder, clock=clock, store=store)
    await again.start()

    assert recorder.past_due == [True]
    assert again.status.last == clock.now
    assert again.status.next == NOON + 6 * HOUR


async def test_a_slot_still_to_come_is_not_past_due_at_start(runner, store):
    clock = FakeClock()
    await runner(Recorder(), clock=clock, store=store).start()
    clock.now = NOON + timedelta(minutes=59)
    recorder = Recorder()

    await runner(recorder, clock=clock, store=store).start()

    assert recorder.requests == []


async def test_run_on_startup_runs_at_start_and_is_not_past_due(runner):
    recorder = Recorder()
    timer = runner(recorder, clock=FakeClock(), run_on_startup=True)

    await timer.start()

    assert recorder.past_due == [False]
    assert timer.status.next == NOON + HOUR


async def test_a_missed_slot_and_run_on_startup_are_one_run(runner, store):
    clock = FakeClock()
    await runner(Recorder(), clock=clock, store=store).start()
    clock.now = NOON + 2 * HOUR
    recorder = Recorder()

    await runner(recorder, clock=clock, store=store, run_on_startup=True).start()

    assert recorder.past_due == [True]


@pytest.mark.parametrize(
    ("late", "past_due"), [(timedelta(seconds=1), False), (timedelta(seconds=1, microseconds=1), True)]
)
async def test_a_run_is_past_due_when_it_is_more_than_a_second_late(runner, late, past_due):
    recorder, clock = Recorder(), FakeClock()
    timer = runner(recorder, clock=clock)
    await timer.start()
    clock.now = NOON + HOUR + late

    await timer.run_slot()

    assert recorder.past_due == [past_due]


async def test_a_failing_run_is_logged_by_class_and_the_schedule_goes_on(runner, caplog):
    clock = FakeClock()
    timer = runner(Recorder(error=LookupError("Mrs Example")), clock=clock)
    await timer.start()
    clock.now = NOON + HOUR

    await timer.run_slot()

    assert timer.status.next == NOON + 2 * HOUR
    assert "error=LookupError" in caplog.text
    assert "Mrs Example" not in caplog.text


async def test_a_status_that_cannot_be_stored_does_not_stop_the_schedule(runner, tmp_path, caplog):
    store = FileStatusStore(tmp_path / "timers")
    (tmp_path / "timers").rmdir()
    timer = runner(Recorder(), clock=FakeClock(), store=store)

    await timer.start()
    await timer.run_slot()

    assert timer.status.next == NOON + 2 * HOUR
    assert "schedule status not stored: FileNotFoundError" in caplog.text


async def test_a_run_by_hand_leaves_the_schedule_as_it_is(runner):
    recorder = Recorder()
    timer = runner(recorder, clock=FakeClock())
    await timer.start()
    before = timer.status

    assert await timer.run_by_hand() == "succeeded"
    assert recorder.past_due == [False]
    assert timer.status == before


async def test_a_run_by_hand_that_fails_says_so(runner):
    timer = runner(Recorder(error=LookupError()), clock=FakeClock())
    await timer.start()

    assert await timer.run_by_hand() == "failed"


async def test_a_run_by_hand_does_not_start_a_second_one(runner):
    recorder = Recorder()
    recorder.gate.clear()
    timer = runner(recorder, clock=FakeClock())
    await timer.start()
    first = asyncio.create_task(timer.run_by_hand())
    await recorder.began.wait()

    assert await timer.run_by_hand() == "already-running"
    recorder.gate.set()
    assert await first == "succeeded"
    assert recorder.most_at_once == 1


async def test_a_slot_waits_for_a_run_by_hand_and_then_runs(runner):
    recorder, clock = Recorder(), FakeClock()
    recorder.gate.clear()
    timer = runner(recorder, clock=clock)
    await timer.start()
    by_hand = asyncio.create_task(timer.run_by_hand())
    await recorder.began.wait()
    clock.now = NOON + HOUR
    slot = asyncio.create_task(timer.run_slot())
    await settled()
    assert len(recorder.requests) == 1

    clock.now += timedelta(minutes=2)
    recorder.gate.set()
    await asyncio.gather(by_hand, slot)

    assert recorder.past_due == [False, True]
    assert recorder.most_at_once == 1


async def test_the_alarm_is_set_for_each_slot_in_turn(runner):
    recorder, clock, alarm, background = Recorder(), FakeClock(), FakeAlarm(), BackgroundRuns()
    timers = Timers([runner(recorder, clock=clock)], background=background)
    timers.start(alarm)
    await settled()
    for hours in (1, 2):
        clock.now = NOON + hours * HOUR
        alarm.ring()
        await settled()

    assert alarm.asked == [NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR]
    assert recorder.past_due == [False, False]


async def test_slots_that_pass_during_a_long_run_are_made_up_for_once(runner):
    clock, alarm, background = FakeClock(), FakeAlarm(), BackgroundRuns()
    recorder = Recorder(clock=clock, lasts=3 * HOUR + timedelta(minutes=30))
    timers = Timers([runner(recorder, clock=clock)], background=background)
    timers.start(alarm)
    await settled()
    clock.now = NOON + HOUR

    alarm.ring()
    await settled()
    assert alarm.asked[-1] == NOON + 2 * HOUR  # passed already: the real alarm rings at once
    alarm.ring()
    await settled()

    assert recorder.past_due == [False, True]
    assert recorder.most_at_once == 1
    assert alarm.asked[-1] == NOON + 5 * HOUR


async def test_a_schedule_that_never_comes_is_logged_and_can_be_run_by_hand(runner, caplog):
    recorder, alarm, background = Recorder(), FakeAlarm(), BackgroundRuns()
    timer = runner(recorder, clock=FakeClock(), expression="0 0 0 31 2 *")
    Timers([timer], background=background).start(alarm)
    await settled()

    assert alarm.asked == []
    assert "a schedule that never comes" in caplog.text
    assert await timer.run_by_hand() == "succeeded"


async def test_a_stopped_host_sets_no_further_alarm(runner):
    recorder, clock, alarm, background = Recorder(), FakeClock(), FakeAlarm(), BackgroundRuns()
    recorder.gate.clear()
    timers = Timers([runner(recorder, clock=clock, run_on_startup=True)], background=background)
    timers.start(alarm)
    await recorder.began.wait()
    timers.stop()
    recorder.gate.set()
    await background.drain(grace_s=10)

    assert alarm.asked == []


async def test_apscheduler_rings_once_and_at_once_for_what_is_past():
    alarm, rang, times = SchedulerAlarm(zone=UTC), asyncio.Event(), []

    def ring():
        times.append(utc_now())
        rang.set()

    alarm.ring_at(NOON - 1000 * HOUR, ring)
    async with asyncio.timeout(10):
        await rang.wait()
    await settled()
    alarm.stop()
    await settled()

    assert len(times) == 1


async def test_apscheduler_does_not_ring_before_the_instant():
    alarm, rang = SchedulerAlarm(zone=UTC), asyncio.Event()
    due, times = utc_now() + timedelta(milliseconds=50), []

    def ring():
        times.append(utc_now())
        rang.set()

    alarm.ring_at(due, ring)
    async with asyncio.timeout(10):
        await rang.wait()
    alarm.stop()
    await settled()

    assert times[0] >= due

"""Timers: each on its schedule, never two runs of one at a time."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from typing import Literal, Protocol

from azure.functions.timer import TimerRequest

from deployr_serve.local_host.invocation import BackgroundRuns, Invoker, Returned
from deployr_serve.local_host.loading import TimerFunction
from deployr_serve.local_host.ncrontab import Crontab, Schedule, fires_within_a_minute_twice, next_occurrence
from deployr_serve.local_host.schedule_status import (
    LATE_AFTER,
    NoStatusStore,
    ScheduleStatus,
    StatusStore,
    status_after_run,
    status_at_start,
)

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
"""The present instant, aware."""

Result = Literal["succeeded", "failed", "already-running"]


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


class Alarm(Protocol):
    """Calls back at an instant."""

    def ring_at(self, instant: datetime, call: Callable[[], None]) -> None:
        """Have ``call`` called once, at ``instant`` or, where that is past, at once."""

    def stop(self) -> None:
        """Call nobody any more."""


class TimerRunner:
    """One timer function, with its schedule and its status."""

    def __init__(
        self,
        function: TimerFunction,
        *,
        schedule: Schedule,
        zone: tzinfo,
        invoker: Invoker,
        store: StatusStore,
        clock: Clock,
    ) -> None:
        """
        Args:
            function: what to run.
            schedule: when; its expression already read.
            zone: in which ``schedule`` is meant.
            invoker: runs it.
            store: keeps its status, unless the function has no monitor or can run twice in a minute.
            clock: tells the time.
        """
        self.function = function
        self._schedule = schedule
        self._zone = zone
        self._invoker = invoker
        self._monitored = function.use_monitor and not fires_within_a_minute_twice(schedule)
        self._store = store if self._monitored else NoStatusStore()
        self._clock = clock
        self._lock = asyncio.Lock()
        self.status = ScheduleStatus(last=None, next=None, last_updated=clock())

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._lock.locked()

    async def start(self) -> None:
        """Take up the schedule; run at once where a slot was missed or ``run_on_startup`` says so.

        Source: azure-webjobs-sdk-extensions, ``TimerListener.StartAsync``.
        """
        now = self._clock()
        stored = self._store.read(self.function.name)
        self.status = status_at_start(stored, now=now, next_occurrence=self._next)
        if self.status != stored:
            self._keep(self.status)
        missed = self.status.next is not None and self.status.next < now
        if missed or self.function.run_on_startup:
            async with self._lock:
                await self._run_and_keep(past_due=missed, on_schedule=False)

    async def run_slot(self) -> None:
        """Run because the schedule says so, after a run by hand that is under way has ended."""
        async with self._lock:
            due = self.status.next
            late = due is not None and self._clock() - due > LATE_AFTER
            await self._run_and_keep(past_due=late, on_schedule=True)

    async def run_by_hand(self) -> Result:
        """Run because somebody asked; the schedule and its status stay as they are."""
        if self.is_running:
            return "already-running"
        async with self._lock:
            return await self._run(past_due=False)

    async def _run_and_keep(self, *, past_due: bool, on_schedule: bool) -> None:
        started = self._clock()
        await self._run(past_due=past_due)
        self.status = status_after_run(
            self.status, started=started, on_schedule=on_schedule, next_occurrence=self._next
        )
        self._keep(self.status)

    async def _run(self, *, past_due: bool) -> Result:
        outcome = await self._invoker.run(self.function, self._request(past_due=past_due))
        return "succeeded" if isinstance(outcome, Returned) else "failed"

    def _request(self, *, past_due: bool) -> TimerRequest:
        """Of the class, and with the dictionaries, that the real worker decodes from the host's JSON.

        Source: azure-functions-python-library, ``TimerRequestConverter.decode``; azure-webjobs-sdk-extensions,
        ``TimerInfo``.
        """
        return TimerRequest(
            past_due=past_due,
            schedule_status=dict(self.status.to_json()) if self._monitored else None,
            schedule={"AdjustForDST": isinstance(self._schedule, Crontab)},
        )

    def _next(self, after: datetime) -> datetime | None:
        return next_occurrence(self._schedule, after=after, zone=self._zone)

    def _keep(self, status: ScheduleStatus) -> None:
        try:
            self._store.write(self.function.name, status)
        except OSError as error:
            logger.warning("function=%s schedule status not stored: %s", self.function.name, type(error).__name__)


class Timers:
    """All timers of an app."""

    def __init__(self, runners: Iterable[TimerRunner], *, background: BackgroundRuns) -> None:
        self._runners = {runner.function.name.lower(): runner for runner in runners}
        self._background = background
        self._alarm: Alarm | None = None

    def __len__(self) -> int:
        return len(self._runners)

    def get(self, name: str) -> TimerRunner | None:
        """The timer of that name, whatever its capitals."""
        return self._runners.get(name.lower())

    def start(self, alarm: Alarm) -> None:
        """Begin every schedule; ``alarm`` rings for each slot."""
        self._alarm = alarm
        for runner in self._runners.values():
            self._background.start(self._begin(runner))

    def stop(self) -> None:
        """Begin no more runs on schedule; those under way go on."""
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm = None

    async def _begin(self, runner: TimerRunner) -> None:
        await runner.start()
        self._await_slot(runner)

    async def _slot(self, runner: TimerRunner) -> None:
        await runner.run_slot()
        self._await_slot(runner)

    def _await_slot(self, runner: TimerRunner) -> None:
        # Set anew after each run, as the real host does: a slot that passed meanwhile rings at once, and once.
        if self._alarm is None:
            return
        if runner.status.next is None:
            logger.warning("function=%s has a schedule that never comes", runner.function.name)
            return
        self._alarm.ring_at(runner.status.next, lambda: self._background.start(self._slot(runner)))


class SchedulerAlarm:
    """An alarm that APScheduler rings, on the loop that it was made on."""

    def __init__(self, *, zone: tzinfo) -> None:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        # It reports each job that it adds and runs; ours are one per slot.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler = AsyncIOScheduler(timezone=zone)
        self._scheduler.start()

    def ring_at(self, instant: datetime, call: Callable[[], None]) -> None:
        """Have ``call`` called once; however late the process wakes, it is not dropped."""
        from apscheduler.triggers.date import DateTrigger

        async def ring() -> None:
            # A coroutine function, since APScheduler takes any other to a thread.
            call()

        self._scheduler.add_job(
            ring, DateTrigger(run_date=instant), max_instances=1, coalesce=True, misfire_grace_time=None
        )

    def stop(self) -> None:
        """Shut the scheduler down."""
        self._scheduler.shutdown(wait=False)

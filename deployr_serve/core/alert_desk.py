"""Where alerts stand and are told from: one state for all workers and both evaluators, in shared records.

One look at a time: it holds the state for as long as it takes, so that two workers tell an alert once. What is to be
told is stored with the state that it follows from, before anybody is told; each sink that has taken it is crossed off
at once. So a worker that dies on the way delays a message, and at most the one sink that it was at hears it twice,
under the same id. What was told stays as evidence, an entry each, and is never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from deployr_core.monitoring.alert_rules import AlertRules, Severity
from deployr_core.monitoring.alerting import Advanced, Entry, Finding, Notice, Silenced, What, advance
from deployr_serve.core.errors import RecordChanged, ServeError
from deployr_serve.core.ports import Clock, Record, Records

_STANDING, _SILENCE = "alert-standing", "alert-silence"
_HELD_FOR = timedelta(minutes=5)
"""How long a worker that died in a look keeps others from looking."""
_SEND_FOR_S = 120.0
"""How long one look sends; what is left is sent by the next one."""
GIVEN_UP_AFTER = timedelta(hours=24)
"""How long a message is tried for at a sink that does not take it: later it would be news of yesterday."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was found. ``watched``: names of the rules that were looked at; what could not be, stays as it is."""

    findings: Sequence[Finding]
    watched: Sequence[str]


Find = Callable[[Mapping[str, datetime]], Awaitable[Seen]]
"""Looks; it is given when each evaluator ran last."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What one look has to tell, together: twelve models that lose their EMR are one message.

    ``to``: the sinks that have not taken it yet. ``is_test``: nothing has happened, somebody tries the sinks.
    """

    message_id: str
    site: str
    environment: str
    at: datetime
    notices: tuple[Notice, ...]
    to: tuple[str, ...] = ()
    is_test: bool = False

    @property
    def severity(self) -> Severity:
        """Give the most severe of what has not ended; a note where all has."""
        going_on = (each.severity for each in self.notices if each.what is not What.ENDED)
        return max(going_on, key=lambda each: each.rank, default=Severity.NOTE)


class AlertSink(Protocol):
    """One way to tell people. The same ``message_id`` may be sent again."""

    @property
    def name(self) -> str:
        """What the sink is called in rules and settings."""

    async def send(self, message: Message) -> None:
        """Tell; within half a minute.

        Raises:
            ServeError: it may not have arrived.
        """


class _Standing(msgspec.Struct, frozen=True, kw_only=True):
    entries: Mapping[str, Entry] = {}
    outbox: tuple[Message, ...] = ()
    unfiled: tuple[Notice, ...] = ()
    last_runs: Mapping[str, datetime] = {}
    held_until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What a look came to. ``was_busy``: another one was at it, and nothing was done.

    ``unsent``: sinks that did not take something.
    """

    was_busy: bool = False
    findings: tuple[Finding, ...] = ()
    notices: tuple[Notice, ...] = ()
    unsent: tuple[str, ...] = ()


class AlertDesk:
    """See this module's docstring."""

    def __init__(
        self,
        *,
        rules: AlertRules,
        sinks: Sequence[AlertSink],
        records: Records,
        clock: Clock,
        site: str,
        environment: str,
    ) -> None:
        self.rules = rules
        self.sinks = tuple(sinks)
        self._records = records
        self._clock = clock
        self._site = site
        self._environment = environment

    async def look(self, evaluator: str, find: Find) -> Looked:
        """Look once: take what is found into account, and tell what there is to tell.

        Args:
            evaluator: who looks, so that the other one notices if it does not.
            find: looks.

        Raises:
            StoreUnavailable: nobody could look; what was to be told is told by the next look.
        """
        now, until = self._clock.now(), self._clock.monotonic() + _SEND_FOR_S
        held = await self._hold(now)
        if held is None:
            return Looked(was_busy=True)
        standing, record = held
        try:
            seen = await find(standing.last_runs)
        except Exception:
            await self._save(msgspec.structs.replace(standing, held_until=None), record)
            raise
        advanced = advance(
            standing.entries,
            seen.findings,
            rules=self.rules,
            watched=seen.watched,
            silences=await silences(self._records, self._site, now=now),
            now=now,
        )
        message = self._message(advanced, now=now)
        standing = msgspec.structs.replace(
            standing,
            entries=advanced.entries,
            unfiled=(*standing.unfiled, *advanced.notices),
            outbox=tuple(each for each in (*standing.outbox, message) if each.to),
            last_runs={**standing.last_runs, evaluator: now},
        )
        record = await self._save(standing, record)
        for notice in standing.unfiled:
            kind = _events_kind(self._site, notice.at)
            await self._records.create_record(kind, notice.notice_id, msgspec.json.encode(notice), now=now)
        standing = msgspec.structs.replace(standing, unfiled=())
        standing, record = await self._send(standing, record, until=until)
        await self._save(msgspec.structs.replace(standing, held_until=None), record)
        unsent = {sink for each in standing.outbox for sink in each.to}
        return Looked(findings=tuple(seen.findings), notices=advanced.notices, unsent=tuple(sorted(unsent)))

    async def standing(self) -> Mapping[str, Entry]:
        """Give the alerts that have begun and not ended, by key."""
        entries = (await self._read(self._clock.now()))[0].entries
        return {key: entry for key, entry in sorted(entries.items()) if entry.begun_at is not None}

    async def last_runs(self) -> Mapping[str, datetime]:
        """Give when each evaluator looked last; one that never did is not in it."""
        return (await self._read(self._clock.now()))[0].last_runs

    async def told(self, *, since: datetime) -> tuple[Notice, ...]:
        """Give what was told, or silenced, from an instant on, in order of time."""
        now, found = self._clock.now(), []
        month = since.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while month <= now:
            records = await self._records.records(_events_kind(self._site, month), now=now)
            found += [msgspec.json.decode(each.content, type=Notice) for each in records.values()]
            month = (month + timedelta(days=32)).replace(day=1)
        return tuple(sorted((each for each in found if each.at >= since), key=lambda each: (each.at, each.key)))

    async def try_out(self, message: Message) -> Mapping[str, str | None]:
        """Send a message to all sinks; give for each why it did not take it, None if it did."""
        return {sink.name: await self._sent(sink, message) for sink in self.sinks}

    async def _read(self, now: datetime) -> tuple[_Standing, Record | None]:
        record = await self._records.read_record(_STANDING, self._site, now=now)
        return (_Standing() if record is None else msgspec.json.decode(record.content, type=_Standing)), record

    async def _hold(self, now: datetime) -> tuple[_Standing, Record] | None:
        """Take the state for ourselves; None if somebody else has it."""
        standing, record = await self._read(now)
        if standing.held_until is not None and standing.held_until > now:
            return None
        standing = msgspec.structs.replace(standing, held_until=now + _HELD_FOR)
        content = msgspec.json.encode(standing)
        if record is None:
            created = await self._records.create_record(_STANDING, self._site, content, now=now)
            return None if created is None else (standing, created)
        try:
            return standing, await self._records.replace_record(_STANDING, self._site, content, etag=record.etag)
        except RecordChanged:
            return None

    async def _save(self, standing: _Standing, record: Record) -> Record:
        return await self._records.replace_record(
            _STANDING, self._site, msgspec.json.encode(standing), etag=record.etag
        )

    def _message(self, advanced: Advanced, *, now: datetime) -> Message:
        told = tuple(each for each in advanced.notices if each.is_told)
        most = max((each.severity.rank for each in told), default=-1)
        return Message(
            message_id=f"alerts.{self._site}.{now:%Y%m%dT%H%M%S%fZ}",
            site=self._site,
            environment=self._environment,
            at=now,
            notices=told,
            to=tuple(sink.name for sink in self.sinks if least_of(self.rules, sink.name).rank <= most),
        )

    async def _send(self, standing: _Standing, record: Record, *, until: float) -> tuple[_Standing, Record]:
        """Send what waits, the oldest first. A sink that fails gets no more in this look; the others do."""
        failed: set[str] = set()
        by_name = {sink.name: sink for sink in self.sinks}
        for place, message in enumerate(standing.outbox):
            for name in message.to:
                if name in failed or self._clock.monotonic() >= until:
                    continue
                sink = by_name.get(name)
                is_over = self._clock.now() - message.at > GIVEN_UP_AFTER
                if is_over or sink is None:
                    _log.error("alert=alert-not-sent sink=%s message=%s", name, message.message_id)
                elif await self._sent(sink, _for(message, least_of(self.rules, name))) is not None:
                    failed.add(name)
                    continue
                standing = _crossed_off(standing, place, name)
                record = await self._save(standing, record)
        return msgspec.structs.replace(standing, outbox=tuple(each for each in standing.outbox if each.to)), record

    async def _sent(self, sink: AlertSink, message: Message) -> str | None:
        """Send to one sink; give the reason if it failed, whatever went wrong there: the others are to hear of it."""
        try:
            await sink.send(message)
        except Exception as error:  # noqa: BLE001 the one boundary: no sink stops another
            reason = error.reason if isinstance(error, ServeError) else type(error).__name__
            _log.error("alert=alert-sink-failed sink=%s reason=%s", sink.name, reason)
            return reason
        return None


async def silences(records: Records, site: str, *, now: datetime) -> tuple[Silenced, ...]:
    """Give what is silenced now, the last one first."""
    found = await records.records(f"{_SILENCE}-{site}", now=now)
    return tuple(
        sorted(
            (msgspec.json.decode(each.content, type=Silenced) for each in found.values()),
            key=lambda each: each.at,
            reverse=True,
        )
    )


async def silence(records: Records, site: str, silenced: Silenced) -> None:
    """Silence alerts until an instant; by then the record is gone by itself.

    Raises:
        StoreUnavailable: nothing is silenced.
    """
    record_id = f"{silenced.at:%Y%m%dT%H%M%S%fZ}"
    await records.create_record(
        f"{_SILENCE}-{site}",
        record_id,
        msgspec.json.encode(silenced),
        now=silenced.at,
        expires_at=silenced.until,
    )


def least_of(rules: AlertRules, sink: str) -> Severity:
    """Give the least severity that a sink is told of: the log of all, others of warnings, unless the file says."""
    return rules.least.get(sink, Severity.NOTE if sink == "log" else Severity.WARN)


def _for(message: Message, least: Severity) -> Message:
    notices = tuple(each for each in message.notices if each.severity.rank >= least.rank)
    return msgspec.structs.replace(message, notices=notices)


def _crossed_off(standing: _Standing, place: int, sink: str) -> _Standing:
    messages = list(standing.outbox)
    message = messages[place]
    messages[place] = msgspec.structs.replace(message, to=tuple(each for each in message.to if each != sink))
    return msgspec.structs.replace(standing, outbox=tuple(messages))


def _events_kind(site: str, at: datetime) -> str:
    return f"alert-event-{site}-{at:%Y%m}"

"""Counts of calls by the hour, taken from what changed in the store, for rules that are looked at every few minutes.

The store is asked only for what changed since the last look, because a question about the last hours would go through
all packets of a model. A packet comes again each time that it, a label or a delivery of it changes, so an hour that is
still open keeps, for each packet, what became of it: the same packet read twice counts once, whoever reads it. A day
later the hour is closed, and only its counts are kept. No count is of a person, and ids are keyed hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from deployr_core.forgetting import is_forgotten
from deployr_core.monitoring.alerting_operations import WEEKS, HourCount
from deployr_core.monitoring.rhythm import HOUR, SLOTS, hour_start
from deployr_core.packet import Abstained, Failed, InferencePacket, Scored
from deployr_serve.core.decide import SWITCHED_OFF
from deployr_serve.core.ports import Clock, InferenceStore, Record, Records

PAGE, MOST_PAGES = 500, 100
"""What one look reads at most: 50,000 changes. A store that was there before is read over several looks."""
PARTS = 16
"""Records of an open hour, each with the packets of one digit of chance: of a large site one would become too large."""
OPEN_FOR = timedelta(hours=24)
_BATCH = "batch"
_SCORED, _ABSTAINED, _FAILED, _OTHER = "s", "a", "f", "x"
_UNTIMED, _IN_TIME, _SLOW = "0", "1", "2"

_Outcomes = dict[str, dict[str, str]]
"""By model and packet: what became of it, whether it was slow, and the slot of the hour that it was asked for in."""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far the store was read. Hours before ``closed_until`` are closed. ``last_at``: the last packet by model."""

    cursor: str | None
    closed_until: datetime
    last_at: dict[str, datetime] = {}


class _Closed(msgspec.Struct, frozen=True, kw_only=True):
    """One model's closed hours, by hours since 1970: the fields of `HourCount`, in their order."""

    hours: dict[int, tuple[int, ...]] = {}


class Tallies:
    """See this module's docstring. Whoever counts must be alone at it; that is the caller's to see to."""

    def __init__(self, store: InferenceStore, records: Records, *, clock: Clock, site: str, slow_s: float) -> None:
        """Count the calls of one site.

        Args:
            store: what is counted.
            records: where counts are kept.
            clock: tells which hours are over.
            site: only packets of this one count.
            slow_s: an answer that takes longer is slow.
        """
        self._store = store
        self._records = records
        self._clock = clock
        self._site = site
        self._slow = timedelta(seconds=slow_s)
        self._open_kind, self._closed_kind = f"alert-tally-{site}", f"alert-hours-{site}"

    async def count(self) -> bool:
        """Read what changed; False if there is more than one look reads.

        Raises:
            StoreUnavailable: what was counted by then stays.
        """
        head, held = await self._head()
        for _ in range(MOST_PAGES):
            changed = await self._store.changed(after=head.cursor, limit=PAGE)
            packets = [each for each in changed.packets if each.site == self._site and not is_forgotten(each)]
            for hour, outcomes in self._by_hour(packets, since=head.closed_until).items():
                await self._merge(hour, outcomes)
            head = _Head(
                cursor=changed.cursor,
                closed_until=head.closed_until,
                last_at=_later(head.last_at, packets),
            )
            held = await self._save("alert-head", self._site, head, held)
            if changed.is_all:
                await self._close(head, held)
                return True
        return False

    async def of_models(
        self, models: Iterable[str]
    ) -> Mapping[str, tuple[Mapping[datetime, HourCount], datetime | None]]:
        """Give each model's hours, and when its last packet was asked for."""
        now = self._clock.now()
        head, _ = await self._head()
        open_hours = _by_hour_of(await self._records.records(self._open_kind, now=now))
        found = {}
        for model in models:
            closed = await self._closed(model)
            hours = {
                _hour_of(place): HourCount(**dict(zip(_FIELDS, counts, strict=True)))
                for place, counts in closed[0].hours.items()
            }
            hours |= {hour: _counted(of[model].values()) for hour, of in open_hours.items() if model in of}
            found[model] = (hours, head.last_at.get(model))
        return found

    def _by_hour(self, packets: Iterable[InferencePacket], *, since: datetime) -> dict[datetime, _Outcomes]:
        found: dict[datetime, _Outcomes] = {}
        for packet in packets:
            hour = hour_start(packet.started_at)
            if hour >= since:
                of_model = found.setdefault(hour, {}).setdefault(packet.model.model_id, {})
                of_model[packet.packet_id[:16]] = self._outcome(packet, hour)
        return found

    def _outcome(self, packet: InferencePacket, hour: datetime) -> str:
        match packet.outcome:
            case Scored():
                kind = _SCORED
            case Abstained(reason=reason) if reason != SWITCHED_OFF:
                kind = _ABSTAINED
            case Failed():
                kind = _FAILED
            case _:
                kind = _OTHER
        timed = _UNTIMED
        if packet.trigger.channel != _BATCH and kind != _OTHER:
            timed = _SLOW if packet.updated_at - packet.started_at > self._slow else _IN_TIME
        slot = int((packet.started_at - hour) / HOUR * SLOTS)
        return f"{kind}{timed}{slot:x}"

    async def _merge(self, hour: datetime, outcomes: _Outcomes) -> None:
        parts: dict[str, _Outcomes] = {}
        for model, of_model in outcomes.items():
            for packet, outcome in of_model.items():
                # Ids begin with p; what follows is chance.
                parts.setdefault(packet[1:2], {}).setdefault(model, {})[packet] = outcome
        for part, of_part in parts.items():
            await self._merge_part(f"{hour:%Y-%m-%dT%H:%M+00:00}{_PART}{part}", of_part)

    async def _merge_part(self, record_id: str, outcomes: _Outcomes) -> None:
        held = await self._records.read_record(self._open_kind, record_id, now=self._clock.now())
        before: _Outcomes = {} if held is None else msgspec.json.decode(held.content, type=_Outcomes)
        after = {model: {**before.get(model, {}), **outcomes.get(model, {})} for model in {*before, *outcomes}}
        if after != before:
            await self._save(self._open_kind, record_id, after, held)

    async def _close(self, head: _Head, held: Record | None) -> None:
        """Keep of hours that are over only their counts. Killed on the way, it is done again and comes to the same."""
        now = self._clock.now()
        until = hour_start(now - OPEN_FOR)
        if until <= head.closed_until:
            return
        records = await self._records.records(self._open_kind, now=now)
        over = {each: record for each, record in records.items() if _hour_in(each) < until}
        counts: dict[str, dict[int, tuple[int, ...]]] = {}
        for hour, of_models in _by_hour_of(over).items():
            for model, outcomes in of_models.items():
                of_hour = _counted(outcomes.values())
                counts.setdefault(model, {})[_place(hour)] = tuple(getattr(of_hour, name) for name in _FIELDS)
        oldest = _place(until - timedelta(weeks=WEEKS))
        for model, hours in counts.items():
            closed, of_closed = await self._closed(model)
            kept = {place: each for place, each in {**closed.hours, **hours}.items() if place >= oldest}
            await self._save(self._closed_kind, model, _Closed(hours=kept), of_closed)
        await self._save("alert-head", self._site, msgspec.structs.replace(head, closed_until=until), held)
        for each, record in over.items():
            await self._records.replace_record(self._open_kind, each, b"{}", etag=record.etag, expires_at=now)

    async def _head(self) -> tuple[_Head, Record | None]:
        now = self._clock.now()
        held = await self._records.read_record("alert-head", self._site, now=now)
        if held is None:
            return _Head(cursor=None, closed_until=hour_start(now) - timedelta(weeks=WEEKS)), None
        return msgspec.json.decode(held.content, type=_Head), held

    async def _closed(self, model: str) -> tuple[_Closed, Record | None]:
        held = await self._records.read_record(self._closed_kind, model, now=self._clock.now())
        return (_Closed() if held is None else msgspec.json.decode(held.content, type=_Closed)), held

    async def _save(self, kind: str, record_id: str, content: object, held: Record | None) -> Record | None:
        encoded = msgspec.json.encode(content)
        if held is None:
            return await self._records.create_record(kind, record_id, encoded, now=self._clock.now())
        return await self._records.replace_record(kind, record_id, encoded, etag=held.etag)


_PART = "/"
_DIGITS = frozenset("0123456789abcdef")
_FIELDS = ("asked", "slots", "answered", "failed", "abstained", "waited", "slow")


def _by_hour_of(records: Mapping[str, Record]) -> dict[datetime, _Outcomes]:
    """Put the parts of each hour together.

    Earlier versions kept an hour in one record, or in one part ``p``: what a digit's part says of a packet is newer.
    """
    found: dict[datetime, _Outcomes] = {}
    for record_id, record in sorted(records.items(), key=lambda each: each[0].partition(_PART)[2] in _DIGITS):
        hour = found.setdefault(_hour_in(record_id), {})
        for model, outcomes in msgspec.json.decode(record.content, type=_Outcomes).items():
            hour.setdefault(model, {}).update(outcomes)
    return found


def _hour_in(record_id: str) -> datetime:
    return datetime.fromisoformat(record_id.partition(_PART)[0])


def _counted(outcomes: Iterable[str]) -> HourCount:
    kinds = [(each[0], each[1], each[2]) for each in outcomes]
    return HourCount(
        asked=len(kinds),
        slots=len({slot for _, _, slot in kinds}),
        answered=sum(kind != _OTHER for kind, _, _ in kinds),
        failed=sum(kind == _FAILED for kind, _, _ in kinds),
        abstained=sum(kind == _ABSTAINED for kind, _, _ in kinds),
        waited=sum(timed != _UNTIMED for _, timed, _ in kinds),
        slow=sum(timed == _SLOW for _, timed, _ in kinds),
    )


def _later(last_at: Mapping[str, datetime], packets: Iterable[InferencePacket]) -> dict[str, datetime]:
    found = dict(last_at)
    for packet in packets:
        model = packet.model.model_id
        found[model] = max(found.get(model, packet.started_at), packet.started_at)
    return found


def _place(hour: datetime) -> int:
    return int(hour.timestamp()) // 3600


def _hour_of(place: int) -> datetime:
    return datetime.fromtimestamp(place * 3600, UTC)

"""What must hold just before a score leaves the house, whichever way out it takes.

The packet is this environment's and scored, the score is a number that may be shown, it is not late, and no newer
score of the same model for the same patient went the same way before it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import InferencePacket, Scored
from deployr_core.postprocess import ScoreUnusable, checked_number, checked_probability
from deployr_serve.core.errors import (
    Expired,
    InProgress,
    InvalidScore,
    OutcomeUnknown,
    RecordChanged,
    ServeError,
    Superseded,
    TryLater,
    Undelivered,
    WrongEnvironment,
)
from deployr_serve.core.ports import Budget, Clock, Output, Records

SENT = "sent"
"""The kind of the records."""
_HELD_FOR = timedelta(seconds=60)
"""How long a worker that died while it was sending keeps others waiting."""
_POLL_S = 0.05
_log = logging.getLogger(__name__)


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """What went last to one output for one patient and model.

    ``as_of`` counts as sent from the moment that it is tried, since nobody knows what became of an answer that was
    lost; ``before`` is what it goes back to if it was refused. ``held_until``: somebody is at it, None if nobody.
    """

    as_of: datetime
    delivery_id: str
    before: datetime | None = None
    held_until: datetime | None = None

    def __repr__(self) -> str:
        return "<_Place>"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A place that is ours, with the tag that its record has for as long as it is."""

    place: _Place
    etag: str


class GuardedOutput:
    """An output with the guards that all of them share. It has the name of the one that it guards."""

    def __init__(
        self,
        output: Output,
        *,
        records: Records,
        clock: Clock,
        environment: str,
        id_key: bytes,
        expires_after: timedelta,
    ) -> None:
        """Guard an output.

        Args:
            output: renders and sends.
            records: where all workers see what was sent last.
            clock: tells whether a score is late.
            environment: of the EMR that the output writes to.
            id_key: the site's secret; what was sent last goes by a keyed hash of the patient.
            expires_after: how long after it was made a score may still be sent.
        """
        self.name = output.name
        self._output = output
        self._records = records
        self._clock = clock
        self._environment = environment
        self._id_key = id_key
        self._expires_after = expires_after

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> str | None:
        """Send; see `deployr_serve.core.ports.Output`.

        Raises:
            Superseded, Expired, WrongEnvironment, InvalidScore: it must not be sent; nothing was.
            InProgress: another score of this patient's is on its way, and did not arrive in time.
        """
        try:
            check_sendable(
                packet,
                bundle,
                environment=self._environment,
                now=self._clock.now(),
                expires_after=self._expires_after,
            )
        except Undelivered as refusal:
            _log.error("not sent: packet=%s output=%s reason=%s", packet.packet_id, self.name, refusal.reason)
            raise
        key = self._key(packet)
        held = await self._claim(key, packet.as_of, delivery_id, budget)
        try:
            location = await self._output.send(packet, bundle, delivery_id=delivery_id, budget=budget)
        except ServeError as error:
            await self._release(key, held, may_have_arrived=isinstance(error, TryLater | OutcomeUnknown))
            raise
        await self._release(key, held, may_have_arrived=True)
        return location

    def _key(self, packet: InferencePacket) -> str:
        return keyed_hash(self._id_key, packet.subject.patient_id, packet.model.model_id, self.name)[:32]

    async def _claim(self, key: str, as_of: datetime, delivery_id: str, budget: Budget | None) -> _Held:
        """Hold the place for this score; wait for one of another instant that is on its way."""
        while True:
            now = self._clock.now()
            record = await self._records.read_record(SENT, key, now=now)
            last = None if record is None else msgspec.json.decode(record.content, type=_Place)
            if last is not None and last.as_of != as_of and _is_held(last, delivery_id, now):
                if budget is None or self._clock.monotonic() + _POLL_S >= budget.deadline:
                    raise InProgress("expected another score of this patient, which is on its way, to arrive in time")
                await self._clock.sleep(_POLL_S)
                continue
            if last is not None and last.as_of > as_of:
                raise Superseded("expected no newer score to have been sent")
            before = None if last is None else (last.before if last.delivery_id == delivery_id else last.as_of)
            place = _Place(as_of=as_of, delivery_id=delivery_id, before=before, held_until=now + _HELD_FOR)
            content, expires_at = msgspec.json.encode(place), self._forgotten_at(now)
            if record is None:
                created = await self._records.create_record(SENT, key, content, now=now, expires_at=expires_at)
                if created is not None:
                    return _Held(place=place, etag=created.etag)
                continue
            try:
                changed = await self._records.replace_record(
                    SENT, key, content, etag=record.etag, expires_at=expires_at
                )
            except RecordChanged:
                continue
            return _Held(place=place, etag=changed.etag)

    async def _release(self, key: str, held: _Held, *, may_have_arrived: bool) -> None:
        # Refused: as if it had never been tried. An instant before all others lets every score pass.
        place = held.place
        as_of = place.as_of if may_have_arrived else (place.before or place.as_of - self._expires_after)
        free = msgspec.structs.replace(place, as_of=as_of, held_until=None)
        expires_at = self._forgotten_at(self._clock.now())
        try:
            await self._records.replace_record(
                SENT, key, msgspec.json.encode(free), etag=held.etag, expires_at=expires_at
            )
        except RecordChanged:
            # It took so long that somebody else took the place over.
            return

    def _forgotten_at(self, now: datetime) -> datetime:
        # Whatever would have to be held against it has expired by then.
        return now + self._expires_after + _HELD_FOR


def check_sendable(
    packet: InferencePacket, bundle: Bundle, *, environment: str, now: datetime, expires_after: timedelta
) -> None:
    """Return if the packet may be sent, as far as can be told without asking anybody.

    Raises:
        WrongEnvironment: it was made in another environment than the one that is written to.
        InvalidScore: it is not scored, by this model, with numbers that may be shown.
        Expired: it was made more than ``expires_after`` ago.
    """
    if packet.environment != environment:
        raise WrongEnvironment("expected a packet of the environment that this app writes to")
    outcome = packet.outcome
    if not isinstance(outcome, Scored) or packet.model.model_id != bundle.manifest.model_id:
        raise InvalidScore("expected a packet that was scored by this model")
    checked = checked_number if outcome.value_unit is not None else checked_probability
    try:
        for number in (outcome.score, *outcome.outputs.values()):
            checked(number)
    except ScoreUnusable as error:
        raise InvalidScore(str(error)) from None
    if now - packet.updated_at > expires_after:
        raise Expired("expected a score that was made lately")


def _is_held(place: _Place, delivery_id: str, now: datetime) -> bool:
    return place.delivery_id != delivery_id and place.held_until is not None and place.held_until > now

"""The kill switch: one model, one site or everything is switched off for all workers, without a new deployment.

Switches are shared records. Every worker reads them anew after `HOLD_S`, so that within that time plus one read of the
store nothing new is scored, shown or sent. Who switched and why stays in the record, change after change.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from deployr_core.packet import Mode
from deployr_serve.core.decide import SWITCHED_OFF, Why
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Clock, Record, Records
from deployr_serve.core.registry_showing import Approvals

KIND = "switch"
HOLD_S = 2.0
"""How long a worker goes by what it read, in seconds."""
EVERYTHING = "all"
_MOST_TRIES = 20


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a switch. ``by`` is whoever turned it, ``why`` their words; neither is about a patient."""

    is_off: bool
    by: str
    why: str
    at: datetime


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """A switch and how it came to stand as it does; the last change counts."""

    changes: tuple[Change, ...]

    @property
    def is_off(self) -> bool:
        """True if what it is for is switched off."""
        return self.changes[-1].is_off


_decoder = msgspec.json.Decoder(Switch)


def model_switch(model_id: str) -> str:
    """Give the name of a model's switch."""
    return f"model.{model_id}"


def site_switch(site: str) -> str:
    """Give the name of a site's switch, for stores that several sites share."""
    return f"site.{site}"


class Switches:
    """What is switched off, as of at most `HOLD_S` ago; mode ``off`` of a deployment is a switch that stays.

    ``approvals``: which bundles may be shown, by the registry; None where the site does not go by it.
    """

    def __init__(
        self,
        records: Records,
        *,
        clock: Clock,
        site: str,
        policies: Policies,
        approvals: Approvals | None = None,
    ) -> None:
        self._records = records
        self._approvals = approvals
        self._policies = policies
        self._clock = clock
        self._common = frozenset({EVERYTHING, site_switch(site)})
        self._off: frozenset[str] = frozenset()
        self._read_at: float | None = None

    async def is_off(self, model_id: str) -> bool:
        """Say whether nothing of this model may be scored, shown or sent now.

        Raises:
            StoreUnavailable: nobody knows; and without the store nothing may be shown anyway.
        """
        if self._policies.of(model_id).mode is Mode.OFF:
            return True
        asked_at = self._clock.monotonic()
        if self._read_at is None or asked_at - self._read_at >= HOLD_S:
            switches = await list_switches(self._records, now=self._clock.now())
            self._off = frozenset(name for name, switch in switches.items() if switch.is_off)
            # From before the read: what was turned while it was under way is seen by the next one.
            self._read_at = asked_at
        return self._is_off_as_read(model_id)

    def was_off(self, model_id: str) -> bool | None:
        """Say it as of when the switches were read last, however long ago; None if this worker never could."""
        if self._policies.of(model_id).mode is Mode.OFF:
            return True
        return None if self._read_at is None else self._is_off_as_read(model_id)

    def _is_off_as_read(self, model_id: str) -> bool:
        return bool(self._off & self._common) or model_switch(model_id) in self._off

    async def is_approved(self, model_id: str, bundle_sha256: str) -> bool:
        """Say whether the registry lets this bundle's scores be shown now; where a site does not go by it, it does.

        Raises:
            StoreUnavailable: nobody knows.
        """
        approvals = self._approvals_of(model_id)
        return approvals is None or await approvals.is_shown(model_id, bundle_sha256)

    def is_known_to_be_shown(self, model_id: str, bundle_sha256: str) -> bool:
        """Say whether, as this worker read it last, the model was on and the registry let this bundle be shown."""
        approvals = self._approvals_of(model_id)
        is_approved = approvals is None or approvals.was_shown(model_id, bundle_sha256)
        return self.was_off(model_id) is False and is_approved

    def _approvals_of(self, model_id: str) -> Approvals | None:
        # What is silent anyway says so, and nobody's leave is asked for it.
        return None if self._policies.of(model_id).mode is Mode.SILENT else self._approvals

    async def why_nothing_is_sent(self, model_id: str, bundle_sha256: str) -> str | None:
        """Give the reason why nothing that this bundle made may be sent now, be it decided before; None if it may."""
        if await self.is_off(model_id):
            return SWITCHED_OFF
        if self._policies.of(model_id).mode is Mode.SILENT:
            return Why.SILENT.value
        return None if await self.is_approved(model_id, bundle_sha256) else Why.NOT_APPROVED.value


async def list_switches(records: Records, *, now: datetime) -> dict[str, Switch]:
    """Give every switch that was ever turned, by name."""
    return {name: _switch(record) for name, record in (await records.records(KIND, now=now)).items()}


async def turn(records: Records, name: str, change: Change) -> Switch:
    """Turn a switch; who turned it before stays on record.

    Raises:
        StoreUnavailable: it was not turned.
    """
    for _ in range(_MOST_TRIES):
        held = await records.read_record(KIND, name, now=change.at)
        if held is None:
            switch = Switch(changes=(change,))
            if await records.create_record(KIND, name, msgspec.json.encode(switch), now=change.at) is not None:
                return switch
            continue
        switch = Switch(changes=(*_switch(held).changes, change))
        try:
            await records.replace_record(KIND, name, msgspec.json.encode(switch), etag=held.etag)
        except RecordChanged:
            continue
        return switch
    raise StoreUnavailable("expected to turn the switch, but others keep turning it")


def _switch(record: Record) -> Switch:
    try:
        return _decoder.decode(record.content)
    except msgspec.MsgspecError:
        raise StoreUnavailable("expected stored switches that can be read") from None

"""What was written to the EMR beside scores: flowsheet values, SmartData, messages, FHIR resources. It grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Literal

import msgspec

from mock_emr.query import Query, matches
from mock_emr.store import Form, form_of

Resource = Mapping[str, Any]

Conditional = Literal["honoured", "ignored", "refused"]
"""What a server does with ``If-None-Exist``."""


@dataclass(frozen=True, kw_only=True)
class WriteSite:
    """What this site lets be written, and how.

    ``creates``: the FHIR types that its CapabilityStatement offers to create. ``conditional``: whether it looks first
    for what is there already, creates it again, or refuses to be asked. ``flowsheet_rows``: those that scores may be
    filed in, beside those that hold vital signs. ``message_types``: the safelist. ``location``: the base of the
    addresses that it gives to what was created; None is its own.
    """

    creates: frozenset[str] = frozenset({"Communication", "DocumentReference", "Flag", "Observation", "RiskAssessment"})
    conditional: Conditional = "honoured"
    flowsheet_rows: frozenset[str] = frozenset({"90001"})
    message_types: frozenset[str] = frozenset({"Staff Message"})
    location: str | None = None


@dataclass(frozen=True, kw_only=True)
class FlowsheetValue:
    """One value as it was filed. ``taken_at`` is what it is dated, ``written_at`` the EMR's instant."""

    patient_id: str = field(repr=False)
    csn: str = field(repr=False)
    row_id: str
    value: str = field(repr=False)
    taken_at: datetime
    comment: str
    written_at: datetime


@dataclass(frozen=True, kw_only=True)
class SmartDataValue:
    """The value of one element as it stands; ``csn`` is None where it hangs on the patient."""

    patient_id: str = field(repr=False)
    csn: str | None = field(repr=False)
    element_id: str
    value: str = field(repr=False)
    comments: tuple[str, ...]
    written_at: datetime
    times_set: int


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message as it was sent."""

    message_id: str
    patient_id: str = field(repr=False)
    message_type: str
    recipients: tuple[str, ...]
    lines: tuple[str, ...] = field(repr=False)
    written_at: datetime


@dataclass(frozen=True, kw_only=True, order=True)
class _Coming:
    """A result that is to come in ``at``; those of one order at one instant in their own order."""

    at: datetime
    number: int
    order_id: str
    is_last: bool
    resource: Resource = field(repr=False, compare=False)


class Written:
    """Everything that was written, oldest first, and what comes in by itself once its instant has come.

    What has come in stays, like all that was written, when the clock is put back.

    Args:
        now: gives the EMR's instant.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._coming: list[_Coming] = []
        self.flowsheet: list[FlowsheetValue] = []
        self.messages: list[Message] = []
        self._smart_data: dict[tuple[str, str | None, str], SmartDataValue] = {}
        self._forms: dict[str, dict[str, Form]] = {}

    def set_smart_data(self, value: SmartDataValue) -> None:
        """Set an element, in place of what it held."""
        key = (value.patient_id, value.csn, value.element_id)
        before = self._smart_data.get(key)
        times = 1 if before is None else before.times_set + 1
        self._smart_data[key] = SmartDataValue(
            patient_id=value.patient_id,
            csn=value.csn,
            element_id=value.element_id,
            value=value.value,
            comments=value.comments,
            written_at=value.written_at,
            times_set=times,
        )

    def smart_data(self) -> tuple[SmartDataValue, ...]:
        """Give every element that was set."""
        return tuple(self._smart_data.values())

    def create(self, resource: Resource, *, now: datetime) -> Form:
        """Keep a resource under an id of the EMR's own."""
        held = self._forms.setdefault(str(resource["resourceType"]), {})
        resource_id = f"w{len(held) + 1}"
        held[resource_id] = _form(resource, resource_id, version=1, now=now)
        return held[resource_id]

    def expect(self, results: Sequence[tuple[datetime, Resource]], *, order_id: str) -> None:
        """Let the results of an order that was created come in, each at its instant; the last one completes it.

        None comes of an order that has been revoked by then.
        """
        for number, (at, resource) in enumerate(results):
            is_last = number == len(results) - 1
            heappush(self._coming, _Coming(at=at, number=number, order_id=order_id, is_last=is_last, resource=resource))

    def update(self, resource: Resource, resource_id: str, *, now: datetime) -> Form:
        """Put a resource in place of the one with this id, as its next version.

        Raises:
            KeyError: there is none.
        """
        held = self._forms[str(resource["resourceType"])]
        held[resource_id] = _form(resource, resource_id, version=version_of(held[resource_id]) + 1, now=now)
        return held[resource_id]

    def read(self, resource_type: str, resource_id: str) -> Form | None:
        """Give one resource that was created; None if there is no such."""
        self._come_in()
        return self._forms.get(resource_type, {}).get(resource_id)

    def of_patient(self, resource_type: str, patient_id: str) -> tuple[Form, ...]:
        """Give the resources of a type that were created about a patient."""
        self._come_in()
        forms = self._forms.get(resource_type, {}).values()
        return tuple(form for form in forms if form.patient_id == patient_id)

    def found(self, query: Query) -> tuple[Form, ...]:
        """Give the resources that meet a search."""
        self._come_in()
        forms = self._forms.get(query.resource_type, {}).values()
        return tuple(form for form in forms if all(matches(criterion, form) for criterion in query.criteria))

    def resources(self) -> tuple[Resource, ...]:
        """Give every resource that was created."""
        self._come_in()
        return tuple(msgspec.json.decode(form.body) for held in self._forms.values() for form in held.values())

    def _come_in(self) -> None:
        now = self._now()
        while self._coming and self._coming[0].at <= now:
            coming = heappop(self._coming)
            order = msgspec.json.decode(self._forms["ServiceRequest"][coming.order_id].body)
            if order["status"] == "revoked":
                continue
            self.create(coming.resource, now=coming.at)
            if coming.is_last:
                self.update({**order, "status": "completed"}, coming.order_id, now=coming.at)


def version_of(form: Form) -> int:
    """Give which version of a resource that was created this is, from 1."""
    return int(msgspec.json.decode(form.body)["meta"]["versionId"])


def _form(resource: Resource, resource_id: str, *, version: int, now: datetime) -> Form:
    meta = {"versionId": str(version), "lastUpdated": now.isoformat()}
    kept = {**resource, "id": resource_id, "meta": meta}
    return form_of(kept, msgspec.json.encode(kept))

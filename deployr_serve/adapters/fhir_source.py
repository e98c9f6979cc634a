"""Facts from a FHIR R4 server: what is asked follows from the declaration, and every answer is checked for identity."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from itertools import chain
from typing import TypeVar

from deployr_core.codes import Code
from deployr_core.facts import Demographics, Encounter, Lab, Order, PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_plan import lab_search, plan, unfetchable
from deployr_serve.adapters.fhir_search import FhirClient, Found, Search
from deployr_serve.core.errors import (
    AskDifferently,
    EmrBadResponse,
    ModelUnavailable,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.ports import FetchedFacts, OutcomeFacts

__all__ = ["FhirSource", "plan", "unfetchable"]

_T = TypeVar("_T")
_R = TypeVar(
    "_R",
    wire.Encounter,
    wire.ServiceRequest,
    wire.Observation,
    wire.Condition,
    wire.MedicationRequest,
    wire.Procedure,
)
_P = TypeVar("_P", wire.Patient, wire.Encounter, wire.ServiceRequest)


class FhirSource:
    """See `deployr_serve.core.ports.FactSource` and `OutcomeSource` for what is promised.

    Args:
        client: the server.
        zone: the site's zone, for dates that carry none.
        csn_system: the identifier system of contact serial numbers; None takes the identifier with type text ``CSN``.
    """

    def __init__(self, client: FhirClient, *, zone: tzinfo = UTC, csn_system: str | None = None) -> None:
        self._client = client
        self._zone = zone
        self._csn_system = csn_system

    async def fetch(self, subject: Subject, spec: FeatureSpec, *, as_of: datetime) -> FetchedFacts:
        """Fetch everything at once; the first failure ends the others.

        Raises:
            ModelUnavailable: the declaration holds what this source cannot fetch (see `unfetchable`).
        """
        if names := unfetchable(spec):
            raise ModelUnavailable(f"expected feature groups that FHIR can fetch; these it cannot: {', '.join(names)}")
        searches = {"patient": Search(resource_type="Patient", parameters=(("_id", subject.patient_id),))}
        if subject.encounter_id is not None:
            searches["encounter"] = Search(resource_type="Encounter", parameters=(("_id", subject.encounter_id),))
        if subject.order_id is not None:
            searches["order"] = Search(resource_type="ServiceRequest", parameters=(("_id", subject.order_id),))
        searches.update(plan(spec, patient_id=subject.patient_id, as_of=as_of))
        found = await self._search_all(searches)
        patient = _exactly_one(found["patient"], wire.Patient, subject.patient_id, missing=UnknownPatient)
        if any(link.get("type") == "replaced-by" for link in patient.link):
            # Its chart has moved to the record it was merged into: what is left here would pass for "nothing there".
            raise WrongPatient("expected a patient record that was not merged into another")
        ordered_in = self._encounter_of_order(found, subject)
        if subject.encounter_id is None and ordered_in is not None:
            search = Search(resource_type="Encounter", parameters=(("_id", ordered_in),))
            found["encounter"] = await self._client.search(search)
        encounter = self._encounter(found, subject, subject.encounter_id or ordered_in)
        dropped: Counter[str] = Counter()
        facts = self._facts(found, subject, read.demographics(patient), dropped)
        records = tuple(result.record for result in found.values())
        return FetchedFacts(facts=facts, encounter=encounter, fetches=records, dropped=dict(dropped))

    async def outcomes(
        self, patient_id: str, *, order_ids: tuple[str, ...], codes: tuple[Code, ...], since: datetime
    ) -> OutcomeFacts:
        """Fetch results and orders for the label rules."""
        searches = {"labs": lab_search(patient_id, codes, since)}
        if order_ids:
            searches["orders"] = Search(
                resource_type="ServiceRequest", parameters=(("patient", patient_id), ("_id", ",".join(order_ids)))
            )
        found = await self._search_all(searches)
        dropped: Counter[str] = Counter()
        orders = self._read(found.get("orders"), wire.ServiceRequest, self._order, patient_id, dropped)
        labs = self._read(found.get("labs"), wire.Observation, self._lab(dropped), patient_id, dropped)
        return OutcomeFacts(labs=labs, orders={order.fact_id: order for order in orders})

    async def _search_all(self, searches: dict[str, Search]) -> dict[str, Found]:
        """Search all at once; when one fails the others are cancelled, and its own error is what comes out."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(self._client.search(search)) for name, search in searches.items()}
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return {name: task.result() for name, task in tasks.items()}

    def _encounter_of_order(self, found: dict[str, Found], subject: Subject) -> str | None:
        """Check that the order is this patient's and of the encounter that is named; give its encounter's id."""
        if subject.order_id is None:
            return None
        resource = _exactly_one(found["order"], wire.ServiceRequest, subject.order_id, missing=UnknownContext)
        self._insist(resource, subject.patient_id)
        order = _dated(self._order, resource)
        ordered_in = order.encounter_id if order else None
        if None not in {ordered_in, subject.encounter_id} and ordered_in != subject.encounter_id:
            raise WrongPatient("expected an order of the encounter that the request names")
        return ordered_in

    def _encounter(self, found: dict[str, Found], subject: Subject, encounter_id: str | None) -> Encounter | None:
        if encounter_id is None:
            return None
        resource = _exactly_one(found["encounter"], wire.Encounter, encounter_id, missing=UnknownContext)
        self._insist(resource, subject.patient_id)
        return _dated(lambda it: read.encounter(it, csn_system=self._csn_system, zone=self._zone), resource)

    def _order(self, resource: wire.ServiceRequest) -> Order | None:
        return read.order(resource, fhir_base=self._client.base, zone=self._zone)

    def _lab(self, dropped: Counter[str]) -> Callable[[wire.Observation], Lab | None]:
        return lambda it: read.lab(it, fhir_base=self._client.base, zone=self._zone, dropped=dropped)

    def _facts(
        self, found: dict[str, Found], subject: Subject, who: Demographics, dropped: Counter[str]
    ) -> PatientFacts:
        """Read all that was found, by the names that `plan` gives its searches."""
        zone, base = self._zone, self._client.base

        def facts(name: str, kind: type[_R], reader: Callable[[_R], _T | None]) -> tuple[_T, ...]:
            return self._read(found.get(name), kind, reader, subject.patient_id, dropped)

        measured = facts("vitals", wire.Observation, lambda it: read.vitals(it, zone=zone, dropped=dropped))
        ordered = facts(
            "orders",
            wire.ServiceRequest,
            lambda it: read.signed_order(it, fhir_base=base, zone=zone, dropped=dropped),
        )
        return PatientFacts(
            patient_id=subject.patient_id,
            demographics=who,
            labs=facts("labs", wire.Observation, self._lab(dropped)),
            diagnoses=facts("diagnoses", wire.Condition, lambda it: read.diagnosis(it, zone=zone, dropped=dropped)),
            medications=facts(
                "medications", wire.MedicationRequest, lambda it: read.medication(it, zone=zone, dropped=dropped)
            ),
            vitals=tuple(chain.from_iterable(measured)),
            procedures=facts("procedures", wire.Procedure, lambda it: read.procedure(it, zone=zone, dropped=dropped)),
            # A call that comes a moment after the signing must not see the very order that it is about.
            orders=tuple(order for order in ordered if order.fact_id != subject.order_id),
            visits=facts("visits", wire.Encounter, lambda it: read.visit(it, zone=zone, dropped=dropped)),
        )

    def _read(
        self,
        found: Found | None,
        kind: type[_R],
        reader: Callable[[_R], _T | None],
        patient_id: str,
        dropped: Counter[str],
    ) -> tuple[_T, ...]:
        """Read each resource that is about this patient into a fact, where it can be one."""
        facts = []
        for resource in found.resources if found else ():
            if isinstance(resource, kind) and self._is_about(resource, patient_id, dropped):
                fact = _dated(reader, resource)
                if fact is not None:
                    facts.append(fact)
        return tuple(facts)

    def _is_about(self, resource: wire.AboutPatient, patient_id: str, dropped: Counter[str]) -> bool:
        """True if the resource says that it is about this patient; one that says nothing is left out, and counted."""
        subject = read.subject_of(resource, fhir_base=self._client.base)
        if subject is None:
            dropped["any.no_subject"] += 1
            return False
        if subject != patient_id:
            raise WrongPatient("expected only what is about the patient that was asked for")
        return True

    def _insist(self, resource: wire.Encounter | wire.ServiceRequest, patient_id: str) -> None:
        if read.subject_of(resource, fhir_base=self._client.base) != patient_id:
            raise WrongPatient("expected an encounter and an order of the patient that the request names")


def _exactly_one(found: Found, kind: type[_P], asked_for: str, *, missing: type[AskDifferently]) -> _P:
    if len(found.resources) != 1:
        how_many = "none" if not found.resources else "several"
        raise missing(f"expected the EMR to know exactly one of what the request names, it knows {how_many}")
    only = found.resources[0]
    if not isinstance(only, kind) or only.id != asked_for:
        raise WrongPatient("expected the very resource that was asked for")
    return only


def _dated(reader: Callable[[_R], _T], resource: _R) -> _T:
    """Read one resource; a date that is none makes the whole answer unusable, since it may hide the newest result."""
    try:
        return reader(resource)
    except ValueError:
        raise EmrBadResponse("expected dates as FHIR writes them") from None

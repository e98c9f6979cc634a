"""Identifiers of any type to the subject of a request: one patient, and that patient's encounter and order.

FHIR ids alone need no call here: whoever reads the facts checks them. Everything else is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from deployr_core.packet import Subject
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_plan import search_token
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.adapters.identity import CSN, FHIR, Encounters, PatientIndex
from deployr_serve.core.errors import MalformedRequest, ServeError, UnknownContext, WrongPatient
from deployr_serve.core.ports import Budget, Named, TypedIdentifier


class ChartSubjects:
    """See `deployr_serve.core.ports.Subjects`.

    Args:
        client: the server that knows the orders.
        patients: who knows the patients.
        encounters: who knows the encounters.
        systems: the FHIR identifier system of each type, for orders.
    """

    def __init__(
        self, client: FhirClient, *, patients: PatientIndex, encounters: Encounters, systems: Mapping[str, str]
    ) -> None:
        self._client = client
        self._patients = patients
        self._encounters = encounters
        self._systems = systems

    async def subject(self, named: Named, *, budget: Budget | None) -> Subject:
        """Look everything up at once."""
        try:
            async with asyncio.TaskGroup() as group:
                patient = group.create_task(self._patient(named.patient, budget))
                encounter = group.create_task(self._encounter(named.encounter, budget))
                order = group.create_task(self._order(named.order, budget))
        except BaseExceptionGroup as failures:
            raise _said(failures) from None
        patient_id = patient.result()
        for _, whose in (encounter.result(), order.result()):
            if whose not in {None, patient_id}:
                raise WrongPatient("expected an encounter and an order of the patient that the request names")
        return Subject(patient_id=patient_id, encounter_id=encounter.result()[0], order_id=order.result()[0])

    async def _patient(self, identifiers: Sequence[TypedIdentifier], budget: Budget | None) -> str:
        if [one.type for one in identifiers] == [FHIR]:
            return identifiers[0].value
        return (await self._patients.resolve(tuple(identifiers), budget=budget)).fhir_id

    async def _encounter(
        self, identifiers: Sequence[TypedIdentifier], budget: Budget | None
    ) -> tuple[str | None, str | None]:
        """Give the encounter's id, and whose it is if that was looked up."""
        found: list[tuple[str | None, str | None]] = []
        for one in identifiers:
            if one.type == CSN:
                encounter = await self._encounters.with_csn(one.value, budget=budget)
                found.append((encounter.encounter_id, encounter.patient_id))
            elif one.type == FHIR:
                found.append((one.value, None))
            else:
                raise MalformedRequest("expected an encounter by its CSN or its FHIR id")
        return _one(found)

    async def _order(
        self, identifiers: Sequence[TypedIdentifier], budget: Budget | None
    ) -> tuple[str | None, str | None]:
        found: list[tuple[str | None, str | None]] = []
        for one in identifiers:
            if one.type == FHIR:
                found.append((one.value, None))
            elif one.type in self._systems:
                found.append(await self._order_with(self._systems[one.type], one.value, budget))
            else:
                raise MalformedRequest("expected an order by its FHIR id, or a type of DEPLOYR_EMR_IDENTIFIER_SYSTEMS")
        return _one(found)

    async def _order_with(self, system: str, value: str, budget: Budget | None) -> tuple[str, str | None]:
        token = search_token(system, value)
        search = Search(resource_type="ServiceRequest", parameters=(("identifier", token),))
        resources = (await self._client.search(search, budget=budget)).resources
        if len(resources) != 1 or not isinstance(resources[0], wire.ServiceRequest) or resources[0].id is None:
            raise UnknownContext("expected the EMR to know exactly one order by this identifier")
        if (system, value) not in {(one.system, one.value) for one in resources[0].identifier}:
            raise WrongPatient("expected the order of the identifier that was asked for")
        return resources[0].id, read.subject_of(resources[0], fhir_base=self._client.base)


def _one(found: Sequence[tuple[str | None, str | None]]) -> tuple[str | None, str | None]:
    if len({found_id for found_id, _ in found}) > 1:
        raise UnknownContext("expected identifiers that all lead to one encounter, and to one order")
    return next((pair for pair in found if pair[1] is not None), found[0] if found else (None, None))


def _said(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the failure to answer with: of several at once one that we know, if there is one."""
    return next((each for each in failures.exceptions if isinstance(each, ServeError)), failures.exceptions[0])

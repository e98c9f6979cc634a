"""Who is this: identifiers of any type to exactly one FHIR patient, or an honest refusal; never the first of several.

Source: FHIR R4 search.html#token, patient.html (link), http://hl7.org/fhir/R4/ [seen]; GETPATIENTIDENTIFIERS, wire
formats document, section 2 [seen].
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Protocol

import msgspec

from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.epic_client import Meter, VendorClient, metered
from deployr_serve.adapters.fhir_plan import escaped, search_token
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.core.errors import (
    AmbiguousPatient,
    EmrBadResponse,
    MalformedRequest,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.ports import Budget, TypedIdentifier

FHIR = "FHIR"
"""The type of an R4 id."""
CSN = "CSN"
"""The type of a contact serial number, which names an encounter."""

IDENTIFIERS_PATH = "api/epic/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPatient:
    """The one patient: the FHIR id, and ``also`` what else it is called by, by type, where that is one id."""

    fhir_id: str = field(repr=False)
    also: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedEncounter:
    """The one encounter, and whose it is."""

    encounter_id: str = field(repr=False)
    patient_id: str = field(repr=False)


class PatientIndex(Protocol):
    """Knows who is meant."""

    async def resolve(self, identifiers: tuple[TypedIdentifier, ...], *, budget: Budget | None) -> ResolvedPatient:
        """Give the one patient that all of the identifiers lead to.

        Raises:
            MalformedRequest: no identifier, or one of a type that is not known here.
            UnknownPatient, UnknownContext: one of them is nobody's, or no encounter's.
            AmbiguousPatient: one is several patients', or they lead to different ones.
            WrongPatient: the answer is about somebody else than was asked for, or the record was merged into another.
            TryLater, FixSetup: nobody could tell.
        """


class Encounters:
    """Encounters of one FHIR server, by contact serial number.

    Args:
        client: the server.
        csn_system: the identifier system of contact serial numbers; None goes by the type text ``CSN``.
    """

    def __init__(self, client: FhirClient, *, csn_system: str | None) -> None:
        self._client = client
        self._csn_system = csn_system

    async def with_csn(self, csn: str, *, budget: Budget | None) -> ResolvedEncounter:
        """Give the one encounter with this number.

        Raises:
            UnknownContext: none, or several.
            WrongPatient: the answer does not have the number that was asked for, or does not say whose it is.
        """
        token = escaped(csn) if self._csn_system is None else search_token(self._csn_system, csn)
        search = Search(resource_type="Encounter", parameters=(("identifier", token),))
        encounter = _only_encounter((await self._client.search(search, budget=budget)).resources)
        if self._csn_of(encounter) != csn or encounter.id is None:
            raise WrongPatient("expected the encounter of the number that was asked for")
        return ResolvedEncounter(encounter_id=encounter.id, patient_id=self._subject_of(encounter))

    async def csn_of(self, encounter_id: str, *, patient_id: str, budget: Budget | None) -> str:
        """Give the one contact serial number of a patient's encounter.

        Raises:
            UnknownContext: no such encounter, or it has no single number.
            WrongPatient: it is another patient's.
        """
        search = Search(resource_type="Encounter", parameters=(("_id", encounter_id),))
        encounter = _only_encounter((await self._client.search(search, budget=budget)).resources)
        if encounter.id != encounter_id or self._subject_of(encounter) != patient_id:
            raise WrongPatient("expected an encounter of the patient that the request names")
        csn = self._csn_of(encounter)
        if csn is None:
            raise UnknownContext("expected one contact serial number of the encounter")
        return csn

    def _csn_of(self, encounter: wire.Encounter) -> str | None:
        try:
            # The zone is for dates, which are not looked at here.
            return read.encounter(encounter, csn_system=self._csn_system, zone=UTC).contact_serial_number
        except ValueError:
            raise EmrBadResponse("expected dates as FHIR writes them") from None

    def _subject_of(self, encounter: wire.Encounter) -> str:
        subject = read.subject_of(encounter, fhir_base=self._client.base)
        if subject is None or "/" in subject:
            raise WrongPatient("expected an encounter that names a patient of this server")
        return subject


class FhirPatients:
    """A `PatientIndex` by FHIR search.

    Args:
        client: the server.
        systems: the identifier system of each type, such as ``MRN``; a CSN is looked up among ``encounters``.
        encounters: of the same server.
    """

    def __init__(self, client: FhirClient, *, systems: Mapping[str, str], encounters: Encounters) -> None:
        self._client = client
        self._systems = systems
        self._encounters = encounters

    async def resolve(self, identifiers: tuple[TypedIdentifier, ...], *, budget: Budget | None) -> ResolvedPatient:
        """See `PatientIndex`."""
        known = {FHIR, CSN, *self._systems}
        _check(identifiers, known=known)
        return _agreed(await _all([self._one(identifier, budget) for identifier in identifiers]))

    async def _one(self, identifier: TypedIdentifier, budget: Budget | None) -> ResolvedPatient:
        if identifier.type == CSN:
            encounter = await self._encounters.with_csn(identifier.value, budget=budget)
            identifier = TypedIdentifier(type=FHIR, value=encounter.patient_id)
        system = self._systems.get(identifier.type)
        parameter = ("_id", identifier.value)
        if system is not None:
            parameter = ("identifier", search_token(system, identifier.value))
        found = await self._client.search(Search(resource_type="Patient", parameters=(parameter,)), budget=budget)
        if not found.resources:
            raise UnknownPatient("expected a patient with this identifier")
        if len(found.resources) > 1:
            raise AmbiguousPatient("expected one patient with this identifier, the EMR knows several")
        patient = found.resources[0]
        if not isinstance(patient, wire.Patient) or patient.id is None:
            raise EmrBadResponse("expected a Patient")
        carried = {(one.system, one.value) for one in patient.identifier}
        echoed = patient.id == identifier.value if system is None else (system, identifier.value) in carried
        if not echoed:
            raise WrongPatient("expected the patient of the identifier that was asked for")
        if patient.active is False or any(link.get("type") == "replaced-by" for link in patient.link):
            # Its chart has moved to the record that it was merged into; the site has to send that one's identifier.
            raise WrongPatient("expected a patient record that is in use, and not merged into another")
        types = {by_system: id_type for id_type, by_system in self._systems.items()}
        also = ((types[one.system], one.value) for one in patient.identifier if one.system in types and one.value)
        return ResolvedPatient(fhir_id=patient.id, also=_single(also))


class _Identifier(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID")
    id_type: str = msgspec.field(name="IDType")

    def __repr__(self) -> str:
        return "<_Identifier>"


class _Identifiers(msgspec.Struct, frozen=True, rename="pascal"):
    identifiers: tuple[_Identifier, ...]


class VendorPatients:
    """A `PatientIndex` by the vendor's GETPATIENTIDENTIFIERS, which tells every identifier of one patient.

    It does not tell that a record was merged; whoever reads the patient finds out. It knows the types itself.
    """

    def __init__(self, client: VendorClient) -> None:
        self._client = client

    async def resolve(self, identifiers: tuple[TypedIdentifier, ...], *, budget: Budget | None) -> ResolvedPatient:
        """See `PatientIndex`."""
        with metered(resource="Identifiers", name="identity", clock=self._client.clock) as meter:
            return await self.resolve_metered(identifiers, meter=meter, budget=budget)

    async def resolve_metered(
        self, identifiers: tuple[TypedIdentifier, ...], *, meter: Meter, budget: Budget | None
    ) -> ResolvedPatient:
        """Do as `resolve` does, with the calls counted by ``meter``."""
        _check(identifiers, known=None)
        return _agreed(await _all([self._one(identifier, meter, budget) for identifier in identifiers]))

    async def _one(self, identifier: TypedIdentifier, meter: Meter, budget: Budget | None) -> ResolvedPatient:
        answer = await self._client.get(
            IDENTIFIERS_PATH,
            {"PatientID": identifier.value, "PatientIDType": identifier.type},
            answer=_Identifiers,
            meter=meter,
            budget=budget,
            refusals={"INVALID-ID-TYPE": MalformedRequest},
        )
        held = {(one.id_type.upper(), one.id) for one in answer.identifiers}
        if not held:
            raise UnknownPatient("expected a patient with this identifier")
        if (identifier.type.upper(), identifier.value) not in held:
            raise WrongPatient("expected the patient of the identifier that was asked for")
        also = _single((one.id_type, one.id) for one in answer.identifiers if one.id)
        fhir_ids = {value for id_type, value in held if id_type == FHIR and value}
        if not fhir_ids:
            raise UnknownPatient("expected a patient with a FHIR id")
        if len(fhir_ids) > 1:
            raise AmbiguousPatient("expected identifiers of one patient, with one FHIR id")
        return ResolvedPatient(fhir_id=fhir_ids.pop(), also=also)


def _check(identifiers: tuple[TypedIdentifier, ...], *, known: set[str] | None) -> None:
    if not identifiers:
        raise MalformedRequest("expected at least one identifier of the patient")
    for identifier in identifiers:
        if not identifier.type or not identifier.value.strip() or (known is not None and identifier.type not in known):
            raise MalformedRequest("expected identifiers of the types that this site knows, each with a value")


async def _all(lookups: Sequence[Awaitable[ResolvedPatient]]) -> list[ResolvedPatient]:
    """Look all of them up at once; the first failure ends the others."""

    async def run(lookup: Awaitable[ResolvedPatient]) -> ResolvedPatient:
        return await lookup

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(lookup)) for lookup in lookups]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _agreed(found: Sequence[ResolvedPatient]) -> ResolvedPatient:
    if len({one.fhir_id for one in found}) > 1:
        raise AmbiguousPatient("expected identifiers that all lead to one patient")
    return ResolvedPatient(fhir_id=found[0].fhir_id, also=_single(pair for one in found for pair in one.also.items()))


def _single(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give the id of each type that has exactly one; of a type with several none is taken."""
    by_type: dict[str, set[str]] = {}
    for id_type, value in pairs:
        by_type.setdefault(id_type, set()).add(value)
    return {id_type: values.pop() for id_type, values in by_type.items() if len(values) == 1}


def _only_encounter(resources: Sequence[wire.Resource]) -> wire.Encounter:
    if len(resources) != 1:
        raise UnknownContext("expected the EMR to know exactly one encounter by what was asked for")
    encounter = resources[0]
    if not isinstance(encounter, wire.Encounter):
        raise EmrBadResponse("expected an Encounter")
    return encounter

"""Who of a worklist is meant, and still there: rows of ids to FHIR patients, each once, read back from the EMR."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from deployr_core.packet import Subject
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.adapters.identity import Encounters, PatientIndex
from deployr_serve.core.batch import CSN, FHIR, Listed, RollCall, Roster
from deployr_serve.core.errors import Abstain, AskDifferently, MalformedRequest, Restricted, WrongPatient
from deployr_serve.core.ports import Budget, TypedIdentifier
from deployr_serve.core.request import FHIR_ID

AT_ONCE = 16
PER_SEARCH = 50
"""How many ids one search names: few enough for any server's limits, and 600 patients are 24 searches."""

UNDER_WAY = frozenset({"arrived", "triaged", "in-progress", "onleave"})
"""Source: FHIR R4 encounter-status, http://hl7.org/fhir/R4/valueset-encounter-status.html [seen]."""

_R = TypeVar("_R", bound=wire.Identified)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Person:
    """A row by FHIR ids."""

    patient_id: str = field(repr=False)
    encounter_id: str | None = field(repr=False)


class EmrRollCaller:
    """A `RollCaller` by the site's own ways of telling who somebody is.

    Args:
        client: the FHIR server, on which patients and encounters are read back.
        patients: resolves ids of other types than FHIR.
        encounters: resolves contact serial numbers.
    """

    def __init__(self, client: FhirClient, *, patients: PatientIndex, encounters: Encounters) -> None:
        self._client = client
        self._patients = patients
        self._encounters = encounters

    async def call(self, roster: Roster, *, budget: Budget) -> RollCall:
        """See `RollCaller`."""
        skipped: Counter[str] = Counter()
        rows = tuple(dict.fromkeys(roster.rows))
        skipped["repeated"] += len(roster.rows) - len(rows)
        people = await self._people(rows, skipped, budget)
        withheld: set[tuple[str, str]] = set()
        patients = await self._by_id("Patient", wire.Patient, (it.patient_id for it in people), withheld, budget)
        named = (it.encounter_id for it in people if it.encounter_id is not None)
        encounters = await self._by_id("Encounter", wire.Encounter, named, withheld, budget)
        kept: dict[str, tuple[str, Subject]] = {}
        for person in people:
            encounter = encounters.get(person.encounter_id or "")
            why_not = self._why_not(person, patients.get(person.patient_id), encounter, withheld)
            if why_not is not None:
                skipped[why_not] += 1
                continue
            started = encounter.period.start if encounter and encounter.period else None
            # Of somebody with two encounters under way, the one that began last, on any machine and in any order.
            candidate = (started or "", Subject(patient_id=person.patient_id, encounter_id=person.encounter_id))
            before = kept.get(person.patient_id)
            skipped["repeated"] += before is not None
            if before is None or _rank(candidate) > _rank(before):
                kept[person.patient_id] = candidate
        present = tuple(subject for _, (_, subject) in sorted(kept.items()))
        return RollCall(present=present, skipped={reason: count for reason, count in skipped.items() if count})

    async def _people(self, rows: Sequence[Listed], skipped: Counter[str], budget: Budget) -> list[_Person]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: Listed) -> _Person | None:
            async with gate:
                try:
                    return await self._person(row, budget)
                except MalformedRequest:
                    skipped["no-usable-ids"] += 1
                except (AskDifferently, Abstain) as error:
                    skipped[error.reason] += 1
                return None

        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(one(row)) for row in rows]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [person for task in asked if (person := task.result()) is not None]

    async def _person(self, row: Listed, budget: Budget) -> _Person:
        patient_id = None if row.patient is None else await self._patient_id(*row.patient, budget)
        if row.encounter is None:
            encounter_id = None
        elif row.encounter[0] == CSN:
            found = await self._encounters.with_csn(row.encounter[1], budget=budget)
            if patient_id not in {None, found.patient_id}:
                raise WrongPatient("expected an encounter of the patient that stands beside it")
            patient_id, encounter_id = found.patient_id, found.encounter_id
        elif row.encounter[0] == FHIR:
            encounter_id = _fhir_id(row.encounter[1])
        else:
            raise MalformedRequest("expected encounters by CSN or FHIR id")
        if patient_id is None:
            raise MalformedRequest("expected the patient's id")
        return _Person(patient_id=patient_id, encounter_id=encounter_id)

    async def _patient_id(self, id_type: str, value: str, budget: Budget) -> str:
        if id_type == FHIR:
            return _fhir_id(value)
        found = await self._patients.resolve((TypedIdentifier(type=id_type, value=value),), budget=budget)
        return found.fhir_id

    async def _by_id(
        self, kind: str, shape: type[_R], ids: Iterable[str], withheld: set[tuple[str, str]], budget: Budget
    ) -> Mapping[str, _R]:
        """Read resources by their ids; of one that the EMR keeps closed, kind and id are added to ``withheld``."""
        wanted = sorted(set(ids))
        parts = [wanted[start : start + PER_SEARCH] for start in range(0, len(wanted), PER_SEARCH)]
        found: dict[str, _R] = {}
        while parts:
            part = parts.pop()
            search = Search(resource_type=kind, parameters=(("_id", ",".join(part)),))
            try:
                resources = (await self._client.search(search, name="roll-call", budget=budget)).resources
            except Restricted:
                if len(part) == 1:
                    withheld.add((kind, part[0]))
                else:
                    # One closed record must not close those that were asked for along with it.
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            found.update(
                {it.id: it for it in resources if isinstance(it, shape) and it.id is not None and it.id in part}
            )
        return found

    def _why_not(
        self,
        person: _Person,
        patient: wire.Patient | None,
        encounter: wire.Encounter | None,
        withheld: set[tuple[str, str]],
    ) -> str | None:
        if ("Patient", person.patient_id) in withheld or ("Encounter", person.encounter_id) in withheld:
            return Restricted.reason
        if patient is None:
            return "unknown-patient"
        if patient.active is False or any(link.get("type") == "replaced-by" for link in patient.link):
            return "merged"
        if patient.deceased_boolean or patient.deceased_date_time:
            return "deceased"
        if person.encounter_id is None:
            return None
        if encounter is None:
            return "unknown-context"
        if read.subject_of(encounter, fhir_base=self._client.base) != person.patient_id:
            return "wrong-patient"
        return None if encounter.status in UNDER_WAY else "discharged"


def _fhir_id(text: str) -> str:
    # Ids are joined by commas: one with a comma in it would ask for somebody else as well.
    if not FHIR_ID.match(text):
        raise MalformedRequest("expected a FHIR id")
    return text


def _rank(candidate: tuple[str, Subject]) -> tuple[str, str]:
    started, subject = candidate
    return started, subject.encounter_id or ""

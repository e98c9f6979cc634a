"""Facts from a FHIR server: what is asked follows from the declaration, and every answer is checked for identity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from deployr_core.facts import Demographics, Encounter, Order, PatientFacts, Sex
from deployr_core.features import FeatureSpec
from deployr_core.packet import FetchRecord, Subject
from deployr_core.patient_groups import PatientGroups
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import Credentials
from deployr_serve.adapters.fhir_about import R, T, all_at_once, by_id, dates_expected, exactly_one, read_about
from deployr_serve.adapters.fhir_elements import preferred_language
from deployr_serve.adapters.fhir_medications import resolve_medications
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.fhir_prefetch import usable
from deployr_serve.adapters.fhir_search import FhirClient, Found, Search
from deployr_serve.adapters.group_reads import GroupFacts, GroupReads
from deployr_serve.adapters.http import origin
from deployr_serve.adapters.lent_token import LentToken
from deployr_serve.adapters.scopes import needed_scopes, require_scopes
from deployr_serve.core.errors import (
    Inconsistent,
    ModelUnavailable,
    ServeError,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.ports import Budget, Clock, FetchedFacts, Handed

__all__ = ["FhirSource", "plan"]

FUTURE = timedelta(minutes=5)
"""How far ahead of our clock the EMR's may be; what is dated later was not measured yet."""
_FOLLOWED = frozenset({"order", "medications"})
"""What may lead to more that has to be asked for, even where it was handed over itself."""


@dataclass(kw_only=True, slots=True)
class _Run:
    """One fetch under way, and what has come of it so far."""

    subject: Subject
    budget: Budget | None
    credentials: Credentials | None = None
    latest: datetime | None = None
    found: dict[str, Found] = field(default_factory=dict)
    medications: dict[str, wire.Medication] = field(default_factory=dict)
    elsewhere: list[GroupFacts] = field(default_factory=list)
    more: list[FetchRecord] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def records(self) -> tuple[FetchRecord, ...]:
        return (*(found.record for found in self.found.values()), *self.more)


class FhirSource:
    """See `deployr_serve.core.ports.FactSource` for what is promised.

    Args:
        client: the server.
        clock: what is dated later than its now is no fact.
        zone: the site's zone, for dates that carry none.
        csn_system: the identifier system of contact serial numbers; None takes the identifier with type text ``CSN``.
        credentials: the client's own; what they are granted is compared with what a model needs. None knows of none.
        group_reads: other ways to some of the groups.
    """

    def __init__(
        self,
        client: FhirClient,
        *,
        clock: Clock,
        zone: tzinfo = UTC,
        csn_system: str | None = None,
        credentials: Credentials | None = None,
        group_reads: tuple[GroupReads, ...] = (),
    ) -> None:
        self._client = client
        self._clock = clock
        self._zone = zone
        self._csn_system = csn_system
        self._credentials = credentials
        self._group_reads = group_reads
        self._elsewhere = frozenset(name for reads in group_reads for name in reads.names)

    async def fetch(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None = None,
        handed: Handed | None = None,
    ) -> FetchedFacts:
        """Fetch everything at once; the first failure ends the others.

        Raises:
            ModelUnavailable: the declaration holds what this source cannot fetch.
            InsufficientScope: the EMR granted less than the declaration needs; nothing was asked of it.
        """
        if names := (*unfetchable(spec), *(name for reads in self._group_reads for name in reads.unreadable(spec))):
            raise ModelUnavailable(f"expected feature groups that can be fetched; these cannot: {', '.join(names)}")
        now = self._clock.now()
        credentials = self._lent(handed)
        granting = credentials or self._credentials
        if granting is not None:
            require_scopes(await granting.granted(budget=budget), needed_scopes(spec, elsewhere=self._elsewhere))
        run = _Run(subject=subject, budget=budget, credentials=credentials, latest=now + FUTURE)
        try:
            return await self._fetched(run, spec, handed or Handed(), as_of=as_of, now=now)
        except ServeError as error:
            error.fetches = (*run.records(), *error.fetches)
            raise

    async def _fetched(
        self, run: _Run, spec: FeatureSpec, handed: Handed, *, as_of: datetime, now: datetime
    ) -> FetchedFacts:
        subject = run.subject
        searches = {"patient": by_id("Patient", subject.patient_id)}
        if subject.encounter_id is not None:
            searches["encounter"] = by_id("Encounter", subject.encounter_id)
        if subject.order_id is not None:
            searches["order"] = by_id("ServiceRequest", subject.order_id)
        planned = plan(spec, patient_id=subject.patient_id, as_of=as_of)
        searches.update({name: search for name, search in planned.items() if name not in self._elsewhere})
        run.found, refused = usable(
            handed.prefetch,
            searches,
            patient_id=subject.patient_id,
            fhir_base=self._client.base,
            now=now,
            version=self._client.version,
        )
        run.dropped.update({f"prefetch.{why}": 1 for why in refused.values()})
        said = run.found.get("patient")
        if said is not None and run.found.keys() != searches.keys():
            # The EMR is asked for the rest anyway, and so also whether it agrees on who this is.
            del run.found["patient"]
        await all_at_once(
            *(self._read_elsewhere(run, reads, spec, as_of=as_of) for reads in self._group_reads),
            *(
                self._searched_and_followed(run, name, search)
                for name, search in searches.items()
                if name not in run.found or name in _FOLLOWED
            ),
        )
        patient = exactly_one(run.found["patient"], wire.Patient, subject.patient_id, missing=UnknownPatient)
        if said is not None:
            _insist_on_agreement(patient, exactly_one(said, wire.Patient, subject.patient_id, missing=UnknownPatient))
        if patient.active is False or any(link.get("type") == "replaced-by" for link in patient.link):
            # Its chart has moved to the record it was merged into: what is left here would pass for "nothing there".
            raise WrongPatient("expected a patient record that is in use, and not merged into another")
        ordered_in = self._encounter_of_order(run)
        encounter = self._encounter(run, subject.encounter_id or ordered_in)
        who = read.demographics(patient, as_of=as_of, dropped=run.dropped)
        facts = self._facts(run, _agreed(who, run.elsewhere))
        for came in run.elsewhere:
            facts = msgspec.structs.replace(facts, **came.facts)
        return FetchedFacts(
            facts=facts,
            encounter=encounter,
            fetches=run.records(),
            dropped=dict(run.dropped),
            oldest_answer_s=max(found.age_s for found in run.found.values()),
            patient_groups=PatientGroups(language=preferred_language(patient)),
        )

    async def _search(self, run: _Run, name: str, search: Search) -> None:
        found = await self._client.search(search, name=name, budget=run.budget, credentials=run.credentials)
        run.found[name] = found
        run.dropped.update(found.dropped)

    async def _searched_and_followed(self, run: _Run, name: str, search: Search) -> None:
        """Search, unless it was handed over, then ask for what the answer leads to, without waiting for the others."""
        if name not in run.found:
            await self._search(run, name, search)
        if name == "order" and run.subject.encounter_id is None:
            ordered_in = self._encounter_of_order(run)
            if ordered_in is not None:
                await self._search(run, "encounter", by_id("Encounter", ordered_in))
        elif name == "medications":
            medications, records = await resolve_medications(
                self._client, run.found[name], budget=run.budget, credentials=run.credentials
            )
            run.more.extend(records)
            run.medications = medications

    async def _read_elsewhere(self, run: _Run, reads: GroupReads, spec: FeatureSpec, *, as_of: datetime) -> None:
        came = await reads.read(run.subject, spec, as_of=as_of, budget=run.budget, dropped=run.dropped)
        run.more.extend(came.records)
        run.elsewhere.append(came)

    def _lent(self, handed: Handed | None) -> LentToken | None:
        if handed is None or handed.token is None:
            return None
        return LentToken(token=handed.token, origins=frozenset({origin(self._client.base)}))

    def _encounter_of_order(self, run: _Run) -> str | None:
        """Check that the order is this patient's and of the encounter that is named; give its encounter's id."""
        subject = run.subject
        if subject.order_id is None:
            return None
        resource = exactly_one(run.found["order"], wire.ServiceRequest, subject.order_id, missing=UnknownContext)
        self._insist(resource, subject.patient_id)
        with dates_expected():
            order = self._order(resource)
        ordered_in = order.encounter_id if order else None
        if None not in {ordered_in, subject.encounter_id} and ordered_in != subject.encounter_id:
            raise WrongPatient("expected an order of the encounter that the request names")
        return ordered_in

    def _encounter(self, run: _Run, encounter_id: str | None) -> Encounter | None:
        if encounter_id is None:
            return None
        resource = exactly_one(run.found["encounter"], wire.Encounter, encounter_id, missing=UnknownContext)
        self._insist(resource, run.subject.patient_id)
        with dates_expected():
            return read.encounter(resource, csn_system=self._csn_system, zone=self._zone)

    def _order(self, resource: wire.ServiceRequest) -> Order | None:
        return read.order(resource, fhir_base=self._client.base, zone=self._zone)

    def _facts(self, run: _Run, who: Demographics) -> PatientFacts:
        """Read all that was found, by the names that `plan` gives its searches."""
        base = self._client.base
        common: dict[str, Any] = {"zone": self._zone, "dropped": run.dropped, "latest": run.latest}
        measured = self._read(run, "vitals", wire.Observation, partial(read.vitals, **common))
        ordered = self._read(run, "orders", wire.ServiceRequest, partial(read.signed_order, fhir_base=base, **common))
        return PatientFacts(
            patient_id=run.subject.patient_id,
            demographics=who,
            labs=self._read(run, "labs", wire.Observation, partial(read.lab, fhir_base=base, **common)),
            diagnoses=self._read(run, "diagnoses", wire.Condition, partial(read.diagnosis, **common)),
            medications=self._read(
                run,
                "medications",
                wire.MedicationRequest,
                partial(read.medication, medications=run.medications, **common),
            ),
            vitals=tuple(chain.from_iterable(measured)),
            procedures=self._read(run, "procedures", wire.Procedure, partial(read.procedure, **common)),
            # A call that comes a moment after the signing must not see the very order that it is about.
            orders=tuple(order for order in ordered if order.fact_id != run.subject.order_id),
            visits=self._read(run, "visits", wire.Encounter, partial(read.visit, **common)),
        )

    def _read(self, run: _Run, name: str, kind: type[R], reader: Callable[[R], T | None]) -> tuple[T, ...]:
        found, patient_id = run.found.get(name), run.subject.patient_id
        base, dropped = self._client.base, run.dropped
        return read_about(found, kind, reader, patient_id=patient_id, fhir_base=base, dropped=dropped)

    def _insist(self, resource: wire.Encounter | wire.ServiceRequest, patient_id: str) -> None:
        if read.subject_of(resource, fhir_base=self._client.base) != patient_id:
            raise WrongPatient("expected an encounter and an order of the patient that the request names")


def _insist_on_agreement(one: wire.Patient, other: wire.Patient) -> None:
    """Return unless both say when the patient was born, or which sex, and say different things.

    Raises:
        Inconsistent: they do.
    """
    pairs = ((one.birth_date, other.birth_date), (one.gender, other.gender))
    if any(first != second for first, second in pairs if first and second):
        raise Inconsistent("expected what was handed over and the EMR to agree on who the patient is")


def _agreed(by_fhir: Demographics, elsewhere: Sequence[GroupFacts]) -> Demographics:
    """Give who the patient is; where it was read in two ways, they must not contradict each other.

    Raises:
        Inconsistent: another birth date or sex.
    """
    read_twice = [came.demographics for came in elsewhere if came.demographics is not None]
    births = {who.birth_date for who in (by_fhir, *read_twice)} - {None}
    sexes = {who.sex for who in (by_fhir, *read_twice)} - {Sex.UNKNOWN}
    if len(births) > 1 or len(sexes) > 1:
        raise Inconsistent("expected one birth date and one sex of this patient, the EMR gives two")
    return read_twice[-1] if read_twice else by_fhir

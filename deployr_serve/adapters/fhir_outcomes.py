"""What has become of a patient, from a FHIR server: for the label rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_about import R, T, all_at_once, by_id, dates_expected, exactly_one, read_about
from deployr_serve.adapters.fhir_plan import at_or_after, lab_search
from deployr_serve.adapters.fhir_search import FhirClient, Found, Search
from deployr_serve.adapters.fhir_source import FUTURE
from deployr_serve.core.errors import ModelUnavailable, UnknownPatient
from deployr_serve.core.outcome_source import OutcomeFacts, OutcomeNeeds
from deployr_serve.core.ports import Budget, Clock

_ORDERS_AT_ONCE = 100
"""How many ids one search names: a server may limit them, and with GET the length of a URL."""


class FhirOutcomes:
    """See `deployr_serve.core.outcome_source.OutcomeSource` for what is promised.

    Args:
        client: the server.
        clock: what is dated later than its now has not happened.
        zone: the site's zone, for dates that carry none.
    """

    def __init__(self, client: FhirClient, *, clock: Clock, zone: tzinfo = UTC) -> None:
        self._client = client
        self._clock = clock
        self._zone = zone

    async def outcomes(self, patient_id: str, needs: OutcomeNeeds, *, budget: Budget | None = None) -> OutcomeFacts:
        """Fetch everything at once; the first failure ends the others.

        Raises:
            UnknownPatient: there is no such patient, or not exactly one.
            ModelUnavailable: whole resources are asked for of a server that is not R4.
        """
        if needs.searches and self._client.version.name != "R4":
            raise ModelUnavailable("expected an R4 server for a fhirpath rule: its expressions are written for R4")
        run = _Run(patient_id, self._client, zone=self._zone, latest=self._clock.now() + FUTURE)
        whole = {
            search.key: Search(
                resource_type=search.resource_type,
                parameters=(("patient", patient_id), *sorted(search.parameters.items())),
            )
            for search in needs.searches
        }
        await all_at_once(
            *(run.search(name, search, budget=budget) for name, search in _searches(patient_id, needs).items()),
            *(run.search(name, search, budget=budget, whole=True) for name, search in whole.items()),
        )
        return run.facts(tuple(whole))


def _searches(patient_id: str, needs: OutcomeNeeds) -> dict[str, Search]:
    searches = {"patient": by_id("Patient", patient_id)}
    if needs.codes:
        searches["labs"] = lab_search(patient_id, needs.codes, needs.since)
    for start in range(0, len(needs.order_ids), _ORDERS_AT_ONCE):
        ids = ",".join(needs.order_ids[start : start + _ORDERS_AT_ONCE])
        searches[f"orders.{start}"] = _of_patient("ServiceRequest", patient_id, _id=ids)
    if needs.stays:
        searches["stays"] = _of_patient("Encounter", patient_id, date=at_or_after(needs.since))
    if needs.diagnoses:
        parameters = {"recorded-date": at_or_after(needs.since)}
        searches["diagnoses"] = _of_patient("Condition", patient_id, **parameters)
    return searches


def _of_patient(resource_type: str, patient_id: str, **parameters: str) -> Search:
    return Search(resource_type=resource_type, parameters=(("patient", patient_id), *parameters.items()))


class _Run:
    """One fetch under way."""

    def __init__(self, patient_id: str, client: FhirClient, *, zone: tzinfo, latest: datetime) -> None:
        self._patient_id = patient_id
        self._client = client
        self._zone = zone
        self._latest = latest
        self._found: dict[str, Found] = {}
        self._dropped: Counter[str] = Counter()

    async def search(self, name: str, search: Search, *, budget: Budget | None, whole: bool = False) -> None:
        self._found[name] = await self._client.search(search, name=name, budget=budget, whole=whole)

    def facts(self, whole: tuple[str, ...]) -> OutcomeFacts:
        patient = exactly_one(self._found["patient"], wire.Patient, self._patient_id, missing=UnknownPatient)
        base, zone, dropped, latest = self._client.base, self._zone, self._dropped, self._latest
        with dates_expected():
            death = read.death(patient, zone=zone)
        orders = [
            order
            for name in self._found
            if name.startswith("orders.")
            for order in self._read(name, wire.ServiceRequest, lambda it: read.order(it, fhir_base=base, zone=zone))
        ]
        labs = self._read(
            "labs",
            wire.Observation,
            lambda it: read.lab(it, fhir_base=base, zone=zone, dropped=dropped, latest=latest),
        )
        stays = self._read("stays", wire.Encounter, lambda it: read.stay(it, zone=zone, dropped=dropped, latest=latest))
        diagnoses = self._read(
            "diagnoses", wire.Condition, lambda it: read.diagnosis(it, zone=zone, dropped=dropped, latest=latest)
        )
        return OutcomeFacts(
            labs=labs,
            orders={order.fact_id: order for order in orders},
            stays=tuple(sorted(stays, key=lambda stay: (stay.began_at, stay.visit_id))),
            diagnoses=diagnoses,
            death=death,
            died_undated=death is None and patient.deceased_boolean is True,
            is_merged=patient.active is False or any(link.get("type") == "replaced-by" for link in patient.link),
            resources={key: self._read(key, wire.Whole, lambda it: it.body) for key in whole},
        )

    def _read(self, name: str, kind: type[R], reader: Callable[[R], T | None]) -> tuple[T, ...]:
        return read_about(
            self._found.get(name),
            kind,
            reader,
            patient_id=self._patient_id,
            fhir_base=self._client.base,
            dropped=self._dropped,
        )

"""All that the EMR holds of a patient, read without codes and dates, so that `deployr parity` can tell causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, tzinfo
from itertools import chain

import msgspec

from deployr_core.facts import Demographics, Diagnosis, Lab, Medication, PatientFacts, Sex, Vital
from deployr_core.features import DiagnosisGroup, FeatureSpec, LabGroup, MedicationGroup, VitalGroup, WindowedGroup
from deployr_dev.parity_facts import Chart
from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_about import R, T, read_about
from deployr_serve.adapters.fhir_elements import effective_of
from deployr_serve.adapters.fhir_medications import resolve_medications
from deployr_serve.adapters.fhir_plan import at_or_after
from deployr_serve.adapters.fhir_search import FhirClient, Found, Search

_NOBODY = Demographics(birth_date=None, sex=Sex.UNKNOWN)
_SOME_DAY = "1900-01-01"
"""Stands where a date is missing: nothing is read from it."""


async def read_chart(client: FhirClient, patient_id: str, spec: FeatureSpec, *, since: datetime, zone: tzinfo) -> Chart:
    """Read a patient's results since an instant, and all diagnoses and medication orders, as far as they are declared.

    Other kinds of facts are searched for by their date alone, so no more would be found.

    Raises:
        ServeError: the EMR did not answer, or with more than can be read.
    """
    reading = _Reading(client, patient_id, spec, zone=zone)
    drawn = ("date", at_or_after(since))
    labs = await reading.found(LabGroup, "Observation", ("category", "laboratory"), drawn)
    vitals = await reading.found(VitalGroup, "Observation", ("category", "vital-signs"), drawn)
    diagnoses = await reading.found(DiagnosisGroup, "Condition")
    orders = await reading.found(MedicationGroup, "MedicationRequest", ("_include", "MedicationRequest:medication"))
    medications: dict[str, wire.Medication] = {}
    if orders is not None:
        medications, _ = await resolve_medications(client, orders)
    dated = PatientFacts(
        patient_id=patient_id,
        demographics=_NOBODY,
        labs=reading.labs(labs, undated=False),
        vitals=reading.vitals(vitals),
        diagnoses=reading.diagnoses(diagnoses, undated=False),
        medications=reading.medications(orders, medications, undated=False),
    )
    undated = PatientFacts(
        patient_id=patient_id,
        demographics=_NOBODY,
        labs=reading.labs(labs, undated=True),
        diagnoses=reading.diagnoses(diagnoses, undated=True),
        medications=reading.medications(orders, medications, undated=True),
    )
    return Chart(facts=dated, undated=undated)


class _Reading:
    """One patient's chart being read; what cannot be a fact is left out, as it is in service."""

    def __init__(self, client: FhirClient, patient_id: str, spec: FeatureSpec, *, zone: tzinfo) -> None:
        self._client = client
        self._patient_id = patient_id
        self._spec = spec
        self._zone = zone
        self._dropped: Counter[str] = Counter()

    async def found(self, kind: type[WindowedGroup], resource_type: str, *parameters: tuple[str, str]) -> Found | None:
        if not any(isinstance(group, kind) for group in self._spec.groups):
            return None
        return await self._client.search(
            Search(resource_type=resource_type, parameters=(("patient", self._patient_id), *parameters))
        )

    def labs(self, found: Found | None, *, undated: bool) -> tuple[Lab, ...]:
        def reader(resource: wire.Observation) -> Lab | None:
            if (resource.issued is None) is not undated:
                return None
            given = msgspec.structs.replace(resource, issued=resource.issued or effective_of(resource))
            return read.lab(given, fhir_base=self._client.base, zone=self._zone, dropped=self._dropped)

        return self._about(found, wire.Observation, reader)

    def vitals(self, found: Found | None) -> tuple[Vital, ...]:
        def reader(resource: wire.Observation) -> tuple[Vital, ...]:
            return read.vitals(resource, zone=self._zone, dropped=self._dropped)

        return tuple(chain.from_iterable(self._about(found, wire.Observation, reader)))

    def diagnoses(self, found: Found | None, *, undated: bool) -> tuple[Diagnosis, ...]:
        def reader(resource: wire.Condition) -> Diagnosis | None:
            if (resource.recorded_date is None) is not undated:
                return None
            given = msgspec.structs.replace(resource, recorded_date=resource.recorded_date or _SOME_DAY)
            return read.diagnosis(given, zone=self._zone, dropped=self._dropped)

        return self._about(found, wire.Condition, reader)

    def medications(
        self, found: Found | None, medications: dict[str, wire.Medication], *, undated: bool
    ) -> tuple[Medication, ...]:
        def reader(resource: wire.MedicationRequest) -> Medication | None:
            if (resource.authored_on is None) is not undated:
                return None
            given = msgspec.structs.replace(resource, authored_on=resource.authored_on or _SOME_DAY)
            return read.medication(given, zone=self._zone, dropped=self._dropped, medications=medications)

        return self._about(found, wire.MedicationRequest, reader)

    def _about(self, found: Found | None, kind: type[R], reader: Callable[[R], T | None]) -> tuple[T, ...]:
        return read_about(
            found,
            kind,
            reader,
            patient_id=self._patient_id,
            fhir_base=self._client.base,
            dropped=self._dropped,
        )

"""Who somebody is, by the vendor's web services: identifiers, demographics, the census of a unit, the location."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from mock_emr.elements import child, codings, each, reference_text
from mock_emr.store import Form, Store, csn_of
from mock_emr.vendor_site import refused

Resource = Mapping[str, Any]

_RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
_ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
_OMB_TITLES = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2135-2": "Hispanic or Latino",
    "2186-5": "Not Hispanic or Latino",
}
ONLY_UNIT = "1"
"""The unit of everybody where the chart names none."""


class PatientIdentifiers:
    """Every identifier of every patient, made from the FHIR id alone unless the chart has one: always the same.

    Source: wire-formats.md section 2, GETPATIENTIDENTIFIERS: the types [seen]; how the ids look [assumed].
    """

    def __init__(self, store: Store) -> None:
        """Number the patients of this chart; the numbers are made when they are first asked for."""
        self._store = store

    def of(self, patient_id: str, *, now: datetime) -> tuple[tuple[str, str], ...]:
        """Give (type, id) of one patient who shows at ``now``, the FHIR id first; none where there is no such."""
        form = self._store.read("Patient", patient_id, now=now)
        return () if form is None else _identifiers(resource_of(form))

    def patient(self, id_type: str, value: str, *, now: datetime) -> str:
        """Give the FHIR id of the patient with this identifier; refuse an unknown type, and an id not of exactly one.

        Source: EPT_ID_RETRIEVAL_ERROR from ADDFLOWSHEETVALUE's recorded errors, wire-formats.md section 3 [seen]; the
        other codes [assumed].
        """
        if id_type == "CSN":
            encounter = self._store.encounter_with_csn(value, now=now)
            holder = None if encounter is None else encounter.patient_id
            found: tuple[str, ...] = () if holder is None else (holder,)
        elif id_type in _TYPES:
            found = self._by_identifier.get((id_type, value), ())
        else:
            raise refused("INVALID-ID-TYPE details: PatientIDType: expected one of the types of this site")
        if not found:
            raise refused("EPT_ID_RETRIEVAL_ERROR details: 2:InvalidRecord:RecordNotFound")
        if len(found) > 1:
            raise refused("MULTIPLE-PATIENTS-FOUND")
        return found[0]

    @cached_property
    def _by_identifier(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for record in self._store.all_of("Patient"):
            patient = resource_of(record.settled)
            for identifier in _identifiers(patient):
                found[identifier] = (*found.get(identifier, ()), str(patient["id"]))
        return found


def resource_of(form: Form) -> Resource:
    """Decode what shows of a resource."""
    decoded: Resource = msgspec.json.decode(form.body)
    return decoded


def identifiers_answer(identifiers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Write the identifiers of one patient. Source: wire-formats.md section 2, GETPATIENTIDENTIFIERS [seen]."""
    return {"Identifiers": [{"ID": value, "IDType": id_type} for id_type, value in identifiers]}


def demographics_of_2010(patient: Resource) -> dict[str, Any]:
    """Write who the patient is, in the shape of 2010: races in one string, carets between them, and no ethnicity.

    Source: wire-formats.md section 2, GETPATIENTDEMOGRAPHICS [seen]; the American way of writing the date [assumed].
    """
    return {
        "DateOfBirth": _american(str(patient.get("birthDate", ""))),
        "Gender": str(patient.get("gender", "unknown")).capitalize(),
        "Race": "^".join(_omb_titles(patient, _RACE)),
    }


def demographics_of_2019(patient: Resource) -> dict[str, Any]:
    """Write who the patient is, in the shape of 2019.

    Source: wire-formats.md section 2, GetPatientDemographics (2019) [seen]; that an ethnicity has a Title, as a race
    has, and that what is unknown is null [assumed].
    """
    ethnicities = _omb_titles(patient, _ETHNICITY)
    return {
        "DateOfBirth": patient.get("birthDate"),
        "LegalSex": {"Title": str(patient.get("gender", "unknown")).capitalize()},
        "Race": [{"Title": title} for title in _omb_titles(patient, _RACE)],
        "Ethnicity": {"Title": ethnicities[0]} if ethnicities else None,
        "NationalIdentifier": None,
        "Email": None,
    }


def census(store: Store, identifiers: PatientIdentifiers, unit_id: str, *, now: datetime) -> dict[str, Any]:
    """Write who lies in a unit at ``now``: patients of inpatient encounters that are under way.

    Source: wire-formats.md section 2, GETCENSUSBYUNIT [seen]; what makes a unit is ours.
    """
    return {
        "BeddedPatients": [
            _bedded(store, identifiers, encounter, now=now)
            for encounter in _stays(store, now=now)
            if unit_of(encounter) == unit_id
        ]
    }


def location_answer(store: Store, patient_id: str, *, now: datetime) -> dict[str, Any]:
    """Write where a patient is at ``now``: nulls for somebody who lies nowhere.

    Source: [assumed]; nobody publishes the answer of GETPATIENTLOCATION.
    """
    for encounter in _stays(store, now=now):
        if encounter["subject"]["reference"].endswith(f"/{patient_id}"):
            return {"UnitID": unit_of(encounter), "RoomAndBedName": f"Bed {csn_of(encounter)}"}
    return {"UnitID": None, "RoomAndBedName": None}


def unit_of(encounter: Resource) -> str:
    """Give the unit of an encounter: the id of the last location that the chart names, else ONLY_UNIT."""
    named = [reference_text(held.get("location")) for held in each(encounter.get("location"))]
    units = [text.partition("/")[2] for text in named if text]
    return units[-1] if units else ONLY_UNIT


def _stays(store: Store, *, now: datetime) -> Iterator[Resource]:
    for record in store.all_of("Encounter"):
        form = record.at(now)
        if form is None or form.patient_id is None:
            continue
        encounter = resource_of(form)
        if encounter.get("status") == "in-progress" and child(encounter, "class").get("code") == "IMP":
            yield encounter


def _bedded(store: Store, identifiers: PatientIdentifiers, encounter: Resource, *, now: datetime) -> dict[str, Any]:
    patient_id = str(encounter["subject"]["reference"]).rpartition("/")[2]
    form = store.read("Patient", patient_id, now=now)
    patient: Resource = {} if form is None else resource_of(form)
    name = next(each(patient.get("name")), {})
    given = [str(part) for part in name.get("given", ())]
    csn = csn_of(encounter)
    return {
        "FirstName": given[0] if given else "",
        "MiddleName": " ".join(given[1:]),
        "LastName": str(name.get("family", "")),
        "Sex": str(patient.get("gender", "unknown")).capitalize(),
        "DateOfBirth": patient.get("birthDate"),
        "RoomAndBedName": f"Bed {csn}",
        "PatientIDs": [{"ID": value, "Type": kind} for kind, value in identifiers.of(patient_id, now=now)],
        "ContactIDs": [{"ID": csn, "Type": "CSN"}] if csn else [],
    }


_TYPES = ("FHIR", "FHIR STU3", "EPI", "INTERNAL", "EXTERNAL", "MRN", "SHCMRN", "MYCHARTLOGIN")


def _identifiers(patient: Resource) -> tuple[tuple[str, str], ...]:
    patient_id = str(patient["id"])
    digest = hashlib.sha256(f"patient:{patient_id}".encode())
    number = f"{int.from_bytes(digest.digest()[:8], 'big') % 10**12:012}"
    mrn = _medical_record_number(patient) or number
    made = {
        "FHIR": patient_id,
        "FHIR STU3": f"T{digest.hexdigest()[:32]}",
        "EPI": f"E{number}",
        "INTERNAL": f"Z{number}",
        "EXTERNAL": f"X{number}",
        "MRN": mrn,
        "SHCMRN": mrn,
        "MYCHARTLOGIN": f"LOGIN{number}",
    }
    return tuple((id_type, made[id_type]) for id_type in _TYPES)


def _medical_record_number(patient: Resource) -> str | None:
    for held in each(patient.get("identifier")):
        if any(code == "MR" for _, code in codings(held.get("type"))) and "value" in held:
            return str(held["value"])
    return None


def _omb_titles(patient: Resource, url: str) -> list[str]:
    return [
        _OMB_TITLES.get(str(child(part, "valueCoding").get("code")), "Other")
        for extension in each(patient.get("extension"))
        if extension.get("url") == url
        for part in each(extension.get("extension"))
        if part.get("url") == "ombCategory"
    ]


def _american(date: str) -> str:
    """Write a whole FHIR date as `3/4/1950`; one that is less precise stays as it is."""
    parts = date.split("-")
    return f"{int(parts[1])}/{int(parts[2])}/{parts[0]}" if len(parts) == 3 else date

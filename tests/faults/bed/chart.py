"""The healthy patient that most rows start from; every identifier and value is a marked one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.faults.bed.rows import filled_in, merged

NAMES = {
    "patient": "CanaryPatient7",
    "encounter": "CanaryEncounter7",
    "order": "CanaryOrder7",
}
CANARIES = {
    "patient id": "CanaryPatient7",
    "encounter id": "CanaryEncounter7",
    "order id": "CanaryOrder7",
    "name": "CanaryName7",
    "record number": "8812997701",
    "contact serial number": "970031415926",
    "birth date": "1951-07-23",
    "result id": "CanaryLab7",
    "result value": "37.13579",
}
REQUEST = {
    "patientId": NAMES["patient"],
    "encounterId": NAMES["encounter"],
    "orderId": NAMES["order"],
    "eventTime": "2015-01-06T20:55:00Z",
}
_SUBJECT = {"subject": {"reference": f"Patient/{NAMES['patient']}"}}

_CHART: dict[str, dict[str, Any]] = {
    "patient": {
        "resourceType": "Patient",
        "id": NAMES["patient"],
        "active": True,
        "name": [{"family": CANARIES["name"]}],
        "identifier": [{"type": {"text": "MRN"}, "value": CANARIES["record number"]}],
        "gender": "female",
        "birthDate": CANARIES["birth date"],
    },
    "encounter": {
        "resourceType": "Encounter",
        "id": NAMES["encounter"],
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        **_SUBJECT,
        "identifier": [{"type": {"text": "CSN"}, "value": CANARIES["contact serial number"]}],
        "period": {"start": "2015-01-06T10:00:00Z"},
    },
    "order": {
        "resourceType": "ServiceRequest",
        "id": NAMES["order"],
        "status": "active",
        "intent": "order",
        "code": {"coding": [{"system": "http://loinc.org", "code": "57021-8"}]},
        **_SUBJECT,
        "encounter": {"reference": f"Encounter/{NAMES['encounter']}"},
        "authoredOn": "2015-01-06T20:55:00Z",
    },
    "lab": {
        "resourceType": "Observation",
        "id": CANARIES["result id"],
        "meta": {"versionId": "1", "lastUpdated": "2015-01-06T19:00:00Z"},
        "status": "final",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "4544-3"}]},
        **_SUBJECT,
        "effectiveDateTime": "2015-01-06T18:00:00Z",
        "issued": "2015-01-06T19:00:00Z",
        "valueQuantity": {
            "value": float(CANARIES["result value"]),
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        },
    },
    "condition": {
        "resourceType": "Condition",
        "id": "condition1",
        "clinicalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
        },
        "verificationStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "confirmed"}]
        },
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/condition-category",
                        "code": "problem-list-item",
                    }
                ]
            }
        ],
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "D50.9"}]},
        **_SUBJECT,
        "recordedDate": "2014-12-01T09:00:00Z",
    },
    "drug": {
        "resourceType": "MedicationRequest",
        "id": "drug1",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {
            "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "310325"}]
        },
        **_SUBJECT,
        "authoredOn": "2014-12-20T09:00:00Z",
    },
}


def chart_of(changes: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Give the healthy chart with a case's changes, by name; ``values`` fill in the texts of the changes."""
    chart = dict(_CHART)
    for name, change in filled_in(changes, values).items():
        if change is None:
            del chart[name]
            continue
        like = change.pop("like", name)
        patch = {"id": f"{name}1", **change} if like != name else change
        chart[name] = merged(chart.get(like, {}), patch)
    return chart

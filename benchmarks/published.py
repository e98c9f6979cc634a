"""The way of working that this bridge replaces: one call after another, each waited for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import requests

from benchmarks.staging import PATIENT
from deployr_core.features import FeatureSpec, LabGroup

CALLS = 35
_COMMON = "/api/epic"
_RESULTS = f"{_COMMON}/2014/Results/Utility/GETPATIENTRESULTCOMPONENTS/ResultComponents"
_USER = {"UserID": "1", "UserIDType": "External"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call: a GET with a query, or a POST with a JSON body."""

    path: str
    query: Mapping[str, str] | None = None
    body: dict[str, Any] | None = None


def published_calls(spec: FeatureSpec) -> tuple[Call, ...]:
    """List the 35 calls that the published code makes for one score, in its order.

    1. identifiers: GET Patient/Identifiers, the FHIR id to the others
    2. demographics: GET Patient/Demographics
    3. to 23. results: POST ResultComponents, once for each of the model's 21 laboratory components
    24. diagnoses: GET Condition, the problem list
    25. medications: GET MedicationRequest
    26. to 35. GET Medication/{id}, one for each medication that the requests named (N+1): here ten, answered 404 after
        the same 50 ms, for these patients' requests carry their codes themselves

    Source: shared design notes, wire-formats.md section 2, Reads [seen]; the number of calls is the one that was
    published, and ten medications are what is left of it.
    """
    patient = {"PatientID": PATIENT, "PatientIDType": "FHIR"}
    searched = {"patient": PATIENT, "_format": "json"}
    calls = [
        Call(path=f"{_COMMON}/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers", query=patient),
        Call(
            path=f"{_COMMON}/2019/PatientAccess/Patient/GetPatientDemographics/Patient/Demographics",
            query=patient,
        ),
        *(
            Call(
                path=_RESULTS,
                body={
                    **patient,
                    **_USER,
                    "NumberDaysToLookBack": 14,
                    "MaxNumberOfResults": 200,
                    "FromInstant": "",
                    "ComponentTypes": [{"Value": name, "Type": "base-name"}],
                },
            )
            for name in _components(spec)
        ),
        Call(path="/api/FHIR/R4/Condition", query={**searched, "category": "problem-list-item"}),
        Call(path="/api/FHIR/R4/MedicationRequest", query={**searched, "_count": "1000"}),
    ]
    medications = (f"bench-medication-{number}" for number in range(CALLS - len(calls)))
    calls += [Call(path=f"/api/FHIR/R4/Medication/{identity}", query={"_format": "json"}) for identity in medications]
    return tuple(calls)


def make_calls(emr: str, calls: Sequence[Call]) -> None:
    """Make the calls in sequence, over one connection that is kept open; what they answer is read and left."""
    with requests.Session() as session:
        session.trust_env = False
        for call in calls:
            method = "GET" if call.body is None else "POST"
            session.request(method, emr + call.path, params=call.query, json=call.body, timeout=30)


def _components(spec: FeatureSpec) -> tuple[str, ...]:
    base_names = json.loads((resources.files("mock_emr") / "base_names.json").read_bytes())
    groups = (group for group in spec.groups if isinstance(group, LabGroup))
    return tuple(base_names[analyte.code] for analyte in next(groups).analytes)

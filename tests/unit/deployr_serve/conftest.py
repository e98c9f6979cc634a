"""FHIR as bytes, and a transport that answers from a script."""

from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.auth_smart import SmartBackend, SmartClient
from deployr_serve.adapters.client_keys import ClientKey, FixedKey
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.http import Response, origin
from deployr_serve.adapters.token_cache import TokenCache
from deployr_serve.core.ports import Budget
from tests.unit.deployr_serve.authority import NEEDED

BASE = "https://emr.example/api/FHIR/R4"


@pytest.fixture
def fhir_base():
    return BASE


class FakeTransport:
    """Answers from ``answer``: a function of the request, or answers in turn, the last one for ever."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.requests = []

    async def send(self, request):
        self.requests.append(request)
        await asyncio.sleep(0)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Response):
            return answer
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(status=200, content_type="application/fhir+json", body=body)


@pytest.fixture
def transport_of():
    return FakeTransport


@pytest.fixture
def status_of():
    """Give a function that makes an answer of this status."""

    def make(status, body=b""):
        return Response(status=status, content_type="text/html", body=body)

    return make


@pytest.fixture
def page_of():
    """Give a function that makes a page of a search."""

    def make(*resources, following=None, total=None, **changes):
        page = {
            "resourceType": "Bundle",
            "type": "searchset",
            "link": [{"relation": "self", "url": f"{BASE}/Observation"}],
            "entry": [{"resource": resource} for resource in resources],
            **changes,
        }
        if following is not None:
            page["link"].append({"relation": "next", "url": following})
        if total is not None:
            page["total"] = total
        return page

    return make


@pytest.fixture
def client_of(clock):
    """Give a function that makes a client of the server that answers so."""

    def make(transport, *, credentials=None, base=BASE, **options):
        return FhirClient(
            base=base, transport=transport, credentials=credentials or NoCredentials(), clock=clock, **options
        )

    return make


@pytest.fixture
def observation():
    """Give a function that makes a hematocrit of 30 % of patient p1; a field given as None is left out."""

    def make(resource_id="lab1", **elements):
        resource = {
            "resourceType": "Observation",
            "id": resource_id,
            "status": "final",
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "4544-3"}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": "2015-01-06T18:55:00Z",
            "issued": "2015-01-06T19:55:00Z",
            "valueQuantity": {"value": 30, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"},
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def vital_sign():
    """Give a function that makes a heart rate of 80 a minute of patient p1; a field given as None is left out."""

    def make(resource_id="v1", **elements):
        resource = {
            "resourceType": "Observation",
            "id": resource_id,
            "status": "final",
            "category": [{"coding": [{"code": "vital-signs"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": "2015-01-06T18:55:00Z",
            "issued": "2015-01-06T18:57:00Z",
            "valueQuantity": {"value": 80, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def blood_pressure(vital_sign):
    """Give a function that makes a blood pressure panel of 120 over 70 of patient p1."""

    def component(code, value):
        quantity = {"value": value, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
        return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": quantity}

    def make(resource_id="bp1", **elements):
        panel = {
            "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
            "valueQuantity": None,
            "component": [component("8480-6", 120), component("8462-4", 70)],
        }
        return vital_sign(resource_id, **{**panel, **elements})

    return make


@pytest.fixture
def procedure():
    """Give a function that makes an appendectomy of patient p1."""

    def make(resource_id="pr1", **elements):
        resource = {
            "resourceType": "Procedure",
            "id": resource_id,
            "status": "completed",
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": "80146002"}]},
            "subject": {"reference": "Patient/p1"},
            "performedPeriod": {"start": "2015-01-05T08:00:00Z", "end": "2015-01-05T09:30:00Z"},
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def condition():
    """Give a function that makes a diagnosis of iron deficiency anaemia on the problem list of patient p1."""

    def make(resource_id="c1", **elements):
        resource = {
            "resourceType": "Condition",
            "id": resource_id,
            "category": [{"coding": [{"code": "problem-list-item"}]}],
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "D50.9"}]},
            "subject": {"reference": "Patient/p1"},
            "recordedDate": "2015-01-05T10:00:00Z",
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def medication_request():
    """Give a function that makes an order of an iron preparation for patient p1."""

    def make(resource_id="m1", **elements):
        resource = {
            "resourceType": "MedicationRequest",
            "id": resource_id,
            "status": "active",
            "intent": "order",
            "medicationCodeableConcept": {
                "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "310325"}]
            },
            "subject": {"reference": "Patient/p1"},
            "authoredOn": "2015-01-05T10:00:00Z",
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def service_request():
    """Give a function that makes the order o1 of patient p1 in encounter e1."""

    def make(resource_id="o1", **elements):
        resource = {
            "resourceType": "ServiceRequest",
            "id": resource_id,
            "status": "active",
            "intent": "order",
            "code": {"coding": [{"system": "http://loinc.org", "code": "57021-8"}]},
            "subject": {"reference": "Patient/p1"},
            "encounter": {"reference": "Encounter/e1"},
            "authoredOn": "2015-01-06T20:55:00Z",
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def encounter():
    """Give a function that makes encounter e1 of patient p1, with contact serial number 42."""

    def make(resource_id="e1", **elements):
        resource = {
            "resourceType": "Encounter",
            "id": resource_id,
            "status": "in-progress",
            "class": {"code": "IMP"},
            "subject": {"reference": "Patient/p1"},
            "identifier": [{"system": "urn:csn", "type": {"text": "CSN"}, "value": "42"}],
            "period": {"start": "2015-01-06T10:00:00Z"},
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def patient():
    """Give a function that makes patient p1, a woman."""

    def make(resource_id="p1", **elements):
        resource = {"resourceType": "Patient", "id": resource_id, "gender": "female", "birthDate": "1950-03-04"}
        return {name: value for name, value in {**resource, **elements}.items() if value is not None}

    return make


@pytest.fixture(scope="session")
def keys():
    """Give a private key of each kind that signs assertions."""
    return {
        "RS384": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
    }


@pytest.fixture
def backend_of(keys, clock, fhir_base):
    """Give a function that makes a SMART client of an authority."""

    def make(authority, *, algorithm="RS384", cache=None, key_id="key-1", keys_from=None, **client):
        key = ClientKey(private=keys[algorithm], key_id=key_id, algorithm=algorithm)
        known = {
            "fhir_base": fhir_base,
            "client_id": "client-1",
            "origins": frozenset({origin(fhir_base)}),
            "needed": NEEDED,
        }
        return SmartBackend(
            SmartClient(**{**known, **client}),
            keys=keys_from or FixedKey(key),
            cache=cache or TokenCache(clock=clock),
            transport=authority,
            clock=clock,
            draw=lambda: 0.5,
        )

    return make


@pytest.fixture
def budget_of(clock):
    """Give a function that makes a budget of so many seconds from now."""

    def make(seconds):
        return Budget(deadline=clock.monotonic() + seconds, correlation_id="c-1")

    return make

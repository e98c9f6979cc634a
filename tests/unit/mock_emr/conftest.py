"""Small FHIR resources for the tests of the mock EMR's pure parts; each shows only what the test is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mock_emr.store import Loaded, Store

Resource = dict[str, Any]


@pytest.fixture
def store_of() -> Callable[..., Store]:
    """Give a function that makes a store of resources."""

    def make(*resources: Resource) -> Store:
        return Store(
            Loaded(resource=resource, raw=msgspec.json.encode(resource), source=f"test: line {number}")
            for number, resource in enumerate(resources, start=1)
        )

    return make


@pytest.fixture
def observation() -> Callable[..., Resource]:
    """Give a function that makes an Observation of patient p1, known at noon UTC unless told otherwise."""

    def make(resource_id: str, *, patient: str = "p1", **elements: Any) -> Resource:
        return {
            "resourceType": "Observation",
            "id": resource_id,
            "status": "final",
            "category": [{"coding": [{"system": "urn:category", "code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0"}]},
            "subject": {"reference": f"Patient/{patient}"},
            "effectiveDateTime": "2015-01-06T11:30:00Z",
            "issued": "2015-01-06T12:00:00Z",
            **elements,
        }

    return make


@pytest.fixture
def encounter() -> Callable[..., Resource]:
    """Give a function that makes a finished Encounter of patient p1 on 6 and 7 January 2015."""

    def make(resource_id: str = "e1", **elements: Any) -> Resource:
        return {
            "resourceType": "Encounter",
            "id": resource_id,
            "status": "finished",
            "class": {"system": "urn:class", "code": "IMP"},
            "subject": {"reference": "Patient/p1"},
            "period": {"start": "2015-01-06T10:00:00Z", "end": "2015-01-07T10:00:00Z"},
            **elements,
        }

    return make


@pytest.fixture
def order() -> Callable[..., Resource]:
    """Give a function that makes a completed ServiceRequest of patient p1 in encounter e1."""

    def make(resource_id: str = "o1", *, resource_type: str = "ServiceRequest", **elements: Any) -> Resource:
        return {
            "resourceType": resource_type,
            "id": resource_id,
            "status": "completed",
            "intent": "order",
            "subject": {"reference": "Patient/p1"},
            "encounter": {"reference": "Encounter/e1"},
            "authoredOn": "2015-01-06T09:00:00Z",
            **elements,
        }

    return make

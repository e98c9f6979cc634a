from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest

Rows = Mapping[str, list[dict[str, Any]]]

TYPES = ("Patient", "Encounter", "Condition", "MedicationRequest", "ServiceRequest", "Observation")


@pytest.mark.parametrize("name", TYPES)
def test_resources_are_strict_r4(fhir: Rows, name: str) -> None:
    model = getattr(import_module(f"fhirclient.models.{name.lower()}"), name)
    # Every distinct set of elements, a few of each: shapes differ, values of one shape do not.
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for resource in fhir[name]:
        shapes.setdefault((*resource, resource.get("status", "")), []).append(resource)

    for resources in shapes.values():
        for resource in resources[:25]:
            assert model(resource, strict=True).as_json() == resource


def test_resource_types_are_those_the_server_serves(fhir: Rows) -> None:
    assert set(fhir) == set(TYPES)
    assert {one["resourceType"] for rows in fhir.values() for one in rows} == set(TYPES)


def test_ids_are_unique_and_legal(fhir: Rows) -> None:
    for rows in fhir.values():
        ids = [one["id"] for one in rows]
        assert len(ids) == len(set(ids))
        # FHIR R4, datatypes, id: letters, digits, - and ., at most 64.
        assert all(len(one) <= 64 and one.replace("-", "").replace(".", "").isalnum() for one in ids)


def test_references_lead_somewhere(fhir: Rows) -> None:
    known = {f"{name}/{one['id']}" for name, rows in fhir.items() for one in rows}
    for rows in fhir.values():
        for one in rows:
            links = [one.get("subject"), one.get("encounter"), *one.get("basedOn", [])]
            assert all(link["reference"] in known for link in links if link)

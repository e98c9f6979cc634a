from __future__ import annotations

from typing import Any

from lxml import etree

from mock_emr.fhir_xml import xml_of
from mock_emr.stu3 import stu3_of

XML = "{http://hl7.org/fhir}"


def test_an_observation_loses_what_stu3_does_not_have() -> None:
    observation = {
        "resourceType": "Observation",
        "id": "l1",
        "encounter": {"reference": "Encounter/e1"},
        "subject": {"reference": "Patient/p1", "display": "who"},
        "interpretation": [{"coding": [{"code": "H"}]}, {"coding": [{"code": "A"}]}],
        "note": [{"text": "hemolysed"}, {"text": "repeated"}],
        "hasMember": [{"reference": "Observation/l2"}],
    }
    assert stu3_of(observation, patient_id="T9") == {
        "resourceType": "Observation",
        "id": "l1",
        "context": {"reference": "Encounter/e1"},
        "subject": {"reference": "Patient/T9", "display": "who"},
        "interpretation": {"coding": [{"code": "H"}]},
        "comment": "hemolysed\nrepeated",
    }
    assert observation["subject"] == {"reference": "Patient/p1", "display": "who"}


def test_a_conditions_states_are_bare_codes() -> None:
    condition: dict[str, Any] = {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": "urn:s", "code": "resolved"}]},
        "verificationStatus": {"coding": []},
        "recordedDate": "2015-01-05",
        "recorder": {"reference": "Practitioner/x"},
    }
    assert stu3_of(condition, patient_id="T9") == {
        "resourceType": "Condition",
        "clinicalStatus": "resolved",
        "verificationStatus": "unknown",
        "assertedDate": "2015-01-05",
    }


def test_xml_has_the_order_of_the_type_and_values_as_attributes() -> None:
    resource = {
        "resourceType": "Observation",
        "valueQuantity": {"value": 1.5, "unit": "mg/dL"},
        "extension": [{"url": "urn:x", "valueBoolean": True}],
        "text": {"status": "generated", "div": "<div>left out</div>"},
        "status": "final",
        "code": {"id": "k", "text": "a < b"},
        "_status": {"id": "left out"},
        "id": "l1",
    }
    root = etree.fromstring(xml_of(resource))
    assert [etree.QName(element).localname for element in root] == [
        "id",
        "extension",
        "status",
        "code",
        "valueQuantity",
    ]
    assert root.find(f"{XML}extension").attrib == {"url": "urn:x"}
    assert root.find(f"{XML}extension/{XML}valueBoolean").get("value") == "true"
    assert root.find(f"{XML}code").attrib == {"id": "k"}
    assert root.find(f"{XML}code/{XML}text").get("value") == "a < b"
    assert root.find(f"{XML}valueQuantity/{XML}value").get("value") == "1.5"

"""One answer of a server: JSON or XML, R4 or STU3, read into the same structs or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.sax.saxutils import quoteattr

import msgspec
import pytest

from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_page import R4, STU3, VERSIONS, decode_answer, decode_page
from deployr_serve.core.errors import EmrTooLarge

# -- JSON


def page_with_value(value):
    head = b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Observation",'
    return head + b'"valueQuantity":{"value":' + value + b"}}}]}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>CANARY</html>",
        b"<Bundle xmlns='http://hl7.org/fhir'/>",
        b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Patient","id":"CANARY"',
        b'{"resourceType":"Bundle","type":"searchset"}CANARY',
        b"null",
        b"[]",
        b'{"type":"searchset"}',
        b'{"resourceType":"Bundle"}',
        b'{"resourceType":"Bundle","type":"history"}',
        b'{"resourceType":"Bundle","type":"batch-response"}',
        b'{"resourceType":"Patient","id":"CANARY"}',
        b'{"resourceType":"Bundle","type":"searchset","entry":[{"fullUrl":"CANARY"}]}',
        b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Practitioner"}}]}',
        b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"id":"CANARY"}}]}',
        page_with_value(b"NaN"),
        page_with_value(b"1e999"),
        b'{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Patient","id":"\xe9"}}]}',
        b'{"resourceType":"Bundle","type":"searchset","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_searchset_is_refused_without_repeating_it(body):
    with pytest.raises(ValueError) as caught:
        decode_page(body)
    assert str(caught.value).startswith("expected")
    assert "CANARY" not in str(caught.value)


def test_a_page_of_more_entries_than_anybody_asked_for_is_refused():
    entry = {"resource": {"resourceType": "Patient", "id": "p1"}}
    body = {"resourceType": "Bundle", "type": "searchset"}
    assert len(decode_page(json.dumps({**body, "entry": [entry] * 5000}).encode()).entry) == 5000
    with pytest.raises(EmrTooLarge, match="at most 5000 entries"):
        decode_page(json.dumps({**body, "entry": [entry] * 5001}).encode())


def test_elements_that_nobody_reads_may_be_anything():
    resource = {"resourceType": "Patient", "id": "p1", "contained": [{"x": [{}]}], "name": 7, "_gender": None}
    body = {"resourceType": "Bundle", "type": "searchset", "entry": [{"fullUrl": "urn:x", "resource": resource}]}
    assert decode_page(json.dumps(body).encode()).entry[0].resource.id == "p1"


def test_no_resource_shows_its_content():
    resource = {"resourceType": "Patient", "id": "CANARY", "birthDate": "CANARY", "link": [{"type": "CANARY"}]}
    body = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": resource}]}
    page = decode_page(json.dumps(body).encode())
    assert "CANARY" not in repr(page) + repr(page.entry) + repr(page.entry[0].resource)


def bundle(*resources, **elements):
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries, **elements}


def as_json(content):
    return json.dumps(content).encode()


def test_a_byte_order_mark_before_the_json_is_passed_over(patient):
    page = decode_page(b"\xef\xbb\xbf" + as_json(bundle(patient())))
    assert [entry.resource.id for entry in page.entry] == ["p1"]


def test_an_operation_outcome_instead_of_a_page_comes_out_as_what_it_is():
    answer = decode_page(b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"login"}]}')
    assert isinstance(answer, wire.OperationOutcome)
    assert answer.issue[0].code == "login"


def test_a_single_resource_is_an_answer_but_no_page(patient):
    assert decode_answer(as_json(patient())).id == "p1"
    with pytest.raises(ValueError, match="got a resource"):
        decode_page(as_json(patient()))


def test_a_value_that_is_text_spoils_no_page(observation):
    page = decode_page(as_json(bundle(observation(valueQuantity={"value": "NaN"}))))
    assert page.entry[0].resource.value_quantity.value == "NaN"


def test_what_a_server_includes_of_a_type_that_nobody_reads_is_left_out(observation):
    strange = {"resource": {"resourceType": "Practitioner", "id": "x"}, "search": {"mode": "include"}}
    content = bundle(observation())
    content["entry"].append(strange)
    assert [entry.resource.id for entry in decode_page(as_json(content)).entry] == ["lab1"]
    for mode in ("match", "outcome"):
        strange["search"]["mode"] = mode
        with pytest.raises(ValueError, match="asked for"):
            decode_page(as_json(content))


def test_a_strange_include_hides_no_other_fault(observation):
    content = bundle(observation(status=7))
    content["entry"].append({"resource": {"resourceType": "Practitioner"}, "search": {"mode": "include"}})
    with pytest.raises(ValueError, match="asked for"):
        decode_page(as_json(content))


# -- XML


def as_xml(content):
    """Write FHIR's JSON as FHIR's XML."""

    def element(name, value):
        if isinstance(value, list):
            return "".join(element(name, item) for item in value)
        if isinstance(value, dict) and "resourceType" in value:
            return f"<{name}>{resource(value)}</{name}>"
        if isinstance(value, dict):
            url = f" url={quoteattr(value['url'])}" if name == "extension" else ""
            inside = "".join(element(key, item) for key, item in value.items() if not (url and key == "url"))
            return f"<{name}{url}>{inside}</{name}>"
        text = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
        return f"<{name} value={quoteattr(str(text))}/>"

    def resource(value, namespace=""):
        kind = value["resourceType"]
        inside = "".join(element(key, item) for key, item in value.items() if key != "resourceType")
        return f"<{kind}{namespace}>{inside}</{kind}>"

    return resource(content, ' xmlns="http://hl7.org/fhir"').encode()


OMB = {"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}}
DRUG = {"resourceType": "Medication", "id": "m", "code": {"coding": [{"system": "urn:rx", "code": "1"}]}}


@pytest.fixture
def everything(
    patient, encounter, service_request, observation, condition, medication_request, procedure, blood_pressure
):
    """Give a Bundle with one of every resource, every kind of element among them."""
    return bundle(
        patient(
            active=True,
            link=[{"type": "replaces", "other": {"reference": "Patient/p0"}}],
            extension=[{"url": "urn:race", "extension": [OMB, OMB]}],
            meta={"versionId": "3", "lastUpdated": "2015-01-06T10:00:00Z"},
        ),
        encounter(),
        service_request(identifier=[{"system": "urn:o", "value": "1 < 2 & \"3\""}]),
        observation(
            interpretation=[{"coding": [{"code": "H"}]}, {"text": "hoch µ"}],
            referenceRange=[{"low": {"value": 35}, "high": {"value": 4.7e1}, "type": {"text": "normal"}}],
            basedOn=[{"reference": "ServiceRequest/o1"}],
            effectiveDateTime=None,
            effectivePeriod={"start": "2015-01-06T18:55:00Z"},
        ),
        blood_pressure(),
        condition(verificationStatus={"coding": [{"code": "confirmed"}]}),
        medication_request(medicationCodeableConcept=None, medicationReference={"reference": "#m"}, contained=[DRUG]),
        procedure(),
        DRUG,
        {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "processing",
                                                        "details": {"coding": [{"code": "4101"}]}}]},
        total=10,
        link=[{"relation": "next", "url": "https://emr.example/api/FHIR/R4/Observation?a=1&b=2"}],
        meta={"lastUpdated": "2015-01-06T10:00:00Z"},
    )  # fmt: skip


def test_xml_and_json_of_the_same_content_are_the_same_page(everything):
    page = decode_page(as_json(everything))
    assert decode_page(as_xml(everything), content_type="application/fhir+xml; charset=utf-8") == page
    assert {type(entry.resource) for entry in page.entry} == set(wire.Read.__args__)


@pytest.mark.parametrize(
    "content_type", ["application/fhir+xml", "application/xml", "text/xml", "application/json", ""]
)
def test_xml_is_known_by_its_type_or_by_its_first_character(patient, content_type):
    body = b"\xef\xbb\xbf\n" + as_xml(bundle(patient()))
    assert decode_page(body, content_type=content_type).entry[0].resource.birth_date == "1950-03-04"


def test_comments_instructions_and_narrative_are_passed_over(patient):
    body = as_xml(bundle(patient())).replace(
        b"<gender",
        b"<!-- x --><?xml-stylesheet href='file:///etc/passwd'?><text><status value='generated'/>"
        b"<div xmlns='http://www.w3.org/1999/xhtml'>x</div></text><gender",
    )
    assert decode_page(body).entry[0].resource.gender == "female"


def test_a_prefix_makes_no_difference_but_another_namespace_does(patient):
    body = as_xml(bundle(patient()))
    prefixed = (
        body.replace(b"</", b"</f:").replace(b"<", b"<f:").replace(b"<f:/f:", b"</f:").replace(b"xmlns=", b"xmlns:f=")
    )
    assert decode_page(prefixed) == decode_page(body)
    with pytest.raises(ValueError):
        decode_page(body.replace(b"http://hl7.org/fhir", b"urn:hl7-org:v3"))


@pytest.mark.parametrize("value", ["NaN", "inf", "5,1", " 5", "5 ", "0x10", "１", "+5", "5.", ".5", "1_000", "05"])
def test_what_is_no_fhir_decimal_is_no_number(observation, value):
    body = as_xml(bundle(observation(valueQuantity={"value": value})))
    came = decode_page(body).entry[0].resource.value_quantity.value
    assert came == value


@pytest.mark.parametrize("value", ["1e999999", "9" * 5000])
def test_a_number_beyond_all_numbers_is_refused_as_in_json(observation, value):
    with pytest.raises(ValueError, match="expected a FHIR searchset"):
        decode_page(as_xml(bundle(observation(valueQuantity={"value": value}))))


@pytest.mark.parametrize("value", ["0.29", "-1", "4.7e1", "1E3", "123456789012345678", "5.10"])
def test_a_decimal_is_the_same_number_in_xml_and_in_json(observation, value):
    content = bundle(observation(valueQuantity={"value": "VALUE"}))
    in_json = decode_page(as_json(content).replace(b'"VALUE"', value.encode())).entry[0].resource.value_quantity.value
    in_xml = decode_page(as_xml(content).replace(b"VALUE", value.encode())).entry[0].resource.value_quantity.value
    assert (in_xml, type(in_xml)) == (in_json, float)


BOMB = b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 9))


@pytest.mark.parametrize(
    "prolog",
    [
        b"<!DOCTYPE Bundle>",
        b'<!DOCTYPE Bundle SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE Bundle [<!ENTITY a0 "CANARY">' + BOMB + b"]>",
        b'<!DOCTYPE Bundle [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE Bundle [<!ENTITY % a SYSTEM "http://127.0.0.1:9/a">%a;]>',
    ],
)
def test_any_doctype_is_refused(patient, prolog):
    with pytest.raises(ValueError, match="DOCTYPE"):
        decode_page(prolog + as_xml(bundle(patient())))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7"])
def test_a_doctype_in_another_encoding_is_refused_as_well(encoding):
    prolog = '<?xml version="1.0"?><!DOCTYPE B [<!ENTITY a "searchset">]>'
    text = prolog + '<Bundle xmlns="http://hl7.org/fhir"><type value="&a;"/></Bundle>'
    with pytest.raises(ValueError):
        decode_page(text.encode(encoding), content_type="application/fhir+xml")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[: len(body) // 2],
        lambda body: body + b"<x/>",
        lambda body: body.replace(b"</Patient>", b"</Patient><Patient/>"),
        lambda body: body.replace(b"<Patient>", b"").replace(b"</Patient>", b""),
        lambda body: body.replace(b"<gender ", b"<gender value='male'/><gender "),
        lambda body: body.replace(b"searchset", b"history"),
        lambda body: body.replace(b"<type value='searchset'/>", b"").replace(b'<type value="searchset"/>', b""),
        lambda body: body.replace(b"Patient", b"Practitioner"),
        lambda body: body.replace(b'value="female"', b'value="\xff"'),
        lambda body: body.replace(b'value="female"', b'value="&nbsp;"'),
        lambda _: b"<a>" * 100_000,
        lambda _: b"<html><body>CANARY</body></html>",
        lambda _: b"",
    ],
)
def test_what_is_no_page_in_xml_is_refused_without_repeating_it(patient, change):
    body = change(as_xml(bundle(patient("CANARY"))))
    with pytest.raises(ValueError) as caught:
        decode_page(body, content_type="application/fhir+xml")
    assert str(caught.value).startswith("expected")
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_strange_includes_and_strange_contained_resources_are_left_out_of_xml_too(medication_request):
    order = medication_request(contained=[{"resourceType": "Practitioner", "id": "x", "active": True}])
    content = bundle(order)
    content["entry"].append({"resource": {"resourceType": "Practitioner"}, "search": {"mode": "include"}})
    [entry] = decode_page(as_xml(content)).entry
    assert [inside.resource_type for inside in entry.resource.contained] == ["Practitioner"]


def test_a_web_page_is_no_fhir_whatever_is_in_it(patient):
    with pytest.raises(ValueError, match="web page"):
        decode_page(as_json(bundle(patient())), content_type="text/html; charset=utf-8")


def test_serving_json_alone_loads_no_xml_library():
    code = (
        "import sys; from deployr_serve.adapters.fhir_page import decode_page; "
        'decode_page(b\'{"resourceType":"Bundle","type":"searchset"}\'); assert \'lxml\' not in sys.modules'
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- STU3


def test_stu3_comes_out_as_r4_would_have_written_it(observation, condition, service_request):
    stu3 = bundle(
        observation(
            interpretation={"coding": [{"code": "H"}]},
            context={"reference": "Encounter/e1"},
            basedOn=[{"reference": "ProcedureRequest/o1"}, {"reference": "https://emr.example/ProcedureRequest/o2"}],
        ),
        condition(recordedDate=None, assertedDate="2015-01-05", clinicalStatus="active", verificationStatus="refuted"),
        service_request(
            resourceType="ProcedureRequest", encounter=None, context={"reference": "Encounter/e1"}, status="cancelled"
        ),
    )
    r4 = bundle(
        observation(
            interpretation=[{"coding": [{"code": "H"}]}],
            basedOn=[{"reference": "ServiceRequest/o1"}, {"reference": "https://emr.example/ServiceRequest/o2"}],
        ),
        condition(recordedDate="2015-01-05", verificationStatus={"coding": [{"code": "refuted"}]}),
        service_request(status="revoked"),
    )
    wanted = decode_page(as_json(r4))
    assert decode_page(as_json(stu3), version=STU3) == wanted
    assert decode_page(as_xml(stu3), version=STU3) == wanted


def test_what_stu3_writes_as_r4_does_is_the_same(everything):
    same = [
        entry
        for entry in everything["entry"]
        if entry["resource"]["resourceType"] not in {"Observation", "Condition", "ServiceRequest"}
    ]
    content = {**everything, "entry": same}
    for body in (as_json(content), as_xml(content)):
        assert decode_page(body, version=STU3) == decode_page(body)


def test_r4_sent_as_stu3_is_refused_where_it_differs(service_request, observation):
    for resource in (service_request(), observation(interpretation=[{"text": "H"}])):
        with pytest.raises(ValueError):
            decode_page(as_json(bundle(resource)), version=STU3)
    with pytest.raises(ValueError):
        decode_page(as_json(bundle(service_request(resourceType="ProcedureRequest"))), version=R4)


def test_there_are_two_versions():
    assert set(VERSIONS) == {"R4", "STU3"}


def test_no_struct_of_either_version_shows_its_content(everything):
    page = decode_page(as_json(everything))
    shown = repr(page) + "".join(repr(entry) + repr(entry.resource) for entry in page.entry)
    assert not any(mark in shown for mark in ("p1", "1950", "lab1", "Patient/"))
    assert msgspec.json.decode(msgspec.json.encode(page.entry[0].resource)) is not None

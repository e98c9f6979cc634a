"""The JSON channel against the fault table, group B: what must be refused, how, and without repeating it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.packet import Subject
from deployr_serve.core.errors import (
    UNEXPECTED,
    MalformedRequest,
    MissingPatient,
    RecordChanged,
    RequestTooLarge,
    ServeError,
    SettingsInvalid,
    UnknownModel,
    UnsupportedMediaType,
)
from deployr_serve.triggers.json_request import (
    MAX_BODY_BYTES,
    parse_group_request,
    parse_json_request,
    render_error,
)
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR
from deployr_serve.triggers.operation_outcome import UNEXPECTED as ANSWER_TO_UNEXPECTED

GOOD = {"patientId": "p1", "eventTime": "2015-01-07T02:40:00+05:45"}
CANARY = "CANARY"


def parse(body, *, model_id="hematocrit", content_type="application/json"):
    return parse_json_request(body, model_id=model_id, content_type=content_type, correlation_id="correlation-1")


def body_of(**changes):
    return json.dumps({**GOOD, **changes}).encode()


# -- what is read


def test_patient_and_event_time_are_enough():
    request = parse(body_of())
    assert request.subject == Subject(patient_id="p1")
    assert request.event_time == datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
    assert request.event_time.tzinfo is UTC
    assert (request.channel, request.model_id, request.idempotency_key) == ("json", "hematocrit", None)
    assert request.correlation_id == "correlation-1"


def test_all_fields_are_read():
    request = parse(body_of(encounterId="e.1", orderId="o-1", idempotencyKey="~key!"))
    assert request.subject == Subject(patient_id="p1", encounter_id="e.1", order_id="o-1")
    assert request.idempotency_key == "~key!"


def test_null_counts_as_not_given():
    request = parse(body_of(encounterId=None, orderId=None, idempotencyKey=None))
    assert request.subject == Subject(patient_id="p1")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"]
)
def test_json_is_recognised_whatever_its_case_and_parameters(content_type):
    assert parse(body_of(), content_type=content_type).subject.patient_id == "p1"


def test_white_space_around_the_object_is_allowed():
    assert parse(b"\r\n\t " + body_of() + b"\n").subject.patient_id == "p1"


@pytest.mark.parametrize("length", [1, 64])
def test_ids_of_1_and_of_64_characters_are_fhir_ids(length):
    assert parse(body_of(patientId="a" * length)).subject.patient_id == "a" * length


def test_a_body_of_exactly_the_limit_is_read():
    body = body_of()
    assert parse(body + b" " * (MAX_BODY_BYTES - len(body))).subject.patient_id == "p1"


@pytest.mark.parametrize(
    ("text", "hour", "minute"),
    [
        ("2015-01-06T20:55:00Z", 20, 55),
        ("2015-01-06T20:55:00-14:00", 10, 55),
        ("2015-01-06T23:59:59.999999999Z", 23, 59),
    ],
)
def test_an_event_time_is_read_with_any_offset_and_fraction(text, hour, minute):
    event_time = parse(body_of(eventTime=text)).event_time
    assert (event_time.hour, event_time.minute) == (hour, minute)


# -- what is refused

NO_JSON = "expected the body to be one JSON object"
NO_UTF8 = "expected a JSON body in UTF-8"
NO_ID = "expected a FHIR id: 1 to 64 of the characters A-Z a-z 0-9 - ."
NO_INSTANT = "eventTime: expected an instant with its offset, such as 2015-01-06T20:55:00-05:00"
NO_SUCH_INSTANT = "eventTime: expected an instant that exists: check the day of the month, hour and offset"
ONLY = "expected only the fields patientId, encounterId, orderId, eventTime, idempotencyKey"
ONCE = "expected each field once"
NO_KEY = "idempotencyKey: expected 1 to 200 visible ASCII characters without spaces"
NO_NUMBER = "expected JSON numbers; NaN and Infinity are none"

BAD_BODIES = {
    # row 29
    "empty": (b"", NO_JSON),
    "truncated": (b'{"patientId":"CANARY","eventT', NO_JSON),
    "trailing garbage": (body_of(patientId="CANARY") + b"CANARY", NO_JSON),
    "two objects": (body_of() + body_of(patientId="CANARY"), NO_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + body_of(patientId="CANARY"), NO_JSON),
    "utf-16": (body_of(patientId="CANARY").decode().encode("utf-16"), NO_UTF8),
    "utf-16 without mark": (body_of(patientId="CANARY").decode().encode("utf-16-le"), NO_JSON),
    "latin-1": ('{"patientId":"CANARYé"}'.encode("latin-1"), NO_UTF8),
    "nul byte": (b'{"patientId":"CANARY\x00"}', NO_JSON),
    "lone surrogate": (b'{"patientId":"CANARY\\ud800","eventTime":"2015-01-06T20:55:00Z"}', NO_ID),
    "lone surrogate in a name": (b'{"patientId\\ud800":"CANARY"}', ONLY),
    "gzip": (b"\x1f\x8b\x08CANARY", NO_UTF8),
    "html": (b"<html>CANARY</html>", NO_JSON),
    "list": (b'["CANARY"]', NO_JSON),
    "text": (b'"CANARY"', NO_JSON),
    "number": (b"31415926", NO_JSON),
    "null": (b"null", NO_JSON),
    "deep nesting": (b"[" * 30_000 + b"]" * 30_000, NO_JSON),
    "deep nesting of objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, NO_JSON),
    # row 30
    "patient twice": (b'{"patientId":"CANARY1","patientId":"CANARY2"}', ONCE),
    "the same patient twice": (b'{"patientId":"CANARY","patientId":"CANARY"}', ONCE),
    "patient twice, once escaped": (b'{"patientId":"CANARY","p\\u0061tientId":"CANARY"}', ONCE),
    "a field twice, further down": (b'{"patientId":{"CANARY":1,"CANARY":2}}', ONCE),
    # row 31
    "NaN": (b'{"patientId":NaN}', NO_NUMBER),
    "Infinity": (b'{"patientId":Infinity}', NO_NUMBER),
    "-Infinity": (b'{"eventTime":-Infinity}', NO_NUMBER),
    "a number beyond floats": (b'{"patientId":1e999,"eventTime":"2015-01-06T20:55:00Z"}', "expected JSON numbers"),
    "an integer of 5000 digits": (b'{"patientId":' + b"7" * 5000 + b"}", NO_JSON),
    # fields
    "no patient": (json.dumps({"eventTime": GOOD["eventTime"]}).encode(), "patientId: " + NO_ID),
    "patient null": (body_of(patientId=None), "the field is missing"),
    "patient empty": (body_of(patientId=""), "patientId: " + NO_ID),
    "patient a number": (body_of(patientId=271828), "patientId: " + NO_ID),
    "patient a list": (body_of(patientId=["CANARY"]), "patientId: " + NO_ID),
    "patient an object": (body_of(patientId={"CANARY": "CANARY"}), "patientId: " + NO_ID),
    "patient true": (body_of(patientId=True), "patientId: " + NO_ID),
    "patient with a slash": (body_of(patientId="CANARY/1"), "patientId: " + NO_ID),
    "patient going up": (body_of(patientId="../CANARY"), "patientId: " + NO_ID),
    "patient with a query": (body_of(patientId="CANARY?_id=1"), "patientId: " + NO_ID),
    "two patients": (body_of(patientId="CANARY,CANARY2"), "patientId: " + NO_ID),
    "patient with a system": (body_of(patientId="urn:x|CANARY"), "patientId: " + NO_ID),
    "patient with a line end": (body_of(patientId="CANARY\n"), "patientId: " + NO_ID),
    "patient in other digits": (body_of(patientId="CANARY١"), "patientId: " + NO_ID),
    "patient of 65 characters": (body_of(patientId="CANARY".ljust(65, "x")), "patientId: " + NO_ID),
    "encounter with a slash": (body_of(encounterId="CANARY/1"), "encounterId: " + NO_ID),
    "encounter a number": (body_of(encounterId=161803), "encounterId: " + NO_ID),
    "order with a slash": (body_of(orderId="CANARY/1"), "orderId: " + NO_ID),
    "order empty": (body_of(orderId=""), "orderId: " + NO_ID),
    "key empty": (body_of(idempotencyKey=""), NO_KEY),
    "key with a space": (body_of(idempotencyKey="CANARY 1"), NO_KEY),
    "key of 201 characters": (body_of(idempotencyKey="CANARY".ljust(201, "x")), NO_KEY),
    "key not ASCII": (body_of(idempotencyKey="CANARYé"), NO_KEY),
    "key a number": (body_of(idempotencyKey=141421), NO_KEY),
    "key false": (body_of(idempotencyKey=False), NO_KEY),
    # row 39
    "unknown field": (body_of(CANARY=1), ONLY),
    "misspelt field": (body_of(encounterID="CANARY"), ONLY),
    "score of the caller's": (body_of(score=0.271828), ONLY),
    "features of the caller's": (body_of(features=["CANARY"]), ONLY),
    # row 43
    "no event time": (json.dumps({"patientId": "CANARY"}).encode(), NO_INSTANT),
    "event time null": (body_of(eventTime=None), NO_INSTANT),
    "event time a number": (body_of(eventTime=1420577700), NO_INSTANT),
    "no offset": (body_of(eventTime="2015-01-06T20:55:00"), NO_INSTANT),
    "date only": (body_of(eventTime="2015-01-06"), NO_INSTANT),
    "no seconds": (body_of(eventTime="2015-01-06T20:55Z"), NO_INSTANT),
    "space for T": (body_of(eventTime="2015-01-06 20:55:00Z"), NO_INSTANT),
    "comma for point": (body_of(eventTime="2015-01-06T20:55:00,5Z"), NO_INSTANT),
    "offset without colon": (body_of(eventTime="2015-01-06T20:55:00+0545"), NO_INSTANT),
    "named zone": (body_of(eventTime="2015-01-06T20:55:00 CANARY"), NO_INSTANT),
    "with a line end": (body_of(eventTime="2015-01-06T20:55:00Z\n"), NO_INSTANT),
    "words": (body_of(eventTime="CANARY"), NO_INSTANT),
    "other digits": (body_of(eventTime="٢٠١٥-01-06T20:55:00Z"), NO_INSTANT),
    "30 February": (body_of(eventTime="2023-02-30T00:00:00Z"), NO_SUCH_INSTANT),
    "month 13": (body_of(eventTime="2015-13-01T00:00:00Z"), NO_SUCH_INSTANT),
    "hour 25": (body_of(eventTime="2015-01-06T25:00:00Z"), NO_SUCH_INSTANT),
    "leap second": (body_of(eventTime="2016-12-31T23:59:60Z"), NO_SUCH_INSTANT),
    "offset of a day": (body_of(eventTime="2015-01-06T20:55:00+24:00"), NO_INSTANT),
    "year 0": (body_of(eventTime="0000-01-01T00:00:00Z"), NO_SUCH_INSTANT),
    "before the calendar": (body_of(eventTime="0001-01-01T00:00:00+14:00"), NO_SUCH_INSTANT),
    "year 1": (body_of(eventTime="0001-01-02T00:00:00Z"), "eventTime: expected an event after the year 1900"),
    "year 1900": (body_of(eventTime="1900-01-01T00:00:00Z"), "eventTime: expected an event after the year 1900"),
}
MARKS = (CANARY, "271828", "161803", "141421", "31415926", "1420577700", "7777", "2023-02-30", "T25:", ":60")


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_answered_400_with_what_was_expected_and_without_what_came(name):
    body, expected = BAD_BODIES[name]
    with pytest.raises(MalformedRequest) as caught:
        parse(body)
    assert expected in str(caught.value)
    answer = render_error(caught.value)
    assert answer.status == 400
    for mark in MARKS:
        assert mark not in str(caught.value)
        assert mark.encode() not in answer.body


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/xml", "application/jsonp", "application/fhir+json", "json"]
)
def test_another_content_type_is_answered_415_unread(content_type):
    with pytest.raises(UnsupportedMediaType) as caught:
        parse(b"\xff not even read", content_type=content_type)
    assert render_error(caught.value).status == 415
    assert "application/json" in str(caught.value)


def test_one_byte_too_many_is_answered_413_unread():
    with pytest.raises(RequestTooLarge) as caught:
        parse(b"\xff" * (MAX_BODY_BYTES + 1))
    assert render_error(caught.value).status == 413
    assert str(MAX_BODY_BYTES) in str(caught.value)


@pytest.mark.parametrize(
    "model_id",
    ["../../etc/passwd", "..%2f", "HCT", "hct\0", "h" * 300, "", "h", "hct-", "-hct", "hct\n", "hct/x", "hct_x", "ħct"],
)
def test_what_could_not_be_a_models_id_is_answered_404_like_any_unknown_model(model_id):
    with pytest.raises(UnknownModel) as caught:
        parse(body_of(), model_id=model_id)
    answer = render_error(caught.value)
    assert answer.status == 404
    from_registry = render_error(UnknownModel("expected the id of a model that is deployed here"))
    assert answer == from_registry


@given(st.binary(max_size=300))
def test_no_bytes_are_answered_with_anything_but_a_request_or_an_error_of_ours(body):
    with contextlib.suppress(ServeError):
        parse(body)


# What is in ids, what is nearly, and what breaks readers.
TEXT = st.text(alphabet="aZ9-._/|,?#: \n\0é١\ud800", max_size=10)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["patientId", "encounterId", "orderId", "eventTime"]), JSON_VALUES))
def test_whatever_is_read_has_fhir_ids_only(fields):
    from deployr_serve.core.request import FHIR_ID

    try:
        request = parse(json.dumps({**GOOD, **fields}).encode())
    except MalformedRequest:
        return
    subject = request.subject
    for value in (subject.patient_id, subject.encounter_id, subject.order_id):
        assert value is None or FHIR_ID.match(value)


def test_a_request_shows_nothing_of_its_patient():
    request = parse(body_of(patientId=CANARY, encounterId=CANARY, orderId=CANARY, idempotencyKey=CANARY))
    assert CANARY not in repr(request)


def test_the_key_tells_a_callers_key_from_the_content():
    assert parse(body_of(idempotencyKey="k")).key == "key:k"
    assert parse(body_of()).key == f"content:{parse(body_of()).digest}"


def test_the_digest_is_over_what_is_asked_and_not_over_who_asks_how_often():
    same = parse(body_of(idempotencyKey="k")).digest
    assert parse(body_of()).digest == same
    assert parse(body_of(eventTime="2015-01-06T20:55:00Z")).digest == same
    others = [
        parse(body_of(patientId="p2")),
        parse(body_of(encounterId="p1")),
        parse(body_of(orderId="p1")),
        parse(body_of(eventTime="2015-01-06T20:55:00.000001Z")),
        parse(body_of(), model_id="albumin"),
    ]
    assert len({same, *(other.digest for other in others)}) == 6


# -- what trials are randomized by


def test_the_context_is_read_and_is_no_part_of_what_is_asked():
    context = {"provider": "dr-1", "department": "4 West"}
    request = parse(body_of(context=context))
    assert request.context == context
    assert request.digest == parse(body_of()).digest
    assert "4 West" not in repr(request)


def test_without_a_context_there_is_none():
    assert parse(body_of()).context == parse(body_of(context=None)).context == {}


@pytest.mark.parametrize(
    "context",
    [
        [],
        "department",
        {"Department": "x"},
        {"department": ""},
        {"department": CANARY * 100},
        {"department": 4},
        {f"name-{number}": "x" for number in range(11)},
    ],
    ids=str,
)
def test_a_context_of_anything_else_is_refused_and_not_repeated(context):
    with pytest.raises(MalformedRequest) as caught:
        parse(body_of(context=context))
    assert str(caught.value).startswith("context: expected")
    assert CANARY not in str(caught.value)


# -- what is answered


def test_the_page_on_connecting_names_every_reason_beside_its_status():
    page = (Path(__file__).parents[3] / "docs" / "connecting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| ([^|]+) \|", page, re.MULTILINE)
    told = {
        (int(status), reason) for some, named in rows for status in some.split(", ") for reason in named.split(", ")
    }
    # An alert's alone; an app that does not start; and what is settled inside.
    never = {MissingPatient, SettingsInvalid, RecordChanged}
    answers = {error.reason: answer for error, answer in ANSWER_OF_ERROR.items() if error not in never}
    answers[UNEXPECTED] = ANSWER_TO_UNEXPECTED
    assert [reason for reason, answer in answers.items() if (answer.status, f"`{reason}`") not in told] == []


# -- groups


def parse_group(body, *, models=("hematocrit", "hemoglobin")):
    return parse_group_request(body, models=models, content_type="application/json", correlation_id="correlation-1")


def test_a_group_is_asked_the_same_thing_model_by_model():
    first, second = parse_group(body_of(idempotencyKey="k1", context={"department": "d1"}))
    assert (first.model_id, second.model_id) == ("hematocrit", "hemoglobin")
    assert (
        dataclasses.replace(second, model_id="hematocrit")
        == first
        == parse(body_of(idempotencyKey="k1", context={"department": "d1"}))
    )


def test_a_group_without_models_is_not_known():
    with pytest.raises(UnknownModel):
        parse_group(body_of(), models=())

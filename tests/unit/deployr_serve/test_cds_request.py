from __future__ import annotations

import json
from datetime import timedelta

import pytest

from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, UnsupportedMediaType, WrongPatient
from deployr_serve.triggers import cds_request
from deployr_serve.triggers.cds_request import parse_hook_call, requests_of
from deployr_serve.triggers.cds_services import Hook, Offer, services_of

BASE = "https://emr.example/fhir"
INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
LABS = '{"resourceType": "Bundle", "entry": [{"x": "labs"}]}'


@pytest.fixture
def services():
    offers = (
        Offer(model_id="hct", label="Hematocrit", panels=("57021-8",), templates={"patient": "P", "labs": "A"}),
        Offer(model_id="plt", label="Platelets", panels=("57021-8",), templates={"patient": "P", "labs": "B"}),
        Offer(model_id="stay", label="Stay", panels=(), templates={"patient": "P"}),
        Offer(model_id="broken", label="broken", panels=None, templates={}),
    )
    return services_of(offers, {"cbc": ("hct", "plt", "stay")})


def draft(**changes):
    order = {
        "resourceType": "ServiceRequest",
        "id": "d1",
        "code": {"coding": [{"system": "http://loinc.org", "code": "57021-8"}]},
    }
    return {**order, **changes}


def call_of(*drafts, hook="order-sign", context=None, **changes):
    said = {
        "userId": "Practitioner/dr1",
        "patientId": "p1",
        "draftOrders": {"resourceType": "Bundle", "entry": [{"resource": one} for one in drafts or (draft(),)]},
        **(context or {}),
    }
    return json.dumps({"hook": hook, "hookInstance": INSTANCE, "context": said, **changes}).encode()


def parsed(service, body, content_type="application/json"):
    return parse_hook_call(body, content_type=content_type, service=service, fhir_base=BASE)


def test_models_of_orders_are_offered_where_orders_are_and_others_elsewhere(services):
    assert {service_id for service_id in services if service_id.startswith(("hct", "stay"))} == {
        "hct-order-select",
        "hct-order-sign",
        "stay-patient-view",
        "stay-encounter-discharge",
    }
    assert [asked.model_id for asked in services["cbc-order-sign"].asked] == ["hct", "plt"]
    assert [services[f"broken-{hook}"].is_listed for hook in Hook] == [False] * 4


def test_what_all_need_alike_is_asked_for_once_and_the_rest_by_model(services):
    assert services["cbc-order-sign"].prefetch == {"patient": "P", "hct-labs": "A", "plt-labs": "B"}
    assert services["hct-order-sign"].prefetch == {"patient": "P", "labs": "A"}


def test_each_model_is_handed_what_was_meant_for_it(services, now):
    body = call_of(prefetch={"patient": None, "hct-labs": {"a": 1}, "plt-labs": {"b": 2}, "other": {}})
    hct, plt = requests_of(parsed(services["cbc-order-sign"], body), event_time=now, correlation_id="c")
    assert hct.handed.prefetch == {"patient": b"null", "labs": b'{"a": 1}'}
    assert plt.handed.prefetch == {"patient": b"null", "labs": b'{"b": 2}'}
    assert hct.idempotency_key == plt.idempotency_key == f"{INSTANCE}:cbc-order-sign"
    assert (hct.subject.order_id, hct.event_time, hct.context) == (None, now, {"provider": "Practitioner/dr1"})


@pytest.mark.parametrize(
    "text",
    [
        f'{{"hook": "order-sign", "prefetch": {{"labs": {LABS}}}, "prefetch": {{"labs": {LABS}}}}}',
        f'{{"hook": "order-sign", "prefetch": {{"labs": {LABS}, "labs": {LABS}}}}}',
        f'{{"hook": "order-sign", "prefetch": {{"labs" : {LABS}}}, "hook": "order-sign"}}',
        '{"hook": "order-sign", "context": {"patientId": "p1", "patientId": "p2"}}',
    ],
)
def test_a_field_that_is_given_twice_is_refused_wherever_it_stands(services, text):
    with pytest.raises(MalformedRequest, match="each field once"):
        parsed(services["hct-order-sign"], text.encode())


def test_what_is_handed_over_and_repeats_elsewhere_is_cut_out_where_it_was_handed_over(services):
    drafts = {"resourceType": "Bundle", "entry": [{"resource": draft()}]}
    call = parsed(
        services["hct-order-sign"], call_of(context={"labs": drafts, "draftOrders": drafts}, prefetch={"labs": drafts})
    )
    assert json.loads(call.prefetch["labs"]) == drafts
    assert call.draft_for("hct").reference == "ServiceRequest/d1"


@pytest.mark.parametrize("between", [":", " : ", "\n:\t", ":" + " " * 200])
def test_what_is_handed_over_is_cut_out_however_it_is_spaced(services, between, monkeypatch):
    read = []
    monkeypatch.setattr(cds_request, "parse_object", lambda body: read.append(body) or json.loads(body))
    body = call_of().removesuffix(b"}") + f', "prefetch": {{"labs"{between}{LABS}}}}}'.encode()
    assert parsed(services["hct-order-sign"], body).prefetch == {"labs": LABS.encode()}
    assert json.loads(read[0])["prefetch"] == {"labs": None}


def test_what_stands_behind_many_of_its_name_is_read_all_the_same(services):
    namesakes = [draft(labs=number) for number in range(100)]
    call = parsed(services["hct-order-sign"], call_of(*namesakes, prefetch={"labs": {"a": 1}}))
    assert (call.prefetch, len(call.drafts)) == ({"labs": b'{"a": 1}'}, 100)


def test_an_order_of_stu3_fires_as_one_of_r4_does_and_a_drug_does_not(services, now):
    service = services["hct-order-sign"]
    for kind, asked in (("ProcedureRequest", 1), ("MedicationRequest", 0)):
        call = parsed(service, call_of(draft(resourceType=kind)))
        assert len(requests_of(call, event_time=now, correlation_id="c")) == asked


def test_a_code_of_another_system_does_not_fire(services, now):
    other = draft(code={"coding": [{"system": "urn:local", "code": "57021-8"}]})
    assert requests_of(parsed(services["hct-order-sign"], call_of(other)), event_time=now, correlation_id="c") == ()


def test_a_discharge_needs_its_encounter_and_a_view_of_the_chart_does_not(services):
    with pytest.raises(MalformedRequest, match="encounterId"):
        parsed(services["stay-encounter-discharge"], call_of(hook="encounter-discharge"))
    assert parsed(services["stay-patient-view"], call_of(hook="patient-view")).drafts == ()


def test_a_lent_token_is_passed_on_and_shown_nowhere(services, now):
    lent = {"access_token": "secret", "token_type": "Bearer", "expires_in": 300, "scope": "s", "subject": "x"}
    call = parsed(services["hct-order-sign"], call_of(fhirServer=f"{BASE}/", fhirAuthorization=lent))
    [request] = requests_of(call, event_time=now, correlation_id="c")
    assert request.handed.token == "secret"
    assert "secret" not in repr(call) + repr(request)


@pytest.mark.parametrize("expires_in", [None, 0, -1, "300", 1.5, True])
def test_a_lent_token_says_for_how_long(services, expires_in):
    lent = {"access_token": "secret", "token_type": "Bearer", "expires_in": expires_in}
    with pytest.raises(MalformedRequest, match="expires_in"):
        parsed(services["hct-order-sign"], call_of(fhirServer=BASE, fhirAuthorization=lent))


def test_a_draft_for_another_patient_refuses_the_call(services):
    with pytest.raises(WrongPatient):
        parsed(services["hct-order-sign"], call_of(draft(subject={"reference": "Patient/p2"})))


def test_what_is_no_json_or_too_much_of_it_is_not_read(services, monkeypatch):
    with pytest.raises(UnsupportedMediaType):
        parsed(services["hct-order-sign"], call_of(), content_type="application/fhir+json")
    monkeypatch.setattr(cds_request, "MAX_BODY_BYTES", 10)
    with pytest.raises(RequestTooLarge):
        parsed(services["hct-order-sign"], call_of())


SKEW = timedelta(minutes=5)
MOMENT = timedelta(seconds=1)


def authored(now, *drafts, service, hook="order-sign", **context):
    return parsed(service, call_of(*drafts, hook=hook, context=context)).event_time(now=now, clock_skew=SKEW)


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(seconds=20), SKEW, -SKEW])
def test_an_order_that_says_when_it_is_signed_is_scored_as_of_then(services, now, ago):
    signed = draft(authoredOn=(now - ago).isoformat())
    assert authored(now, signed, service=services["hct-order-sign"]) == now - ago


@pytest.mark.parametrize("ago", [SKEW + MOMENT, -SKEW - MOMENT, timedelta(days=3)])
def test_a_signing_far_from_now_is_not_believed(services, now, ago):
    assert authored(now, draft(authoredOn=(now - ago).isoformat()), service=services["hct-order-sign"]) == now


@pytest.mark.parametrize("said", [None, "2015-01-06", "2015-01-06T20:54:00", "lately", 1420577640, ["2015"]])
def test_what_is_no_instant_with_its_offset_is_no_signing(services, now, said):
    assert authored(now, draft(authoredOn=said), service=services["hct-order-sign"]) == now


def test_what_is_signed_at_once_is_one_event_as_of_the_last_of_it(services, now):
    first, last = (draft(authoredOn=(now - timedelta(seconds=ago)).isoformat()) for ago in (90, 30))
    other = draft(authoredOn=now.isoformat(), resourceType="MedicationRequest")
    came = [
        authored(now, *drafts, service=services["hct-order-sign"]) for drafts in ((first, last), (last, first, other))
    ]
    assert came == [now - timedelta(seconds=30)] * 2


def test_what_is_only_chosen_has_not_been_signed(services, now):
    chosen = draft(authoredOn=(now - MOMENT).isoformat())
    service = services["hct-order-select"]
    assert authored(now, chosen, service=service, hook="order-select", selections=["ServiceRequest/d1"]) == now

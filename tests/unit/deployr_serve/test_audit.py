"""What is written down of answers, refusals and acts, and what an AuditEvent of it looks like."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from fhirclient.models.auditevent import AuditEvent

from deployr_core.forgetting import derive_patient_hash
from deployr_core.packet import Abstained, Decision, EventKind, Failed, Mode, Rejected
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.audit import (
    Act,
    Call,
    Ending,
    answer_id,
    noting_refusals,
    of_answer,
    of_feedback,
    of_form,
    of_operator,
    of_packet,
    of_refusal,
)
from deployr_serve.core.audit_gaps import fill_gaps
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import CallerNotAllowed, EventInFuture, KeyReused, StoreUnavailable
from deployr_serve.core.infer import infer
from deployr_serve.outputs.audit_event import render_audit_event

KEY = b"0123456789abcdef"
ABOUT = {"by": "caller-1", "channel": "json", "correlation_id": "c1"}
CODES = "http://terminology.hl7.org/CodeSystem"


class Kept:
    """A sink that keeps records in a list."""

    def __init__(self):
        self.records = []

    def record(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    return Kept()


def rendered(record):
    """Render as JSON, read it back by fhirclient's strict model of R4, and give the JSON."""
    event = json.loads(json.dumps(render_audit_event(record, site="stanford", environment="PRD")))
    AuditEvent(event, strict=True)
    return event


def entities(event):
    return {(each["type"]["system"], each["type"]["code"]): each for each in event["entity"]}


# -- records


def test_an_answer_says_who_was_told_what_about_whom_by_which_model(packet_of, now):
    decision = Decision(mode=Mode.LIVE, advise=True, why="advised", policy_sha256="d" * 64)
    outcome = msgspec.structs.replace(packet_of().outcome, decision=decision)
    record = of_answer(packet_of(patient_hash="h1", outcome=outcome), at=now, user="Practitioner/7", **ABOUT)
    assert (record.by, record.user, record.said, record.reason) == ("caller-1", "Practitioner/7", "scored", "advised")
    assert (record.patient_hash, record.packet_id, record.channel) == ("h1", "p01", "json")
    assert (record.model_id, record.model_version, record.bundle_sha256) == ("hematocrit", "1.0.0", "b" * 64)
    assert record.details == {"mode": "live", "advise": "1"}


@pytest.mark.parametrize(
    ("outcome", "said", "ending"),
    [
        (Abstained(reason="sparse"), "abstained", Ending.SUCCESS),
        (Rejected(reason="unknown-patient"), "rejected", Ending.MINOR),
        (Failed(reason="emr-timeout", retryable=True), "failed", Ending.SERIOUS),
    ],
)
def test_what_is_no_score_is_written_down_with_its_reason(packet_of, now, outcome, said, ending):
    record = of_answer(packet_of(outcome=outcome), at=now, **ABOUT)
    assert (record.said, record.reason, record.ending) == (said, outcome.reason, ending)


def test_the_record_of_an_answer_can_be_made_again_from_its_packet(packet_of, now):
    packet = packet_of()
    again = of_packet(packet)
    assert again.audit_id == answer_id("p01", "correlation-1")
    assert again.audit_id != answer_id("p01", "correlation-2")
    assert again == of_answer(packet, at=now, by="", channel="json", correlation_id="correlation-1")


async def test_every_answer_is_written_down_and_a_repeat_for_itself(services_of, request_of, kept):
    services = services_of(audit=kept)
    await infer(request_of(), services)
    await infer(request_of(), services)
    assert [(each.said, each.details.get("replayed")) for each in kept.records] == [("scored", None), ("scored", "1")]
    assert {each.patient_hash for each in kept.records} == {derive_patient_hash(KEY, "p1")}


async def test_what_could_not_be_answered_is_written_down_with_whom_it_was_about(services_of, request_of, kept, now):
    services = services_of(audit=kept)
    with pytest.raises(EventInFuture) as raised:
        await infer(request_of(event_time=now + timedelta(hours=1)), services)
    [record] = kept.records
    assert (record.said, record.reason, record.model_id) == ("refused", "event-in-future", "hematocrit")
    assert record.patient_hash == derive_patient_hash(KEY, "p1")
    assert raised.value.is_audited


async def test_a_model_id_that_is_none_is_not_written_down(services_of, request_of, kept):
    with pytest.raises(Exception):  # noqa: B017 whichever
        await infer(request_of(model_id="canary-patient"), services_of(audit=kept))
    assert [each.model_id for each in kept.records] == [""]


def test_a_call_that_is_refused_is_written_down_once(kept, clock):
    def fail(error, by):
        with noting_refusals(kept, clock=clock, channel="json", correlation_id="c1") as call:
            call.by = by
            raise error

    def call(error, by=""):
        with pytest.raises(type(error)):
            fail(error, by)

    call(CallerRefused("expired"))
    call(CallerNotAllowed("expected a caller that is listed"), by="caller-1")
    call(ValueError("what nobody foresaw"))
    known = KeyReused("expected another key")
    known.is_audited = True
    call(known)
    assert [(each.said, each.reason, each.by, each.ending) for each in kept.records] == [
        ("not-authenticated", "expired", "", Ending.MINOR),
        ("refused", "caller-not-allowed", "caller-1", Ending.MINOR),
        ("failed", "unexpected", "", Ending.SERIOUS),
    ]
    assert all(each.patient_hash == "" for each in kept.records)


# -- as FHIR


def test_an_answer_is_an_audit_event_of_the_pattern_of_a_patients_read(packet_of, now):
    # Required by IHE.BasicAudit.PatientRead: type rest, action R, outcome 0, client and server with who and network,
    # an entity of data with role and what, one of the patient that is a reference to a Patient.
    event = rendered(of_answer(packet_of(patient_hash="h1"), at=now, **ABOUT))
    assert event["meta"]["profile"] == [
        "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PatientRead"
    ]
    assert (event["type"]["code"], event["action"], event["outcome"]) == ("rest", "R", "0")
    assert event["recorded"] == "2015-01-06T20:55:00.000Z"
    assert {"system": "http://hl7.org/fhir/restful-interaction", "code": "read", "display": "read"} in event["subtype"]
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in event["agent"]}
    assert agents["110152"]["who"]["identifier"]["value"] == "caller-1"
    assert agents["110153"]["who"]["identifier"]["value"] == "stanford/PRD"
    assert all(agent["network"] and agent["who"] for agent in agents.values())
    assert [agent["requestor"] for agent in event["agent"]] == [True, False]
    found = entities(event)
    data, patient = found[f"{CODES}/audit-entity-type", "2"], found[f"{CODES}/audit-entity-type", "1"]
    assert data["what"]["identifier"]["value"] == "p01"
    assert data["role"]["code"] == "3"
    assert {each["type"]: each["valueString"] for each in data["detail"]} == {
        "audit-id": answer_id("p01", "c1"),
        "channel": "json",
        "model": "hematocrit",
        "model-version": "1.0.0",
        "bundle-sha256": "b" * 64,
    }
    assert patient["role"] == {"system": f"{CODES}/object-role", "code": "1", "display": "Patient"}
    assert patient["what"] == {
        "type": "Patient",
        "identifier": {"system": "urn:deployr:patient-hash", "value": "h1"},
    }
    request = found["https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId"]
    assert request["what"]["identifier"]["value"] == "c1"


def test_the_user_whom_a_caller_names_is_the_one_who_asked(packet_of, now):
    event = rendered(of_answer(packet_of(patient_hash="h1"), at=now, user="Practitioner/7", **ABOUT))
    assert [agent["requestor"] for agent in event["agent"]] == [False, False, True]
    assert event["agent"][2]["type"]["coding"][0]["code"] == "IRCP"
    assert event["agent"][2]["who"]["identifier"]["value"] == "Practitioner/7"


def test_feedback_is_of_the_pattern_of_a_patients_create_and_its_data_come_from_the_client(packet_of, now):
    call = Call(correlation_id="c1", by="caller-1")
    event = rendered(of_feedback(packet_of(patient_hash="h1"), EventKind.OVERRIDDEN, at=now, call=call, channel="cds"))
    assert event["meta"]["profile"][0].endswith("IHE.BasicAudit.PatientCreate")
    assert (event["action"], event["subtype"][0]["code"], event["outcomeDesc"]) == ("C", "create", "overridden")
    assert [agent["type"]["coding"][0]["code"] for agent in event["agent"]] == ["110153", "110152"]


def test_a_refusal_claims_no_pattern_and_names_nobody(now):
    refusal = CallerRefused("expired")
    event = rendered(of_refusal(refusal, act=Act.INFER, at=now, by="", channel="json", correlation_id="c1"))
    assert "meta" not in event
    assert (event["outcome"], event["outcomeDesc"]) == ("4", "not-authenticated: expired")
    assert event["agent"][0]["who"] == {"display": "not known"}
    assert (f"{CODES}/audit-entity-type", "1") not in entities(event)


@pytest.mark.parametrize("act", [act for act in Act if act not in {Act.INFER, Act.FEEDBACK, Act.FORM}])
def test_every_act_of_an_operator_is_a_valid_audit_event(now, act):
    event = rendered(of_operator(act, at=now, by="ops", said="done", details={"packets": "3"}))
    assert event["type"]["system"] == "http://dicom.nema.org/resources/ontology/DCM"
    assert event["subtype"][0]["code"] == act.value
    assert [agent["requestor"] for agent in event["agent"]] == [False, True]
    destroys = act in {Act.FORGET, Act.PURGE}
    assert (event["action"] == "D") == destroys
    assert any(each["code"] == "destroy" for each in event["subtype"]) == destroys


def test_a_form_is_about_nobody(now):
    event = rendered(of_form("hematocrit", at=now, call=Call(correlation_id="c1"), status=200))
    assert (f"{CODES}/audit-entity-type", "1") not in entities(event)


def test_no_audit_event_holds_an_identity(packet_of, now):
    canaries = {"patient_id": "CANARY-P", "order_id": "CANARY-O"}
    packet = packet_of(patient_hash=derive_patient_hash(KEY, "CANARY-P"), **canaries)
    call = Call(correlation_id="c1", by="caller-1")
    records = [
        of_answer(packet, at=now, **ABOUT),
        of_packet(packet),
        of_feedback(packet, EventKind.SHOWN, at=now, call=call, channel="cds"),
        of_refusal(StoreUnavailable("CANARY"), act=Act.INFER, at=now, patient_hash=packet.patient_hash, **ABOUT),
        of_operator(Act.FORGET, at=now, by="ops", said="erased", patient_hash=packet.patient_hash),
    ]
    text = json.dumps([rendered(record) for record in records])
    assert "CANARY" not in text
    # Not the encounter's contact serial number either, nor the score.
    assert '"42"' not in text
    assert "0.75" not in text


# -- gaps


async def test_answers_whose_records_were_lost_are_written_down_once(packet_of, kept, clock, now):
    store = MemoryStore()
    long_ago = now - timedelta(hours=1)
    for number in (1, 2):
        await store.create(packet_of(f"p0{number}", started_at=long_ago))
    # Too recent: whoever answers it may be about to write it down.
    await store.create(packet_of("p03", started_at=now - timedelta(minutes=1)))
    known = {answer_id("p01", "correlation-1")}

    async def fill():
        return await fill_gaps(
            store=store, records=store, sink=kept, ids_since=lambda _: known, site="test", clock=clock
        )

    assert await fill() == 1
    assert [each.packet_id for each in kept.records] == ["p02"]
    assert await fill() is None
    clock.pass_time(601)
    assert await fill() == 1
    assert [each.packet_id for each in kept.records] == ["p02", "p03"]
    clock.pass_time(601)
    assert await fill() == 0


async def test_the_next_look_begins_where_the_last_one_ended(packet_of, kept, clock, now):
    store, asked = MemoryStore(), []

    async def fill():
        await fill_gaps(
            store=store,
            records=store,
            sink=kept,
            ids_since=lambda since: asked.append(since) or (),
            site="a",
            clock=clock,
        )

    await fill()
    clock.pass_time(1200)
    await fill()
    assert asked == [now - timedelta(days=1), now - timedelta(minutes=5)]

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import Abstained, Decision, EventKind, Failed, Mode, Rejected
from deployr_core.reasons import Reason
from deployr_serve.core.errors import MalformedRequest
from deployr_serve.core.infer import Answer
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.triggers.cds_cards import NO_ADVICE, Cards, card_uuid, packet_id_of, render_cards, suggestion_uuid
from deployr_serve.triggers.cds_feedback import event_of, parse_feedback
from deployr_serve.triggers.cds_request import parse_hook_call
from deployr_serve.triggers.cds_services import Offer, services_of
from tests.functional.deployr_serve.cds_parts import draft, order_sign, validated

PACKET_ID = "p" + "0123456789abcdef" * 2


@pytest.fixture
def call():
    offer = Offer(model_id="hematocrit", label="l", panels=("57021-8",), templates={"patient": "P"})
    service = services_of([offer], {})["hematocrit-order-sign"]
    said = {
        "hook": "order-sign",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": order_sign(draft()),
    }
    body = json.dumps(said).encode()
    return parse_hook_call(body, content_type="application/json", service=service, fhir_base="https://emr.example/fhir")


@pytest.fixture
def answer_of(packet_of):
    """Give a function that makes an answer that advises or not, or has another outcome."""

    def make(*, advise=True, outcome=None, packet_id=PACKET_ID):
        packet = packet_of(packet_id, outcome=outcome)
        if outcome is None:
            decision = Decision(mode=Mode.LIVE, advise=advise, why="advised", policy_sha256="0" * 64)
            scored = msgspec.structs.replace(packet.outcome, decision=decision)
            packet = msgspec.structs.replace(packet, outcome=scored)
        return Answer(packet=packet, replayed=False)

    return make


def rendered(call, *answers, because=(), **advisory):
    words = {"headline": "Score {score}", **advisory}
    content = {"schema_version": 1, "model": "hematocrit", "mode": "live", "threshold": 0.5, "advisory": words}
    policies = Policies(declared={"hematocrit": msgspec.convert(content, Policy)})
    answer = render_cards(answers, policies, cards=Cards(call, policies, because=lambda _: because))
    if answer.status == 200:
        validated(json.loads(answer.body), "response")
    return answer


def card_of(call, answer, **advisory):
    [card] = json.loads(rendered(call, answer, **advisory).body)["cards"]
    return card


def test_no_advice_is_the_same_bytes_whatever_it_means(call, answer_of):
    outcomes = [
        rendered(call, answer_of(advise=False)),
        rendered(call, answer_of(outcome=Abstained(reason="sparse"))),
        rendered(call),
    ]
    assert {(answer.status, answer.body) for answer in outcomes} == {(200, NO_ADVICE)}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Failed(reason="emr-timeout", retryable=True), 412),
        (Failed(reason="insufficient-scope", retryable=False), 412),
        (Failed(reason="model-error", retryable=False), 503),
        (Rejected(reason="unknown-patient"), 422),
        (Failed(reason="unexpected", retryable=False), 500),
    ],
)
def test_a_failure_has_the_status_that_the_specification_gives_it(call, answer_of, outcome, status):
    assert rendered(call, answer_of(outcome=outcome)).status == status


def test_one_failure_of_several_leaves_the_others_cards_and_one_refusal_none(call, answer_of):
    failed = answer_of(outcome=Failed(reason="model-error", retryable=False), packet_id="p" + "1" * 32)
    refused = answer_of(outcome=Rejected(reason="wrong-patient"), packet_id="p" + "2" * 32)
    assert len(json.loads(rendered(call, answer_of(), failed).body)["cards"]) == 1
    assert rendered(call, answer_of(), refused).status == 422


def test_a_card_that_was_prepared_is_told_of_that_very_packet_only_and_made_once(call, answer_of):
    asked = []
    content = {"schema_version": 1, "model": "hematocrit", "mode": "live", "threshold": 0.5}
    policies = Policies(declared={"hematocrit": msgspec.convert({**content, "advisory": {"headline": "H"}}, Policy)})
    cards = Cards(call, policies, because=lambda packet: asked.append(packet) or ())
    prepared, other = answer_of().packet, answer_of().packet
    cards.prepare(prepared)
    assert cards.of(prepared) == cards.of(prepared)
    assert asked == [prepared]
    assert cards.of(other) == cards.of(prepared)
    assert asked[1:] == [other]
    cards.prepare(answer_of(advise=False).packet)
    assert len(asked) == 2


def test_nothing_in_a_card_is_html(call, answer_of):
    card = card_of(
        call,
        answer_of(),
        headline="<b>High</b>",
        detail="<script>x</script> a < b",
        source_label="<i>Lab</i>",
        because=[Reason(concept="x", value=1.0, text="Sodium <img>")],
    )
    assert card["summary"] == "\u2039b\u203aHigh\u2039/b\u203a"
    assert card["detail"] == "&lt;script>x&lt;/script> a &lt; b\n\n- Sodium &lt;img>"


def test_a_cards_id_leads_back_to_its_packet(call, answer_of):
    assert packet_id_of(card_of(call, answer_of())["uuid"]) == PACKET_ID
    assert card_uuid(PACKET_ID) == "01234567-89ab-cdef-0123-456789abcdef"


def test_what_is_suggested_is_about_this_patient_and_this_order(call, answer_of):
    suggestions = [
        {
            "label": "Change it",
            "actions": [
                {"kind": "update", "description": "Later", "resource": {"resourceType": "ServiceRequest"}},
                {"kind": "create", "description": "Ferritin", "resource": {"resourceType": "ServiceRequest"}},
            ],
        }
    ]
    [suggestion] = card_of(call, answer_of(), suggestions=suggestions)["suggestions"]
    update, create = (action["resource"] for action in suggestion["actions"])
    assert (update["id"], update["subject"]) == ("d1", {"reference": "Patient/p1"})
    assert "id" not in create
    assert suggestion["uuid"] == suggestion_uuid(PACKET_ID, 1)


def test_feedback_names_the_suggestions_that_were_taken_up(now):
    told = {
        "card": card_uuid(PACKET_ID),
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": suggestion_uuid(PACKET_ID, 2)}, {"id": suggestion_uuid(PACKET_ID, 1)}],
        "outcomeTimestamp": now.isoformat(),
    }
    [outcome] = parse_feedback(json.dumps({"feedback": [told]}).encode(), content_type="application/json", now=now)
    event = event_of(outcome)
    assert (event.packet_id, event.kind, event.reason) == (PACKET_ID, EventKind.ACCEPTED, "suggestion-1 suggestion-2")


@pytest.mark.parametrize(
    "changes",
    [
        {"card": "abc"},
        {"outcome": "ignored"},
        {"outcomeTimestamp": "2015-01-06"},
        {"outcomeTimestamp": "future"},
        {"outcome": "accepted"},
        {"overrideReason": {"reason": {"code": 7}}},
        {"overrideReason": {"userComment": "x" * 4001}},
    ],
)
def test_feedback_that_is_not_as_specified_is_refused(now, changes):
    if changes.get("outcomeTimestamp") == "future":
        changes = {"outcomeTimestamp": (now + timedelta(minutes=6)).isoformat()}
    told = {"card": card_uuid(PACKET_ID), "outcome": "overridden", "outcomeTimestamp": now.isoformat(), **changes}
    with pytest.raises(MalformedRequest):
        parse_feedback(json.dumps({"feedback": [told]}).encode(), content_type="application/json", now=now)

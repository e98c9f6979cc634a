"""What goes back over HTTP: packets and errors, rendered."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from fhirclient.models.operationoutcome import OperationOutcome

from deployr_core.packet import Abstained, Failed, Received, Rejected
from deployr_serve.core import errors
from deployr_serve.core.infer import Answer
from deployr_serve.triggers.json_request import render_answer, render_error, render_group, render_unexpected
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR, ERROR_OF_REASON, REASON_SYSTEM

STATUS_OF_REASON = {
    "malformed-request": 400,
    "unsupported-media-type": 415,
    "request-too-large": 413,
    "unknown-model": 404,
    "caller-not-allowed": 403,
    "event-in-future": 422,
    "idempotency-key-reused": 409,
    "missing-patient": 422,
    "unknown-patient": 422,
    "forgotten": 410,
    "unknown-context": 422,
    "wrong-patient": 422,
    "emr-unreachable": 503,
    "emr-timeout": 503,
    "ambiguous-patient": 422,
    "emr-bad-response": 503,
    "emr-incomplete": 503,
    "emr-throttled": 503,
    "emr-too-large": 503,
    "insufficient-scope": 503,
    "in-progress": 503,
    "predictor-unavailable": 503,
    "deadline": 503,
    "too-many-requests": 429,
    "store-unavailable": 503,
    "emr-refused": 503,
    "model-unavailable": 503,
    "model-error": 503,
    "settings-invalid": 503,
    "record-changed": 503,
}
RETRY_AFTER = {
    *("emr-unreachable", "emr-timeout", "emr-bad-response", "emr-incomplete", "emr-throttled", "emr-too-large"),
    *("predictor-unavailable", "deadline", "in-progress", "store-unavailable", "too-many-requests"),
    *("emr-refused", "insufficient-scope", "model-unavailable", "model-error", "settings-invalid"),
}
ISSUE_TYPES = {
    # http://hl7.org/fhir/R4/valueset-issue-type.html, all of its codes
    *("invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden"),
    *("suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted"),
    *("too-long", "code-invalid", "extension", "too-costly", "business-rule", "conflict", "transient", "lock-error"),
    *("no-store", "exception", "timeout", "incomplete", "throttled", "informational"),
}


def leaves(kind):
    below = kind.__subclasses__()
    return [leaf for one in below for leaf in leaves(one)] if below else [kind]


def outcome_in(answer):
    """Read the body as strict R4, and give its one issue."""
    assert answer.content_type == "application/fhir+json"
    outcome = OperationOutcome(json.loads(answer.body), strict=True)
    [issue] = outcome.issue
    assert issue.severity == "error"
    assert issue.code in ISSUE_TYPES
    [coding] = issue.details.coding
    assert coding.system == REASON_SYSTEM
    return issue


ANSWERED_AS_ERRORS = [
    kind
    for kind in leaves(errors.ServeError)
    if not issubclass(kind, (errors.Abstain, errors.Undelivered, errors.AlertNotTaken))
]
"""An abstention is no error: it is answered with 200. What became of a delivery or an alert is not answered at all."""


def test_the_table_of_answers_holds_every_leaf_of_the_errors_but_abstentions_and_nothing_else():
    assert set(ANSWER_OF_ERROR) == set(ANSWERED_AS_ERRORS)


def test_every_error_has_a_reason_of_its_own():
    assert len(ERROR_OF_REASON) == len(ANSWER_OF_ERROR)
    assert set(ERROR_OF_REASON) == set(STATUS_OF_REASON)


@pytest.mark.parametrize("kind", ANSWERED_AS_ERRORS, ids=lambda kind: kind.reason)
def test_every_error_becomes_a_valid_operation_outcome_with_its_status_and_reason(kind):
    answer = render_error(kind("expected this and that"))
    assert answer.status == STATUS_OF_REASON[kind.reason]
    issue = outcome_in(answer)
    assert issue.details.coding[0].code == kind.reason
    assert issue.diagnostics == "expected this and that"


@pytest.mark.parametrize("kind", [*leaves(errors.TryLater), *leaves(errors.FixSetup)], ids=lambda kind: kind.reason)
def test_whoever_may_try_later_is_told_when(kind):
    answer = render_error(kind("later"))
    assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (STATUS_OF_REASON[kind.reason], True)


def test_what_has_to_be_repaired_first_is_asked_again_later_than_what_heals_by_itself():
    def wait_s(kind):
        return int(render_error(kind("later")).headers["Retry-After"])

    assert min(map(wait_s, leaves(errors.FixSetup))) > max(map(wait_s, leaves(errors.TryLater)))


@pytest.mark.parametrize("kind", leaves(errors.AskDifferently), ids=lambda k: k.reason)
def test_whoever_would_ask_in_vain_is_not_told_to_ask_again(kind):
    assert "Retry-After" not in render_error(kind("no")).headers


@pytest.mark.parametrize("kind", leaves(errors.AskDifferently), ids=lambda kind: kind.reason)
def test_what_the_caller_must_change_is_a_4xx(kind):
    assert 400 <= render_error(kind("no")).status < 500


def test_a_failure_nobody_foresaw_is_a_500_that_tells_nothing():
    answer = render_unexpected()
    assert answer.status == 500
    issue = outcome_in(answer)
    assert (issue.details.coding[0].code, issue.diagnostics) == ("unexpected", None)


def test_a_score_is_answered_with_its_packet_and_model(packet_of):
    answer = render_answer(Answer(packet=packet_of(), replayed=False))
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.headers == {"X-Packet-Id": "p01"}
    assert json.loads(answer.body) == {
        "status": "scored",
        "packetId": "p01",
        "model": {"id": "hematocrit", "version": "1.0.0", "bundleSha256": "b" * 64},
        "asOf": "2015-01-06T20:55:00Z",
        "score": 0.75,
    }


def test_an_abstention_is_a_200_without_a_score_and_never_a_score_of_zero(packet_of):
    answer = render_answer(Answer(packet=packet_of(outcome=Abstained(reason="sparse")), replayed=False))
    content = json.loads(answer.body)
    assert (answer.status, content["status"], content["reason"], content["score"]) == (200, "abstained", "sparse", None)


@pytest.mark.parametrize(
    "outcome",
    [None, Abstained(reason="sparse"), Rejected(reason="wrong-patient"), Failed(reason="emr-timeout", retryable=True)],
    ids=["scored", "abstained", "rejected", "failed"],
)
def test_a_repeat_has_the_same_status_and_body_and_one_more_header(packet_of, outcome):
    first = render_answer(Answer(packet=packet_of(outcome=outcome), replayed=False))
    again = render_answer(Answer(packet=packet_of(outcome=outcome), replayed=True))
    assert (again.status, again.body, again.content_type) == (first.status, first.body, first.content_type)
    assert again.headers == {**first.headers, "X-Bridge-Replay": "1"}


@pytest.mark.parametrize("reason", [*STATUS_OF_REASON, "unexpected", "of a later version"])
def test_a_failed_packet_is_answered_by_its_reason_and_names_itself(packet_of, reason):
    answer = render_answer(Answer(packet=packet_of(outcome=Failed(reason=reason, retryable=False)), replayed=False))
    assert answer.status == STATUS_OF_REASON.get(reason, 500)
    assert answer.headers["X-Packet-Id"] == "p01"
    assert ("Retry-After" in answer.headers) == (reason in RETRY_AFTER | {"record-changed"})
    issue = outcome_in(answer)
    assert (issue.details.coding[0].code, issue.diagnostics) == (reason, None)


def test_a_packet_that_is_not_finished_is_answered_as_in_progress(packet_of, now):
    answer = render_answer(Answer(packet=packet_of(outcome=Received(lease_until=now + timedelta(1))), replayed=True))
    assert answer.status == 503
    assert outcome_in(answer).details.coding[0].code == "in-progress"


def test_no_answer_names_the_patient_the_encounter_or_the_order(packet_of):
    for outcome in (None, Rejected(reason="wrong-patient"), Failed(reason="emr-timeout", retryable=True)):
        packet = packet_of(outcome=outcome, patient_id="CANARY", order_id="CANARY")
        answer = render_answer(Answer(packet=packet, replayed=False))
        assert b"CANARY" not in answer.body
        assert "CANARY" not in str(answer.headers)
        assert "CANARY" not in repr(answer)


# -- groups


def test_a_group_holds_each_models_own_answer(packet_of):
    answers = {
        "hematocrit": Answer(packet=packet_of(), replayed=True),
        "hemoglobin": Answer(packet=packet_of("p02", outcome=Abstained(reason="sparse")), replayed=False),
        "platelets": Answer(
            packet=packet_of("p03", outcome=Failed(reason="emr-timeout", retryable=True)), replayed=False
        ),
        "sodium": errors.KeyReused("used"),
        "leukocytes": errors.StoreUnavailable("down"),
        "potassium": RuntimeError("CANARY"),
    }
    answer = render_group(answers)
    assert (answer.status, answer.headers, answer.content_type) == (200, {}, "application/json")
    results = json.loads(answer.body)["results"]
    assert results["hematocrit"] == json.loads(render_answer(answers["hematocrit"]).body)
    assert results["hemoglobin"] == json.loads(render_answer(answers["hemoglobin"]).body)
    assert {model: (result["status"], result.get("reason")) for model, result in results.items()} == {
        "hematocrit": ("scored", None),
        "hemoglobin": ("abstained", "sparse"),
        "platelets": ("failed", "emr-timeout"),
        "sodium": ("rejected", "idempotency-key-reused"),
        "leukocytes": ("failed", "store-unavailable"),
        "potassium": ("failed", "unexpected"),
    }
    assert b"CANARY" not in answer.body


def test_a_group_that_got_nothing_has_the_status_and_the_wait_of_its_first_model():
    answer = render_group({"leukocytes": errors.StoreUnavailable("down"), "sodium": errors.KeyReused("used")})
    assert (answer.status, set(answer.headers)) == (503, {"Retry-After"})
    assert set(json.loads(answer.body)["results"]) == {"leukocytes", "sodium"}


def test_a_group_is_a_repeat_where_each_of_its_answers_is(packet_of):
    def headers(*replayed):
        answers = [Answer(packet=packet_of(), replayed=each) for each in replayed]
        return render_group({f"m{number}": answer for number, answer in enumerate(answers)}).headers

    assert headers(True, True) == {"X-Bridge-Replay": "1"}
    assert headers(True, False) == {}

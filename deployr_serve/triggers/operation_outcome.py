"""Errors as FHIR OperationOutcomes: one table from error class to status, issue type and words.

Source: http://hl7.org/fhir/R4/operationoutcome.html; issue types: http://hl7.org/fhir/R4/valueset-issue-type.html.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from deployr_serve.core import errors

REASON_SYSTEM = "urn:deployr:reason"


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorAnswer:
    """How one class of error is answered over HTTP. ``retry_after_s``: when asking again makes sense; None if never."""

    status: int
    issue_type: str
    text: str
    retry_after_s: int | None = None


_AFTER_REPAIR_S = 300
"""Somebody has to see to it first; a client that asks again at once only makes noise."""
_TRY_LATER = "Nothing was scored and nothing was lost; the same request may be sent again."

ANSWER_OF_ERROR: dict[type[errors.ServeError], ErrorAnswer] = {
    errors.MalformedRequest: ErrorAnswer(status=400, issue_type="invalid", text="The request is not as expected."),
    errors.UnsupportedMediaType: ErrorAnswer(
        status=415, issue_type="not-supported", text="Send the body as application/json."
    ),
    errors.RequestTooLarge: ErrorAnswer(
        status=413, issue_type="too-long", text="Send a smaller body; how small, the diagnostics say."
    ),
    errors.UnknownModel: ErrorAnswer(status=404, issue_type="not-found", text="No such model is deployed here."),
    errors.CallerNotAllowed: ErrorAnswer(
        status=403, issue_type="forbidden", text="This caller may not ask here; the app's operator lists who may."
    ),
    errors.EventInFuture: ErrorAnswer(
        status=422, issue_type="business-rule", text="The event time lies in the future by this app's clock."
    ),
    errors.KeyReused: ErrorAnswer(
        status=409, issue_type="conflict", text="This idempotency key was used before, for another request."
    ),
    errors.MissingPatient: ErrorAnswer(
        status=422, issue_type="required", text="The document names no patient by an identifier that is known here."
    ),
    errors.UnknownPatient: ErrorAnswer(
        status=422, issue_type="not-found", text="The EMR knows no single patient by this id."
    ),
    errors.Forgotten: ErrorAnswer(
        status=410, issue_type="deleted", text="This was asked before, and erased on demand; it is not answered again."
    ),
    errors.AmbiguousPatient: ErrorAnswer(
        status=422, issue_type="multiple-matches", text="The identifiers do not lead to exactly one patient."
    ),
    errors.UnknownContext: ErrorAnswer(
        status=422, issue_type="not-found", text="The EMR does not know this encounter or order."
    ),
    errors.WrongPatient: ErrorAnswer(
        status=422, issue_type="business-rule", text="The encounter, the order or a fact belongs to another patient."
    ),
    errors.EmrUnreachable: ErrorAnswer(
        status=503, issue_type="transient", text=f"The EMR is not available. {_TRY_LATER}", retry_after_s=5
    ),
    errors.EmrTimeout: ErrorAnswer(
        status=503, issue_type="timeout", text=f"The EMR did not answer in time. {_TRY_LATER}", retry_after_s=5
    ),
    errors.EmrThrottled: ErrorAnswer(
        status=503, issue_type="throttled", text=f"The EMR asks for fewer requests. {_TRY_LATER}", retry_after_s=15
    ),
    errors.EmrTooLarge: ErrorAnswer(
        status=503,
        issue_type="too-costly",
        text=f"The EMR's answer is larger than this app reads. {_TRY_LATER}",
        retry_after_s=60,
    ),
    errors.EmrIncomplete: ErrorAnswer(
        status=503,
        issue_type="incomplete",
        text=f"The EMR gave a part of the record only. {_TRY_LATER}",
        retry_after_s=30,
    ),
    errors.EmrBadResponse: ErrorAnswer(
        status=503,
        issue_type="transient",
        text=f"The EMR answered something that is not complete FHIR. {_TRY_LATER}",
        retry_after_s=30,
    ),
    errors.PredictorUnavailable: ErrorAnswer(
        status=503,
        issue_type="transient",
        text=f"The model answers elsewhere, and did not. {_TRY_LATER}",
        retry_after_s=5,
    ),
    errors.DeadlinePassed: ErrorAnswer(
        status=503, issue_type="timeout", text="The score came too late; it was not used.", retry_after_s=2
    ),
    errors.InProgress: ErrorAnswer(
        status=503, issue_type="transient", text="The same request is being answered right now.", retry_after_s=2
    ),
    errors.TooManyRequests: ErrorAnswer(
        status=429, issue_type="throttled", text="This caller asks too often; nothing was scored.", retry_after_s=1
    ),
    errors.StoreUnavailable: ErrorAnswer(
        status=503,
        issue_type="no-store",
        text="The evidence could not be stored, so no score is given; send the same request again.",
        retry_after_s=5,
    ),
    errors.EmrRefused: ErrorAnswer(
        status=503,
        issue_type="security",
        text="The EMR refuses this app; its operator has to see to it.",
        retry_after_s=_AFTER_REPAIR_S,
    ),
    errors.InsufficientScope: ErrorAnswer(
        status=503,
        issue_type="forbidden",
        text="The EMR grants this app fewer scopes than the model needs; its operator has to see to it.",
        retry_after_s=_AFTER_REPAIR_S,
    ),
    errors.ModelUnavailable: ErrorAnswer(
        status=503,
        issue_type="exception",
        text="The model's bundle may not be used; its operator has to see to it.",
        retry_after_s=_AFTER_REPAIR_S,
    ),
    errors.ModelError: ErrorAnswer(
        status=503,
        issue_type="exception",
        text="The model failed on this request; its operator has to see to it.",
        retry_after_s=_AFTER_REPAIR_S,
    ),
    errors.SettingsInvalid: ErrorAnswer(
        status=503,
        issue_type="exception",
        text="The app is not set up; its operator has to see to it.",
        retry_after_s=_AFTER_REPAIR_S,
    ),
    errors.RecordChanged: ErrorAnswer(
        status=503, issue_type="conflict", text="The record was changed meanwhile; ask again.", retry_after_s=2
    ),
}
UNEXPECTED = ErrorAnswer(status=500, issue_type="exception", text="The app failed; its log has the correlation id.")
ERROR_OF_REASON = {error.reason: error for error in ANSWER_OF_ERROR}


def render_operation_outcome(answer: ErrorAnswer, *, reason: str, detail: str | None = None) -> bytes:
    """Render the answer's body. ``detail`` says what was expected; it must hold nothing that came in."""
    issue = {
        "severity": "error",
        "code": answer.issue_type,
        "details": {"coding": [{"system": REASON_SYSTEM, "code": reason}], "text": answer.text},
    }
    if detail:
        issue["diagnostics"] = detail
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})

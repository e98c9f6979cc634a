"""The JSON channel: ``POST /api/models/{model}/infer`` and ``/api/groups/{group}/infer``; bytes in, bytes out.

Its callers are systems. They get the score in every mode, and nothing of what was decided about it: no arm, no mode, no
word of whether anybody is advised. A system that shows scores to clinicians must ask by a channel that gives advice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployr_core.bundle import MODEL_ID
from deployr_core.instants import parse_instant
from deployr_core.packet import Abstained, Failed, InferencePacket, Received, Rejected, Scored, Subject
from deployr_serve.core import errors
from deployr_serve.core.errors import (
    AskDifferently,
    InProgress,
    MalformedRequest,
    RequestTooLarge,
    ServeError,
    UnknownModel,
    UnsupportedMediaType,
)
from deployr_serve.core.infer import Answer
from deployr_serve.core.policy import NAME
from deployr_serve.core.request import FHIR_ID, IDEMPOTENCY_KEY, InferenceRequest
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.triggers.operation_outcome import (
    ANSWER_OF_ERROR,
    ERROR_OF_REASON,
    UNEXPECTED,
    ErrorAnswer,
    render_operation_outcome,
)

CHANNEL = "json"
MAX_BODY_BYTES = 64 * 1024
EARLIEST_YEAR = 1900
"""What EMRs fill in where they know no date; windows that look back from before it would leave the calendar."""
_FIELDS = ("patientId", "encounterId", "orderId", "eventTime", "idempotencyKey", "context")
MAX_CONTEXT, MAX_CONTEXT_TEXT = 10, 200
_FHIR_ID_TEXT = "a FHIR id: 1 to 64 of the characters A-Z a-z 0-9 - ."


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAnswer:
    """What goes back over HTTP."""

    status: int
    body: bytes = field(repr=False)
    content_type: str
    headers: dict[str, str]


def parse_json_request(
    body: bytes, *, model_id: str, content_type: str | None, correlation_id: str
) -> InferenceRequest:
    """Read a request.

    The body is one JSON object in UTF-8 with the fields ``patientId`` and ``eventTime`` (RFC 3339 with its offset),
    and optionally ``encounterId``, ``orderId``, ``idempotencyKey`` and ``context``, an object of what trials are
    randomized by, such as ``provider`` and ``department``. Any other field is refused: a misspelt ``encounterId``
    would silently switch off the check that it is this patient's. So is a field given twice: two readers would take
    two different patients from it.

    Raises:
        UnknownModel: the id could not be a model's.
        UnsupportedMediaType, RequestTooLarge: not read at all.
        MalformedRequest: the message names the field and what was expected there.
    """
    if not MODEL_ID.match(model_id):
        raise UnknownModel("expected the id of a model that is deployed here")
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("expected Content-Type: application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    fields = _object(body)
    if set(fields) - set(_FIELDS):
        raise MalformedRequest(f"expected only the fields {', '.join(_FIELDS)}")
    patient_id = _fhir_id(fields, "patientId")
    if patient_id is None:
        raise MalformedRequest(f"patientId: expected {_FHIR_ID_TEXT}; the field is missing")
    key = fields.get("idempotencyKey")
    if key is not None and not (isinstance(key, str) and IDEMPOTENCY_KEY.match(key)):
        raise MalformedRequest("idempotencyKey: expected 1 to 200 visible ASCII characters without spaces")
    event_time = fields.get("eventTime")
    if not isinstance(event_time, str):
        raise MalformedRequest("eventTime: expected an instant with its offset, such as 2015-01-06T20:55:00-05:00")
    try:
        instant = parse_instant(event_time)
    except ValueError as error:
        raise MalformedRequest(f"eventTime: {error}") from None
    if instant.year <= EARLIEST_YEAR:
        raise MalformedRequest(f"eventTime: expected an event after the year {EARLIEST_YEAR}")
    return InferenceRequest(
        channel=CHANNEL,
        model_id=model_id,
        subject=Subject(
            patient_id=patient_id,
            encounter_id=_fhir_id(fields, "encounterId"),
            order_id=_fhir_id(fields, "orderId"),
        ),
        event_time=instant,
        idempotency_key=key,
        correlation_id=correlation_id,
        context=_context(fields),
    )


def parse_group_request(
    body: bytes, *, models: Sequence[str], content_type: str | None, correlation_id: str
) -> tuple[InferenceRequest, ...]:
    """Read a request to a group: the same body, asked of each of its models.

    Raises:
        UnknownModel: there is no model in that group.
        UnsupportedMediaType, RequestTooLarge, MalformedRequest: as for one model.
    """
    if not models:
        raise UnknownModel("expected the name of a group that models are deployed in")
    first = parse_json_request(body, model_id=models[0], content_type=content_type, correlation_id=correlation_id)
    return tuple(dataclasses.replace(first, model_id=model) for model in models)


def render_answer(answer: Answer) -> HttpAnswer:
    """Render a terminal packet: 200 for a score or an abstention, an OperationOutcome for the rest.

    A repeat gets the same body as the first answer, with the header ``X-Bridge-Replay: 1``.
    """
    packet = answer.packet
    headers = {"X-Packet-Id": packet.packet_id, **({"X-Bridge-Replay": "1"} if answer.replayed else {})}
    match packet.outcome:
        case Scored() | Abstained():
            return _ok(_content(packet), headers)
        case Rejected(reason=reason) | Failed(reason=reason):
            error = ERROR_OF_REASON.get(reason)
            return _error(ANSWER_OF_ERROR[error] if error else UNEXPECTED, reason=reason, detail=None, headers=headers)
        case Received():
            return render_error(InProgress("expected a terminal packet"))


def render_group(answers: Mapping[str, Answer | Exception]) -> HttpAnswer:
    """Render the answers of a group by model: an object with a result for each, as it would be for that model alone.

    What failed or was refused is there with its reason. The status is 200 if anything was scored or abstained on, else
    that of the first model. ``X-Bridge-Replay: 1``: all of them were answered before.
    """
    alone = {model: _rendered(answer) for model, answer in answers.items()}
    best = next((each for each in alone.values() if each.status == 200), next(iter(alone.values())))
    headers = {name: text for name, text in best.headers.items() if name == "Retry-After"}
    if all(isinstance(answer, Answer) and answer.replayed for answer in answers.values()):
        headers["X-Bridge-Replay"] = "1"
    content = {"results": {model: _result(answer) for model, answer in answers.items()}}
    body = msgspec.json.encode(content)
    return HttpAnswer(status=best.status, body=body, content_type="application/json", headers=headers)


def render_error(error: ServeError) -> HttpAnswer:
    """Render an error that left no packet."""
    return _error(ANSWER_OF_ERROR[type(error)], reason=error.reason, detail=str(error), headers={})


def render_unexpected() -> HttpAnswer:
    """Render a failure that nobody foresaw: nothing of it goes out."""
    return _error(UNEXPECTED, reason=errors.UNEXPECTED, detail=None, headers={})


def _rendered(answer: Answer | Exception) -> HttpAnswer:
    if isinstance(answer, Answer):
        return render_answer(answer)
    return render_error(answer) if isinstance(answer, ServeError) else render_unexpected()


def _result(answer: Answer | Exception) -> dict[str, object]:
    if isinstance(answer, Answer):
        return _content(answer.packet)
    if isinstance(answer, ServeError):
        return {"status": "rejected" if isinstance(answer, AskDifferently) else "failed", "reason": answer.reason}
    return {"status": "failed", "reason": errors.UNEXPECTED}


def _content(packet: InferencePacket) -> dict[str, object]:
    match packet.outcome:
        case Scored(score=score, outputs=outputs, value_unit=unit):
            several = {"outputs": outputs} if outputs else {}
            measured = {} if unit is None else {"unit": unit}
            return {**_about(packet, "scored"), "score": score, **measured, **several}
        case Abstained(reason=reason):
            return {**_about(packet, "abstained"), "reason": reason, "score": None}
        case Rejected(reason=reason):
            return {**_about(packet, "rejected"), "reason": reason}
        case Failed(reason=reason):
            return {**_about(packet, "failed"), "reason": reason}
        case Received():
            return {"status": "failed", "reason": InProgress.reason}


def _about(packet: InferencePacket, status: str) -> dict[str, object]:
    model = packet.model
    return {
        "status": status,
        "packetId": packet.packet_id,
        "model": {"id": model.model_id, "version": model.version, "bundleSha256": model.bundle_sha256},
        "asOf": packet.as_of,
    }


def _ok(content: dict[str, object], headers: dict[str, str]) -> HttpAnswer:
    return HttpAnswer(status=200, body=msgspec.json.encode(content), content_type="application/json", headers=headers)


def _error(answer: ErrorAnswer, *, reason: str, detail: str | None, headers: dict[str, str]) -> HttpAnswer:
    if answer.retry_after_s is not None:
        headers = {**headers, "Retry-After": str(answer.retry_after_s)}
    return HttpAnswer(
        status=answer.status,
        body=render_operation_outcome(answer, reason=reason, detail=detail),
        content_type="application/fhir+json",
        headers=headers,
    )


def _fhir_id(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not FHIR_ID.match(value):
        raise MalformedRequest(f"{name}: expected {_FHIR_ID_TEXT}")
    return value


def _context(fields: dict[str, Any]) -> dict[str, str]:
    context = fields.get("context")
    if context is None:
        return {}
    if not isinstance(context, dict) or len(context) > MAX_CONTEXT:
        raise MalformedRequest(f"context: expected an object of at most {MAX_CONTEXT} names and texts")
    for name, text in context.items():
        if not (NAME.match(name) and isinstance(text, str) and 1 <= len(text) <= MAX_CONTEXT_TEXT):
            raise MalformedRequest(
                f"context: expected names such as department, and texts of 1 to {MAX_CONTEXT_TEXT} characters"
            )
    return context


def _object(body: bytes) -> dict[str, Any]:
    try:
        return parse_object(body)
    except NotOneObject as error:
        raise MalformedRequest(str(error)) from None

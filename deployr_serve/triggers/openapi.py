"""``GET /api/openapi.json``: the JSON routes as OpenAPI, made of the very tables and patterns that the parsers use.

Of the deployed models nothing is said: the document is the same everywhere, and anybody may read it.

Source: https://spec.openapis.org/oas/v3.1.0.html.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from deployr_core.bundle import MODEL_ID
from deployr_core.coverage import Shortfall
from deployr_serve.core import errors
from deployr_serve.core.decide import SWITCHED_OFF
from deployr_serve.core.policy import NAME
from deployr_serve.core.request import FHIR_ID, IDEMPOTENCY_KEY
from deployr_serve.triggers.json_request import EARLIEST_YEAR, MAX_BODY_BYTES, MAX_CONTEXT, MAX_CONTEXT_TEXT
from deployr_serve.triggers.openapi_registry import registry_paths, registry_schemas
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR, REASON_SYSTEM, UNEXPECTED

_Schema = dict[str, Any]

_OF_OTHER_CHANNELS = frozenset({errors.MissingPatient})
"""What a request that names the patient by a FHIR id cannot lead to."""
_ANSWERS = {error.reason: answer for error, answer in ANSWER_OF_ERROR.items() if error not in _OF_OTHER_CHANNELS} | {
    errors.UNEXPECTED: UNEXPECTED
}
_ABSTAIN_REASONS = "such as " + ", ".join([SWITCHED_OFF, *Shortfall])
_JSON, _FHIR = "application/json", "application/fhir+json"


def render_openapi() -> bytes:
    """Give the document, in UTF-8."""
    infer = {
        "api/models/{model}/infer": _asked("infer", "model", MODEL_ID, "Result", "Score one event with a model."),
        "api/groups/{group}/infer": _asked(
            "inferGroup", "group", NAME, "GroupResult", "Score one event with each model of a group, from one fetch."
        ),
    }
    read = {
        "api/models/{model}/form": {"get": _form("form", ()), "post": _form("scoreForm", (400, 413, 415))},
        "api/health/live": _got("live", "Is the app there?", _json_of("Live")),
        "api/health/ready": _got(
            "ready", "Can the app score?", _json_of("Ready"), {"503": _answer("Not every model.", _json_of("Ready"))}
        ),
        ".well-known/jwks.json": _got("jwks", "The public keys that the EMR checks this app by.", _json_of("KeySet")),
        "api/openapi.json": _got("openapi", "This document.", {_JSON: {"schema": {"type": "object"}}}),
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "deployr",
                "version": "1",
                "description": "Every answer about patients is for systems: what was decided on a score is not told.",
            },
            "paths": {f"/{route}": item for route, item in (infer | read | registry_paths()).items()},
            "components": {
                "schemas": {**_SCHEMAS, **registry_schemas()},
                "securitySchemes": {
                    "key": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                    "code": {"type": "apiKey", "in": "query", "name": "code"},
                },
            },
        }
    )


# -- operations


def _asked(operation: str, name: str, pattern: re.Pattern[str], result: str, summary: str) -> _Schema:
    in_error = {_FHIR: {"schema": _ref("OperationOutcome")}}
    if result == "GroupResult":
        # Where no model of the group scored, the status is the first model's, and the body still says which did what.
        in_error |= _json_of(result)
    statuses = sorted({answer.status for answer in _ANSWERS.values()})
    refusals = {str(status): _refusal(status, in_error) for status in statuses}
    parameters: list[_Schema] = [
        _in_path(name, pattern),
        {"name": "X-Correlation-Id", "in": "header", "required": False, "schema": {"type": "string"}},
    ]
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "description": f"The body has at most {MAX_BODY_BYTES} bytes.",
            "security": [{"key": []}, {"code": []}],
            "parameters": parameters,
            "requestBody": {"required": True, "content": _json_of("Request")},
            "responses": {
                "200": _answer(
                    "Scored, or abstained with a reason.", _json_of(result), ("X-Packet-Id", "X-Bridge-Replay")
                ),
                "401": _NO_KEY,
                **refusals,
            },
        }
    }


def _form(operation: str, refused: Collection[int]) -> _Schema:
    """Describe a page for people: its fields are the model's, so that only their kind is told."""
    page = {"text/html": {"schema": _TEXT}}
    told: _Schema = {
        "operationId": operation,
        "summary": "Try a model by hand, where its deployment offers that; nothing is stored.",
        "security": [{"key": []}, {"code": []}],
        "parameters": [_in_path("model", MODEL_ID)],
        "responses": {
            "200": _answer("The form, and what came of it.", page),
            "401": _NO_KEY,
            "404": _answer("This model has no form here.", page),
            "422": _answer("What was typed cannot be, or the model cannot be asked by hand.", page),
            "429": _answer("This caller asks too often.", page),
            "500": _answer(UNEXPECTED.text, page),
            "503": _answer("The model is switched off, or may not be used.", page),
            **{str(status): _answer("Not what a form sends.", page) for status in refused},
        },
    }
    if refused:
        fields = {"type": "object", "additionalProperties": _TEXT}
        told["requestBody"] = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": fields}}}
    return told


def _in_path(name: str, pattern: re.Pattern[str]) -> _Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _pattern(pattern)}}


def _got(operation: str, summary: str, content: _Schema, more: Mapping[str, _Schema] | None = None) -> _Schema:
    responses = {"200": _answer(summary, content), **(more or {})}
    return {"get": {"operationId": operation, "summary": summary, "security": [], "responses": responses}}


def _refusal(status: int, content: _Schema) -> _Schema:
    reasons = {reason: answer for reason, answer in _ANSWERS.items() if answer.status == status}
    told = " ".join(f"`{reason}`: {answer.text}" for reason, answer in sorted(reasons.items()))
    later = any(answer.retry_after_s is not None for answer in reasons.values())
    return _answer(told, content, ("X-Packet-Id", *(["Retry-After"] if later else [])))


def _answer(description: str, content: _Schema, headers: Collection[str] = ()) -> _Schema:
    told: _Schema = {"description": description, "content": content}
    if headers:
        told["headers"] = {name: _HEADERS[name] for name in ("X-Correlation-Id", *headers)}
    return told


_NO_KEY: _Schema = {"description": "Without the app's key, or not one of its callers."}
_HEADERS: Mapping[str, _Schema] = {
    "X-Correlation-Id": {
        "description": "What the request came with, or one made up; it is in the log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-Packet-Id": {"description": "Of the evidence, where any was stored.", "schema": {"type": "string"}},
    "X-Bridge-Replay": {"description": "Answered before; nothing was done again.", "schema": {"const": "1"}},
    "Retry-After": {"description": "Seconds, where asking again makes sense.", "schema": {"type": "string"}},
}


def _pattern(pattern: re.Pattern[str]) -> str:
    """Write a pattern that Python matches from the start as ECMA 262 has it, which JSON Schema uses."""
    return "^" + pattern.pattern.removesuffix(r"\Z") + "$"


# -- schemas


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json_of(name: str) -> _Schema:
    return {_JSON: {"schema": _ref(name)}}


def _closed(properties: Mapping[str, _Schema], *, optional: Collection[str] = ()) -> _Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_TEXT: _Schema = {"type": "string"}
_NUMBER: _Schema = {"type": "number"}
_INSTANT: _Schema = {"type": "string", "format": "date-time"}
_ID: _Schema = {"type": "string", "pattern": _pattern(FHIR_ID), "description": "A FHIR id."}
_OPTIONAL_ID: _Schema = {**_ID, "type": ["string", "null"]}
_ABOUT: Mapping[str, _Schema] = {"packetId": _TEXT, "model": _ref("Model"), "asOf": _INSTANT}

_SCHEMAS: Mapping[str, _Schema] = {
    "Request": _closed(
        {
            "patientId": _ID,
            "eventTime": {
                **_INSTANT,
                "description": f"RFC 3339 with its offset: after {EARLIEST_YEAR}, and not in the future.",
                "examples": ["2015-01-06T20:55:00-05:00"],
            },
            "encounterId": _OPTIONAL_ID,
            "orderId": _OPTIONAL_ID,
            "idempotencyKey": {"type": ["string", "null"], "pattern": _pattern(IDEMPOTENCY_KEY)},
            "context": {
                "type": ["object", "null"],
                "description": "What a trial may be randomized by, such as department; for whom it is asked, as"
                " provider; who pays, as insurance: public, private, self-pay, other or several.",
                "maxProperties": MAX_CONTEXT,
                "propertyNames": {"pattern": _pattern(NAME)},
                "additionalProperties": {"type": "string", "minLength": 1, "maxLength": MAX_CONTEXT_TEXT},
            },
        },
        optional=("encounterId", "orderId", "idempotencyKey", "context"),
    ),
    "Model": _closed({"id": _TEXT, "version": _TEXT, "bundleSha256": _TEXT}),
    "Scored": _closed(
        {
            "status": {"const": "scored"},
            **_ABOUT,
            "score": {**_NUMBER, "description": "From 0 to 1; with a unit, any number in it."},
            "unit": _TEXT,
            "outputs": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
        },
        optional=("unit", "outputs"),
    ),
    "Abstained": _closed(
        {
            "status": {"const": "abstained"},
            **_ABOUT,
            "reason": {**_TEXT, "description": _ABSTAIN_REASONS},
            "score": {"type": "null"},
        }
    ),
    "Refused": _closed(
        {"status": {"enum": ["rejected", "failed"]}, **_ABOUT, "reason": {"enum": sorted(_ANSWERS)}},
        optional=tuple(_ABOUT),
    ),
    "Result": {"oneOf": [_ref("Scored"), _ref("Abstained")]},
    "GroupResult": _closed(
        {
            "results": {
                "type": "object",
                "description": "By model.",
                "minProperties": 1,
                "additionalProperties": {"oneOf": [_ref("Scored"), _ref("Abstained"), _ref("Refused")]},
            }
        }
    ),
    "OperationOutcome": _closed(
        {
            "resourceType": {"const": "OperationOutcome"},
            "issue": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": _closed(
                    {
                        "severity": {"const": "error"},
                        "code": {"enum": sorted({answer.issue_type for answer in _ANSWERS.values()})},
                        "details": _closed(
                            {
                                "coding": {
                                    "type": "array",
                                    "items": _closed(
                                        {"system": {"const": REASON_SYSTEM}, "code": {"enum": sorted(_ANSWERS)}}
                                    ),
                                },
                                "text": _TEXT,
                            }
                        ),
                        "diagnostics": {**_TEXT, "description": "What was expected; never what came."},
                    },
                    optional=("diagnostics",),
                ),
            },
        }
    ),
    "Live": _closed({"status": {"const": "live"}}),
    "Ready": _closed(
        {
            "status": {"enum": ["ready", "not-ready"]},
            "store": {"enum": ["ok", "unavailable"]},
            "emr": {"enum": ["ok", "not-answering"]},
            "models": {"type": "object", "description": "ok, or why not, by model.", "additionalProperties": _TEXT},
            "shadows": {
                "type": "object",
                "description": "The same by run, where any model has shadows; the instance is ready without them.",
                "additionalProperties": _TEXT,
            },
        },
        optional=("shadows",),
    ),
    "KeySet": {
        "type": "object",
        "properties": {"keys": {"type": "array", "items": {"type": "object"}}},
        "required": ["keys"],
    },
}

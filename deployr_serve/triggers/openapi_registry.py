"""The registry's routes as OpenAPI: the part of `deployr_serve.triggers.openapi` that tells of them."""

from __future__ import annotations

from typing import Any

import msgspec

from deployr_core.bundle import MODEL_ID
from deployr_core.registry.journal import Entry
from deployr_core.registry.roles import Reason
from deployr_serve.core.errors import (
    CallerNotAllowed,
    MalformedRequest,
    RequestTooLarge,
    ServeError,
    StoreUnavailable,
    TooManyRequests,
    UnsupportedMediaType,
)
from deployr_serve.core.registry_deeds import BROKEN
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR, UNEXPECTED
from deployr_serve.triggers.registry_json import ACTS, MOST_BYTES, STATUS_OF, Asked

_Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"
_AT_THE_DOOR: tuple[type[ServeError], ...] = (CallerNotAllowed, TooManyRequests, StoreUnavailable)
_OF_A_BODY: tuple[type[ServeError], ...] = (MalformedRequest, RequestTooLarge, UnsupportedMediaType)
_OBJECT: _Schema = {"type": "object"}
_ID: _Schema = {"type": "string", "pattern": "^" + MODEL_ID.pattern.removesuffix(r"\Z") + "$"}


def registry_paths() -> dict[str, _Schema]:
    """Give each route with what it may be asked and what it answers."""
    model = "api/registry/models/{model}"
    return {
        "api/registry/models": {"get": _read("registryModels", "How every model stands.")},
        model: {"get": _read("registryModel", "How a model stands, and its journal.", "model")},
        f"{model}/verify": {"get": _read("registryVerify", "Whether its journal is what was written.", "model")},
        f"{model}/runs/{{run}}": {"get": _read("registryRun", "A run, as it lies on the shelf.", "model", "run")},
        f"{model}/runs/{{run}}/{{act}}": {
            "post": _act("registryAct", "Do something with a run, in the role that it takes.", "model", "run", "act")
        },
        f"{model}/rollback": {"post": _act("registryRollback", "Bring back the champion before this one.", "model")},
    }


def registry_schemas() -> dict[str, _Schema]:
    """Give the schemas that the routes name."""
    _, made = msgspec.json.schema_components([Entry, Asked], ref_template=_REF)
    return {
        **made,
        "RegistryDone": {
            "type": "object",
            "properties": {
                "entry": {"$ref": _REF.format(name="Entry")},
                "note": {"type": "string", "description": "What has still to be seen to; empty if nothing."},
            },
            "required": ["entry", "note"],
        },
        "RegistryRefused": {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "said": {"type": "string"}},
            "required": ["reason", "said"],
        },
    }


def _read(operation: str, summary: str, *parameters: str) -> _Schema:
    return _operation(operation, summary, _OBJECT, _AT_THE_DOOR, parameters)


def _act(operation: str, summary: str, *parameters: str) -> _Schema:
    done = {"$ref": _REF.format(name="RegistryDone")}
    body = {"required": True, "content": _json({"$ref": _REF.format(name="Asked")})}
    told = _operation(operation, summary, done, (*_AT_THE_DOOR, *_OF_A_BODY), parameters)
    return {**told, "description": f"The body has at most {MOST_BYTES} bytes.", "requestBody": body}


def _operation(
    operation: str, summary: str, given: _Schema, errors: tuple[type[ServeError], ...], parameters: tuple[str, ...]
) -> _Schema:
    said: dict[int, list[str]] = {200: [summary], 401: ["Without the app's key, or a proof of who asks."]}
    for reason, status in STATUS_OF.items():
        said.setdefault(status, []).append(f"`{Reason(reason)}`")
    for error in errors:
        said.setdefault(ANSWER_OF_ERROR[error].status, []).append(f"`{error.reason}`")
    said.setdefault(UNEXPECTED.status, []).append(f"`{BROKEN}`, `unexpected`")
    refused = _json({"$ref": _REF.format(name="RegistryRefused")})
    contents = {200: _json(given), 401: {}}
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{"key": []}, {"code": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"enum": list(ACTS)} if name == "act" else _ID}
            for name in parameters
        ],
        "responses": {
            str(status): {"description": ", ".join(words), "content": contents.get(status, refused)}
            for status, words in sorted(said.items())
        },
    }


def _json(schema: _Schema) -> _Schema:
    return {"application/json": {"schema": schema}}

"""Several reads and searches in one call.

Source: FHIR R4 http.html#transaction: a batch's entries are independent of one another, and each has its own status.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.requests import Request

from mock_emr.elements import child
from mock_emr.emr import Emr
from mock_emr.exchange import FHIR_JSON, JSON, Answer, Exchange, Refused, refuse
from mock_emr.fhir_search import read, searched
from mock_emr.outcomes import invalid_value, not_supported

MOST_ENTRIES = 100


async def batch(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Answer a Bundle of type batch, whose entries are reads and searches by GET; refuse a transaction."""
    if request.headers.get("content-type", "").partition(";")[0].strip() not in (FHIR_JSON, JSON):
        raise refuse(415, not_supported(f"Expected a body of type {FHIR_JSON}."))
    try:
        sent = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict) or sent.get("resourceType") != "Bundle":
        raise refuse(400, invalid_value("resourceType", "Expected a Bundle."))
    exchange.resource_type = "Bundle"
    if sent.get("type") == "transaction":
        raise refuse(422, not_supported("Transactions are not offered: send a Bundle of type batch."))
    entries = sent.get("entry", [])
    if sent.get("type") != "batch" or not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        raise refuse(400, invalid_value("Bundle", f"Expected type batch, with at most {MOST_ENTRIES} entries."))
    answered: dict[str, Any] = {"resourceType": "Bundle", "type": "batch-response"}
    if entries:
        answered["entry"] = [_answered(emr, request, exchange, entry) for entry in entries]
    return Answer(body=msgspec.json.encode(answered))


def _answered(emr: Emr, request: Request, exchange: Exchange, entry: object) -> Mapping[str, Any]:
    own = Exchange(client_id=exchange.client_id, scope=exchange.scope, fault=exchange.fault)
    try:
        answer = _answer(emr, request, own, child(entry, "request") if isinstance(entry, dict) else {})
    except Refused as refused:
        outcome = msgspec.Raw(refused.answer.body)
        return {"response": {"status": _status(refused.answer.status), "outcome": outcome}}
    return {"resource": msgspec.Raw(answer.body), "response": {"status": _status(answer.status)}}


def _answer(emr: Emr, request: Request, exchange: Exchange, asked: Mapping[str, Any]) -> Answer:
    if asked.get("method") != "GET":
        raise refuse(405, not_supported("A batch holds reads and searches by GET alone."))
    url = urlsplit(str(asked.get("url", "")))
    match url.path.split("/"):
        case [resource_type] if resource_type and not (url.scheme or url.netloc):
            return searched(emr, request, exchange, resource_type, parse_qsl(url.query, keep_blank_values=True))
        case [resource_type, resource_id] if not (url.scheme or url.netloc):
            return read(emr, exchange, resource_type, resource_id)
        case _:
            raise refuse(400, invalid_value("Bundle.entry.request.url", "Expected Type/id or Type?query."))


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"

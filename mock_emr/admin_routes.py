"""The handles on the mock itself: its clock, score column, journal, faults, scopes. Under no token, not journaled."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.dates import DateError, instant_of, wire_instant
from mock_emr.emr import Emr
from mock_emr.exchange import JSON
from mock_emr.faults import FaultError, rules_in
from mock_emr.journal import Entry
from mock_emr.scopes import NO_RULES, ScopeRulesError
from mock_emr.scopes import rules_in as scope_rules_in
from mock_emr.scores import Cell

DEFAULT_LIMIT = 1_000
MOST_ENTRIES = 10_000


class _Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    now: str


def admin_routes(emr: Emr) -> list[Route]:
    """Give the routes under /admin."""

    async def clock(request: Request) -> Response:
        if request.method == "PUT":
            try:
                emr.clock.put(instant_of(msgspec.json.decode(await request.body(), type=_Clock).now))
            except (msgspec.DecodeError, UnicodeDecodeError, DateError) as error:
                return _json({"error": f'expected {{"now": "2015-01-06T20:55:00Z"}}: {error}'}, status=400)
        return _json({"now": wire_instant(emr.clock.now()), "is_put": emr.clock.is_put()})

    async def scores(request: Request) -> Response:
        model_id = request.query_params.get("modelId")
        cells = (cell for cell in emr.scores.cells() if model_id in (None, cell.model_id))
        return _json({"scores": [_cell(emr, cell) for cell in cells]})

    async def journal(request: Request) -> Response:
        since = _whole(request, "since", default=0, most=None)
        limit = _whole(request, "limit", default=DEFAULT_LIMIT, most=MOST_ENTRIES)
        if since is None or limit is None:
            return _json({"error": "since, limit: expected whole numbers, 0 or more"}, status=400)
        entries = [_entry(entry) for entry in emr.journal.since(since, limit=limit)]
        return _json({"entries": entries, "last": emr.journal.last_sequence()})

    async def summary(_: Request) -> Response:
        return _json(emr.journal.summary())

    async def faults(request: Request) -> Response:
        if request.method == "PUT":
            try:
                emr.faults.put(rules_in(await request.body()))
            except FaultError as error:
                return _json({"error": str(error)}, status=400)
        elif request.method == "DELETE":
            emr.faults.put(())
        return _json(emr.faults.rules())

    return [
        Route("/admin/clock", clock, methods=["GET", "PUT"]),
        Route("/admin/scores", scores, methods=["GET"]),
        _writes_route(emr),
        Route("/admin/journal", journal, methods=["GET"]),
        Route("/admin/journal/summary", summary, methods=["GET"]),
        Route("/admin/faults", faults, methods=["GET", "PUT", "DELETE"]),
        _scope_route(emr),
    ]


def _writes_route(emr: Emr) -> Route:
    async def writes(_: Request) -> Response:
        written = emr.written
        return _json(
            {
                "flowsheet": written.flowsheet,
                "smartData": written.smart_data(),
                "messages": written.messages,
                "resources": written.resources(),
            }
        )

    return Route("/admin/writes", writes, methods=["GET"])


def _scope_route(emr: Emr) -> Route:
    async def scopes(request: Request) -> Response:
        if request.method == "PUT":
            try:
                emr.scopes.put(scope_rules_in(await request.body()))
            except ScopeRulesError as error:
                return _json({"error": str(error)}, status=400)
        elif request.method == "DELETE":
            emr.scopes.put(NO_RULES)
        return _json(emr.scopes.rules())

    return Route("/admin/scopes", scopes, methods=["GET", "PUT", "DELETE"])


def _cell(emr: Emr, cell: Cell) -> dict[str, Any]:
    """Write a cell with the encounter and patient that its CSN is of, null where the clock was put before it."""
    encounter = emr.store.encounter_with_csn(cell.csn, now=emr.clock.now())
    return {
        "modelId": cell.model_id,
        "csn": cell.csn,
        "encounterId": None if encounter is None else encounter.address.decode().partition("/")[2],
        "patientId": None if encounter is None else encounter.patient_id,
        "rows": [
            {"jobId": row.job_id, "score": row.score, "writtenAt": wire_instant(row.written_at)} for row in cell.rows
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    call = entry.call
    return {
        "sequence": entry.sequence,
        "at": wire_instant(call.at),
        "emr_now": wire_instant(call.emr_now),
        "method": call.method,
        "route": call.route,
        "resource_type": call.resource_type,
        "parameters": call.parameters,
        "status": call.status,
        "duration_ms": round(call.duration_ms, 3),
        "size_bytes": call.size_bytes,
        "write": call.write,
    }


def _whole(request: Request, name: str, *, default: int, most: int | None) -> int | None:
    """Read a whole number from the query, capped at ``most``; None where it is none."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return None
    return int(text) if most is None else min(int(text), most)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)

"""The handles on the mock itself: clock, faults, scores, writes, journal, scopes. Under no token, not journaled."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.admin_clock import clock_routes
from mock_emr.admin_faults import fault_routes
from mock_emr.admin_json import AdminError, answer, instant_asked, only, refusal, whole_asked
from mock_emr.dates import wire_instant
from mock_emr.emr import Emr
from mock_emr.journal import Entry, Wanted
from mock_emr.scopes import NO_RULES, ScopeRulesError
from mock_emr.scopes import rules_in as scope_rules_in
from mock_emr.scores import Cell

DEFAULT_LIMIT = 1_000
MOST_ENTRIES = 10_000
_STATUS = re.compile(r"[1-5](\d\d|xx)", re.ASCII)
_FACES = ("fhir", "vendor", "oauth")
_EXACT = ("route", "resource_type", "method", "correlation_id")
_JOURNAL = ("since", "limit", "after", "until", "face", "status", "faulty", *_EXACT)


def admin_routes(emr: Emr) -> list[Route]:
    """Give the routes under /admin."""

    async def scores(request: Request) -> Response:
        model_id = request.query_params.get("modelId")
        cells = (cell for cell in emr.scores.cells() if model_id in (None, cell.model_id))
        return answer({"scores": [_cell(emr, cell) for cell in cells]})

    async def journal(request: Request) -> Response:
        try:
            only(request, *_JOURNAL)
            since = whole_asked(request, "since", default=0)
            limit = whole_asked(request, "limit", default=DEFAULT_LIMIT, most=MOST_ENTRIES)
            entries = emr.journal.since(since, limit=limit, wanted=_wanted(request))
        except AdminError as error:
            return refusal(error)
        return answer({"entries": [_entry(entry) for entry in entries], "last": emr.journal.last_sequence()})

    async def summary(_: Request) -> Response:
        return answer(emr.journal.summary())

    return [
        *clock_routes(emr),
        *fault_routes(emr),
        Route("/admin/scores", scores, methods=["GET"]),
        _writes_route(emr),
        Route("/admin/journal", journal, methods=["GET"]),
        Route("/admin/journal/summary", summary, methods=["GET"]),
        _scope_route(emr),
    ]


def _writes_route(emr: Emr) -> Route:
    async def writes(_: Request) -> Response:
        written = emr.written
        return answer(
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
                return refusal(error)
        elif request.method == "DELETE":
            emr.scopes.put(NO_RULES)
        return answer(emr.scopes.rules())

    return Route("/admin/scopes", scopes, methods=["GET", "PUT", "DELETE"])


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    if asked.get("face", "fhir") not in _FACES:
        raise AdminError(f"face: expected one of {', '.join(_FACES)}")
    if not _STATUS.fullmatch(asked.get("status", "200")):
        raise AdminError("status: expected one such as 503, or a class such as 5xx")
    if asked.get("faulty", "true") not in {"true", "false"}:
        raise AdminError("faulty: expected true or false")
    return Wanted(
        after=instant_asked(request, "after"),
        until=instant_asked(request, "until"),
        face=asked.get("face"),
        status=asked.get("status"),
        is_faulty=asked["faulty"] == "true" if "faulty" in asked else None,
        **{name: asked.get(name) for name in _EXACT},
    )


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
        "face": call.face,
        "method": call.method,
        "route": call.route,
        "resource_type": call.resource_type,
        "parameters": call.parameters,
        "status": call.status,
        "duration_ms": round(call.duration_ms, 3),
        "size_bytes": call.size_bytes,
        "correlation_id": call.correlation_id,
        "fault": call.fault,
        "write": call.write,
    }

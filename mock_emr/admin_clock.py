"""Driving the EMR's time: set, step, on to the next event, run, pause; and what happens in the chart meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.admin_json import AdminError, answer, instant_asked, instant_in, only, refusal, sent_as, whole_asked
from mock_emr.clock import ClockError
from mock_emr.dates import wire_instant
from mock_emr.emr import Emr
from mock_emr.timeline import KINDS, Event, Kind

DEFAULT_LIMIT = 1_000
MOST_EVENTS = 10_000


class _Now(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    now: str


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seconds: float


class _Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: float
    until: str | None = None


class _Next(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind | None = None


_Work = Callable[[Emr, Request], Awaitable[dict[str, Any]]]


def clock_routes(emr: Emr) -> list[Route]:
    """Give the routes under /admin/clock, and /admin/events."""

    def route(path: str, work: _Work, method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return answer(await work(emr, request))
            except (AdminError, ClockError) as error:
                return refusal(error)

        return Route(path, endpoint, methods=[method])

    return [
        route("/admin/clock", _state, "GET"),
        route("/admin/clock", _put, "PUT"),
        route("/admin/clock/step", _step, "POST"),
        route("/admin/clock/next", _next, "POST"),
        route("/admin/clock/run", _run, "POST"),
        route("/admin/clock/pause", _pause, "POST"),
        route("/admin/events", _events, "GET"),
    ]


async def _state(emr: Emr, _: Request) -> dict[str, Any]:
    pace = emr.clock.pace()
    return {
        "now": wire_instant(emr.clock.now()),
        "is_put": emr.clock.is_put(),
        "rate": None if pace is None else pace.rate,
        "until": None if pace is None or pace.until is None else wire_instant(pace.until),
    }


async def _put(emr: Emr, request: Request) -> dict[str, Any]:
    sent = await sent_as(request, _Now, example='{"now": "2015-01-06T20:55:00Z"}')
    emr.clock.put(instant_in(sent.now, "now"))
    return await _state(emr, request)


async def _step(emr: Emr, request: Request) -> dict[str, Any]:
    sent = await sent_as(request, _Step, example='{"seconds": 3600}')
    try:
        length = timedelta(seconds=sent.seconds)
    except OverflowError as error:
        raise ClockError("expected a step that stays within the years 1 to 9999") from error
    emr.clock.step(length)
    return await _state(emr, request)


async def _next(emr: Emr, request: Request) -> dict[str, Any]:
    sent = await sent_as(request, _Next, example='{"kind": "order"}')
    event = emr.timeline.next_after(emr.clock.now(), kinds=KINDS if sent.kind is None else (sent.kind,))
    if event is None:
        raise ClockError("expected something of this kind to come; nothing does in this chart")
    emr.clock.put(event.at)
    return {**await _state(emr, request), "event": _event(event)}


async def _run(emr: Emr, request: Request) -> dict[str, Any]:
    sent = await sent_as(request, _Run, example='{"rate": 60, "until": "2015-01-07T00:00:00Z"}')
    emr.clock.run(sent.rate, until=None if sent.until is None else instant_in(sent.until, "until"))
    return await _state(emr, request)


async def _pause(emr: Emr, request: Request) -> dict[str, Any]:
    emr.clock.pause()
    return await _state(emr, request)


async def _events(emr: Emr, request: Request) -> dict[str, Any]:
    """Tell what happened after an instant; up to the clock's own, unless asked for what is still to come."""
    only(request, "after", "until", "kind", "patient", "limit")
    after = instant_asked(request, "after")
    if after is None:
        raise AdminError("after: expected an instant, such as 2015-01-06T20:55:00Z")
    kinds = request.query_params["kind"].split(",") if "kind" in request.query_params else list(KINDS)
    if not set(kinds) <= set(KINDS):
        raise AdminError(f"kind: expected some of {', '.join(KINDS)}")
    events = emr.timeline.after(
        after,
        until=instant_asked(request, "until") or emr.clock.now(),
        kinds=[kind for kind in KINDS if kind in kinds],
        patient_id=request.query_params.get("patient"),
        limit=whole_asked(request, "limit", default=DEFAULT_LIMIT, most=MOST_EVENTS),
    )
    return {"events": [_event(event) for event in events]}


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": wire_instant(event.at),
        "kind": event.kind,
        "reference": event.reference,
        "patientId": event.patient_id,
    }

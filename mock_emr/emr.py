"""The parts of one running EMR, and the gate that every call but the admin's goes through."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mock_emr.assertion import Key, UsedAssertions
from mock_emr.basic import client_of
from mock_emr.bulk import Exports
from mock_emr.clock import EmrClock
from mock_emr.errors import oauth_error, vendor_error
from mock_emr.exchange import FHIR_JSON, HTML, Answer, Exchange, Refused
from mock_emr.faults import HTML_PAGE, NO_FAULT, Faults, Rule, spoiled
from mock_emr.journal import Call, Journal
from mock_emr.outcomes import login_needed, outcome_body, restricted_record, scripted
from mock_emr.paging import Searches
from mock_emr.scopes import ScopePolicy
from mock_emr.scores import ScoreColumn
from mock_emr.store import Store
from mock_emr.timeline import Timeline
from mock_emr.tokens import AccessTokens, Grant
from mock_emr.vendor_patients import PatientIdentifiers
from mock_emr.whose import Whose
from mock_emr.written import WriteSite, Written

FHIR_ROOT = "/api/FHIR/R4"
STU3_ROOT = "/api/FHIR/STU3"
TOKEN_PATH = "/oauth2/token"  # noqa: S105 -- a path
CORRELATION_HEADER = "X-Correlation-Id"
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_PIECES = 10

Face = Literal["fhir", "vendor", "oauth"]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Emr:
    """Everything that a running EMR holds; the routes are functions over it.

    ``base_url`` has no slash at its end; None takes each request's own scheme and host. ``delay_s`` is put
    before every FHIR and vendor call.
    """

    store: Store
    clock: EmrClock
    clients: Mapping[str, tuple[Key, ...]]
    users: Mapping[str, str] = field(repr=False)
    open_access: bool
    delay_s: float
    base_url: str | None
    tokens: AccessTokens
    assertions: UsedAssertions
    searches: Searches
    scopes: ScopePolicy
    scores: ScoreColumn
    written: Written
    write_site: WriteSite
    journal: Journal
    faults: Faults
    identifiers: PatientIdentifiers
    whose: Whose
    timeline: Timeline
    exports: Exports
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]

    def url(self, request: Request, path: str) -> str:
        """Give the absolute URL of a path of this EMR."""
        if self.base_url is not None:
            return self.base_url + path
        return f"{request.url.scheme}://{request.url.netloc}{path}"


Handler = Callable[[Emr, Request, Exchange], Awaitable[Answer]]


def gate(
    emr: Emr,
    handler: Handler,
    *,
    route: str,
    face: Face,
    fault_route: str | None = None,
    secured: bool = True,
) -> Endpoint:
    """Wrap a handler: delay, scripted fault, token, answer, journal, in that order.

    Args:
        emr: the parts.
        handler: does the work; raises Refused for an answer other than what was asked for.
        route: the template that the journal names.
        face: whose error bodies the route speaks.
        fault_route: what fault rules call it, one of `faults.ROUTES`; None for the resource type in the path.
        secured: whether a token is needed.
    """

    async def endpoint(request: Request) -> Response:
        started, at, emr_now = emr.monotonic(), emr.clock.real_now(), emr.clock.now()
        with emr.journal.underway():
            patients = await emr.whose.patients(request, now=emr_now) if emr.faults.ask_for_patients() else ()
            called = fault_route or str(request.path_params.get("type", "other"))
            rule = emr.faults.take(called, now=emr_now, patients=patients)
            exchange = Exchange(fault=rule)
            delay_s = rule.delay_ms / 1000 + (0.0 if face == "oauth" else emr.delay_s)
            if delay_s:
                await emr.sleep(delay_s)
            answer = await _answer(emr, handler, request, exchange, face=face, secured=secured)
        emr.journal.note(
            Call(
                at=at,
                emr_now=emr_now,
                method=request.method,
                route=route,
                status=answer.status,
                duration_ms=(emr.monotonic() - started) * 1000,
                size_bytes=len(answer.body),
                resource_type=exchange.resource_type,
                parameters=exchange.parameters,
                write=exchange.write,
                face=face,
                correlation_id=_correlation_id(request),
                fault=None if rule is NO_FAULT else rule.name or "unnamed",
            )
        )
        headers = dict(answer.headers)
        if rule.drip_ms:
            # Its length is announced, as a stalling server's would be.
            headers["Content-Length"] = str(len(answer.body))
            dripping = _dripping(emr, answer.body, rule.drip_ms / 1000)
            return StreamingResponse(dripping, answer.status, headers, answer.media_type)
        return Response(answer.body, status_code=answer.status, headers=headers, media_type=answer.media_type)

    return endpoint


async def _dripping(emr: Emr, body: bytes, wait_s: float) -> AsyncIterator[bytes]:
    size = max(-(-len(body) // _PIECES), 1)
    for start in range(0, len(body), size):
        await emr.sleep(wait_s)
        yield body[start : start + size]


def _correlation_id(request: Request) -> str | None:
    """Give what the caller calls this call; None where it has no such name, or one that might hold anything."""
    sent = request.headers.get(CORRELATION_HEADER, "")
    return sent if _CORRELATION_ID.fullmatch(sent) else None


async def _answer(
    emr: Emr, handler: Handler, request: Request, exchange: Exchange, *, face: Face, secured: bool
) -> Answer:
    rule = exchange.fault
    if rule.body == "expired-token":
        emr.tokens.end(request.headers.get("authorization"))
        answer = _token_needed(face, was_sent=True)
    elif rule.stands_for_the_call():
        answer = _fault_answer(rule, face)
    else:
        try:
            if secured and not emr.open_access:
                exchange.client_id = client_of(request.headers, users=emr.users)
                if exchange.client_id is None:
                    grant = _grant(emr, request, face)
                    exchange.client_id, exchange.scope = grant.client_id, grant.scope
            answer = await handler(emr, request, exchange)
        except Refused as refused:
            answer = refused.answer
        answer = _lost(face) if rule.body == "lost" else replace(answer, status=rule.status or answer.status)
    return replace(answer, body=spoiled(answer.body, rule))


def _grant(emr: Emr, request: Request, face: Face) -> Grant:
    authorization = request.headers.get("authorization")
    grant = emr.tokens.grant_of(authorization)
    if grant is None:
        raise Refused(_token_needed(face, was_sent=bool(authorization)))
    return grant


def _token_needed(face: Face, *, was_sent: bool) -> Answer:
    # RFC 6750 section 3: no error code where no token was sent.
    challenge = 'Bearer realm="mock-emr"' + (', error="invalid_token"' if was_sent else "")
    headers = {"WWW-Authenticate": challenge}
    if face == "fhir":
        return Answer(status=401, body=outcome_body(login_needed()), headers=headers)
    return replace(vendor_error(401, "AUTHENTICATION-FAILED"), headers=headers)


def _restricted(status: int, face: Face) -> Answer:
    if face == "fhir":
        return Answer(status=status, body=outcome_body(restricted_record()), media_type=FHIR_JSON)
    return vendor_error(status, "BREAK-THE-GLASS")


def _lost(face: Face) -> Answer:
    """Answer as a gateway does that waited in vain for what was carried out behind it."""
    return _fault_answer(Rule(route="*", status=504), face)


def _fault_answer(rule: Rule, face: Face) -> Answer:
    if rule.body == "html":
        return Answer(status=rule.status or 200, body=HTML_PAGE, media_type=HTML)
    if rule.body == "restricted":
        return _restricted(rule.status or 403, face)
    status = rule.status or 500
    match face:
        case "fhir":
            return Answer(status=status, body=outcome_body(scripted(status)), media_type=FHIR_JSON)
        case "vendor":
            transient = status == 400 or status >= 500
            what = "DATA_NOT_SAVED details: There was an error filing data." if transient else "INVALID-REQUEST"
            return vendor_error(status, what)
        case "oauth":
            return oauth_error(status, "temporarily_unavailable", "The server cannot answer now.")
        case _:
            assert_never(face)

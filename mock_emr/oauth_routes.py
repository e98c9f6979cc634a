"""The token endpoint: a signed assertion in, a short-lived access token out."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from mock_emr.assertion import AssertionRefused, Proof, check_assertion
from mock_emr.capability import SCOPES
from mock_emr.emr import TOKEN_PATH, Emr, gate
from mock_emr.errors import NOT_KEPT, oauth_error
from mock_emr.exchange import JSON, Answer, Exchange, Refused
from mock_emr.scopes import are_scopes, granted

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def oauth_routes(emr: Emr) -> list[Route]:
    """Give the token route."""
    endpoint = gate(emr, _token, route=TOKEN_PATH, face="oauth", fault_route="token", secured=False)
    return [Route(TOKEN_PATH, endpoint, methods=["POST"])]


async def _token(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Answer a client-credentials request.

    Source: RFC 6749 sections 4.4 and 5; SMART Backend Services. The scope, which SMART requires, may be left
    out, because Epic's clients commonly do [seen]: all SCOPES are asked for then. Fewer may be granted than were asked
    for, and the answer says which. Refused clients get 400 as
    RFC 6749 allows.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise _refused("invalid_request", "expected a form")
    sent = parse_qs((await request.body()).decode("utf-8", errors="replace"))
    if any(len(values) > 1 for values in sent.values()):
        raise _refused("invalid_request", "expected every parameter once")
    named = {name: values[0] for name, values in sent.items()}
    if named.get("grant_type") != "client_credentials":
        raise _refused("unsupported_grant_type", "expected grant_type=client_credentials")
    if named.get("client_assertion_type") != ASSERTION_TYPE:
        raise _refused("invalid_client", f"expected client_assertion_type={ASSERTION_TYPE}")
    scope = named.get("scope", " ".join(SCOPES))
    proof = _proof(emr, request, named.get("client_assertion", ""))
    if not are_scopes(scope):
        raise _refused("invalid_scope", "expected system/ scopes with one space between them")
    exchange.client_id = proof.client_id
    scope = granted(scope, allowed=emr.scopes.rules().allowed.get(proof.client_id))
    if not scope:
        raise _refused("invalid_scope", "expected a scope that the client was registered with")
    grant = emr.tokens.grant(proof.client_id, scope)
    body = {
        "access_token": grant.token,
        "token_type": "bearer",
        "expires_in": emr.tokens.lifetime_s,
        "scope": grant.scope,
    }
    return Answer(body=msgspec.json.encode(body), media_type=JSON, headers=NOT_KEPT)


def _proof(emr: Emr, request: Request, assertion: str) -> Proof:
    now = emr.clock.real_now()
    try:
        proof = check_assertion(assertion, clients=emr.clients, audience=emr.url(request, TOKEN_PATH), now=now)
    except AssertionRefused as error:
        raise _refused("invalid_client", str(error)) from error
    if not emr.assertions.use(proof, now=now):
        raise _refused("invalid_client", "jti: expected one that was not used before")
    return proof


def _refused(error: str, description: str) -> Refused:
    return Refused(oauth_error(400, error, description))

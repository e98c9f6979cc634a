"""What the answers say about the way in: TLS, clocks, SMART discovery, our key, the token and its scopes. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from deployr_cli.doctor.decide.findings import Finding, counted, fail, listed, ok, shown, warn
from deployr_serve.adapters.auth import Origin, may_receive
from deployr_serve.adapters.scopes import Scopes, covers, missing_scopes, parse_scopes, requested_scope, scope_version

LEAST_CERTIFICATE_DAYS = 30
MOST_SKEW_S, FATAL_SKEW_S = 60, 300
"""An assertion of ours lives 240 s, and no server has to take one that seems to be from the future."""
SHORTEST_TOKEN_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Handshake:
    """What TLS agreed on: its version, such as ``TLSv1.3``, and when the server's certificate ends."""

    version: str
    certificate_ends: datetime


def judge_handshake(check: str, handshake: Handshake | None, *, now: datetime) -> Finding:
    """Judge how the server is reached; None is plain http."""
    if handshake is None:
        return warn(check, "plain http: anybody on the way can read and change it", "Use https, as prod insists on.")
    days = (handshake.certificate_ends - now).days
    said = f"{handshake.version}, certificate valid, {counted(days, 'day')} left"
    if days < LEAST_CERTIFICATE_DAYS:
        return warn(check, said, "Ask who runs this server to renew its certificate before it ends.")
    return ok(check, said)


def skew_s(date_header: str | None, *, ours: datetime) -> float | None:
    """Give by how many seconds a server's clock is ahead of ours; None where it does not say.

    Source: RFC 9110, section 6.6.1: the Date header, in whole seconds.
    """
    try:
        theirs = parsedate_to_datetime(date_header or "")
    except (ValueError, TypeError):
        return None
    return (theirs.replace(tzinfo=theirs.tzinfo or UTC) - ours).total_seconds()


def judge_clock(check: str, date_header: str | None, *, ours: datetime) -> Finding:
    """Judge our clock against a server's: up to 60 s apart is ok, more than 5 min gets every assertion refused."""
    ahead = skew_s(date_header, ours=ours)
    if ahead is None:
        return warn(check, "the server does not say what time it has", "Compare its clock with ours by hand.")
    said = f"the server's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) > FATAL_SKEW_S:
        return fail(check, said, "Set this machine's clock by NTP, or tell the EMR's team: our assertions are refused.")
    if abs(ahead) > MOST_SKEW_S:
        return warn(check, said, "Find out which of the clocks is wrong: results seem to come from the future.")
    return ok(check, said)


class SmartConfiguration(msgspec.Struct):
    """What SMART discovery says. Source: SMART App Launch 2.2, conformance.html [seen]."""

    token_endpoint: str = ""
    token_endpoint_auth_methods_supported: list[str] | None = None
    token_endpoint_auth_signing_alg_values_supported: list[str] | None = None
    scopes_supported: list[str] | None = None
    capabilities: list[str] | None = None


def smart_configuration(body: bytes) -> SmartConfiguration | None:
    """Read SMART discovery; None if it is not that."""
    try:
        return msgspec.json.decode(body, type=SmartConfiguration)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def judge_discovery(
    status: int, found: SmartConfiguration | None, *, algorithm: str, token_origins: frozenset[Origin], needed: Scopes
) -> Finding:
    """Judge SMART discovery: where the token endpoint is, and whether it takes our key and offers our scopes."""
    check = "discovery"
    if status != 200 or found is None or not found.token_endpoint:
        what = "no SMART configuration in JSON" if status == 200 else f"status {status}"
        return fail(
            check,
            f"{what} at the FHIR base's .well-known/smart-configuration",
            "Look at DEPLOYR_EMR_FHIR_BASE. An EMR without SMART is entered with DEPLOYR_EMR_AUTH=basic.",
        )
    if not may_receive(found.token_endpoint, token_origins):
        return fail(
            check,
            "the token endpoint is on another origin than the FHIR base",
            "If it is the EMR's own, name that origin in DEPLOYR_EMR_TOKEN_ORIGINS.",
        )
    methods = found.token_endpoint_auth_methods_supported
    if methods is not None and "private_key_jwt" not in methods:
        return fail(check, "private_key_jwt is not offered", "Ask the EMR's team to switch backend services on.")
    algorithms = found.token_endpoint_auth_signing_alg_values_supported
    if algorithms is not None and algorithm not in algorithms:
        return fail(
            check,
            f"{algorithm} is not among the algorithms offered: {listed(map(shown, algorithms))}",
            "Use a key of an algorithm that is offered: DEPLOYR_EMR_KEY_ALGORITHM.",
        )
    offered = parse_scopes(" ".join(found.scopes_supported or ()))
    missing = sorted({it.resource_type for it in needed if not covers(offered, it)}) if offered else []
    # Many servers grant what they do not list: whether it matters is told by the token.
    note = f"; scopes_supported lacks {listed(missing)}, 'scopes' will tell" if missing else ""
    return ok(check, f"token endpoint found; it takes private_key_jwt with {algorithm}{note}")


def wanted_scope(needed: Scopes, found: SmartConfiguration | None) -> str:
    """Give the scopes that we ask this server for, as they are written."""
    capabilities, supported = (found.capabilities or (), found.scopes_supported or ()) if found else ((), ())
    return requested_scope(needed, version=scope_version(capabilities=capabilities, supported=supported))


class _Jwk(msgspec.Struct):
    kty: str = ""
    kid: str = ""
    alg: str = ""
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""
    d: str = ""

    @property
    def material(self) -> tuple[str, ...]:
        return (self.kty, self.n, self.e, self.crv, self.x, self.y)


class _JwkSet(msgspec.Struct):
    keys: list[_Jwk]


def judge_key(ours: bytes) -> Finding:
    """Say which key signs for us; that it can sign was tried when it was read. ``ours`` is our JWK Set."""
    signing, *old = msgspec.json.decode(ours, type=_JwkSet).keys
    size = f"RSA of {_bits(signing.n)} bits" if signing.kty == "RSA" else f"EC on {signing.crv}"
    kept = f"; {counted(len(old), 'old key')} kept beside it" if old else ""
    return ok("key", f"{size}, {signing.alg}, kid {signing.kid}{kept}")


def judge_jwks(ours: bytes, *, status: int, theirs: bytes) -> Finding:
    """Compare our JWK Set with what is served at its public address."""
    check = "jwks"
    try:
        served = msgspec.json.decode(theirs, type=_JwkSet).keys if status == 200 else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        served = None
    if served is None:
        what = "no key set in JSON" if status == 200 else f"status {status}"
        return fail(check, f"{what} at that address", "Route /.well-known/jwks.json to this app, open to everybody.")
    if any(key.d for key in served):
        return fail(check, "a private key is published there", "Take it down now, make a new key, register that one.")
    held = {key.kid: key.material for key in msgspec.json.decode(ours, type=_JwkSet).keys}
    at = {key.kid: key.material for key in served}
    if missing := [kid for kid, material in held.items() if at.get(kid) != material]:
        return fail(
            check,
            f"{counted(len(missing), 'key')} of ours not there, or another under its kid: {listed(missing)}",
            "Start the app that answers there with these settings' key, or give the right --jwks-url.",
        )
    if extra := sorted(set(at) - set(held)):
        return warn(check, f"ours are there, and {counted(len(extra), 'other key')}", "Remove keys that nobody uses.")
    return ok(check, f"{counted(len(held), 'key')} served as here")


class TokenAnswer(msgspec.Struct):
    """What comes with a token. Source: RFC 6749, section 5.1."""

    expires_in: float | None = None
    scope: str | None = None


def judge_token(answer: TokenAnswer | None) -> Finding:
    """Judge a token that was had."""
    check = "token"
    if answer is None or answer.expires_in is None:
        return warn(check, "granted, without saying for how long", "None: it is used for a minute and then replaced.")
    said = f"granted for {timedelta(seconds=int(answer.expires_in))} (hours:minutes:seconds)"
    if answer.expires_in < SHORTEST_TOKEN_S:
        return warn(check, said, "Ask the EMR's team for tokens of five minutes: these are bought all the time.")
    return ok(check, said)


def judge_scopes(granted: Scopes | None, needs: Mapping[str, Scopes], *, labels: Scopes) -> Finding:
    """Compare what was granted with what each model needs to search, and the labels after it."""
    check = "scopes"
    if granted is None:
        return ok(check, "no scopes here: the user's own rights decide, and the searches below tell")
    everyone = {**needs, "labels": labels}
    missing = {who: lacking for who, needed in everyone.items() if (lacking := missing_scopes(granted, needed))}
    if not missing:
        return ok(check, f"all that {counted(len(needs), 'model')} and the labels need to search")
    by_what: dict[str, list[str]] = {}
    for who, lacking in missing.items():
        for what in lacking:
            by_what.setdefault(what, []).append(who)
    said = "; ".join(f"{what} for {listed(who, most=3)}" for what, who in sorted(by_what.items()))
    types = sorted({what.partition(" ")[0] for what in by_what})
    return fail(
        check,
        f"not granted: {said}",
        f"Have the EMR's team add {listed((f'system/{each}.rs' for each in types), most=20)} to our client. Where they "
        "are registered, look at DEPLOYR_EMR_SCOPE.",
    )


def _bits(base64url: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(base64url + "=" * (-len(base64url) % 4)), "big").bit_length()

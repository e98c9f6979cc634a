"""Who may call the JSON routes, and for which models: by Entra ID, by a client certificate, or by HTTP Basic. Pure.

A caller that has not proved who it is learns nothing. One that has, and is not listed here, is told so (403). One that
is listed gets, for a model that is not for it, what it would get for a model that does not exist (404).

Source: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference [secondary];
https://learn.microsoft.com/azure/app-service/app-service-web-configure-tls-mutual-auth [secondary].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from deployr_serve.core.caller import CallerRefused, CdsClient, Unproven, check_times
from deployr_serve.core.errors import CallerNotAllowed

CERTIFICATE_HEADER = "X-ARR-ClientCert"
"""What the platform's front end hands a client's certificate on in: base64 of its DER."""
ALL_MODELS = "*"
_ALGORITHM = "RS256"
LONGEST_LIFE_S = 28 * 3600
"""Entra's tokens live 60 to 90 minutes, and where access is evaluated continuously up to 28 hours."""
_LONGEST_CERTIFICATE = 16_384
"""In characters of base64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntraTenant:
    """A tenant whose access tokens are looked at: its id, the id of our app there, and its issuer and keys."""

    tenant: str
    audience: str
    keys: CdsClient


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonCaller:
    """One that may call. It proves itself in exactly one way.

    ``models``: ids, or `ALL_MODELS` among them. ``password``: by HTTP Basic under its name. ``tenant`` and
    ``application``: by a token of Entra ID, whose ``roles`` must hold ``role`` where there is one.
    ``certificate_sha256``: of the DER, in lower-case hex.
    """

    name: str
    models: frozenset[str]
    password: str | None = field(default=None, repr=False)
    tenant: str | None = None
    application: str | None = None
    role: str | None = None
    certificate_sha256: str | None = None

    def may_ask(self, model: str) -> bool:
        """True if the model is for this caller."""
        return ALL_MODELS in self.models or model in self.models


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """Who may hand certificates on: whoever sends this secret, of which no client knows, in this header."""

    header: str
    secret: str = field(repr=False)


def tenant_of(token: Unproven, tenants: Collection[EntraTenant]) -> EntraTenant:
    """Give the tenant that the token says it is of, by issuer and ``tid`` to the letter.

    Raises:
        CallerRefused: no such tenant, or not signed as Entra ID signs.
    """
    if token.algorithm != _ALGORITHM:
        raise CallerRefused("algorithm")
    if token.jku is not None:
        raise CallerRefused("jku")
    for tenant in tenants:
        if token.claims.get("iss") == tenant.keys.issuer and token.claims.get("tid") == tenant.tenant:
            return tenant
    raise CallerRefused("issuer")


def checked_roles(token: Unproven, tenant: EntraTenant, *, now: datetime) -> frozenset[str]:
    """Check what every token of Entra ID must say, and give the roles that it names.

    Raises:
        CallerRefused: a claim is missing or does not hold.
    """
    check_times(token.claims, now=now, longest_life_s=LONGEST_LIFE_S)
    if token.claims.get("aud") != tenant.audience:
        raise CallerRefused("audience")
    roles = token.claims.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise CallerRefused("roles")
    return frozenset(roles)


def entra_caller(token: Unproven, tenant: EntraTenant, callers: Collection[JsonCaller], *, now: datetime) -> JsonCaller:
    """Give the caller; to be asked only once the signature has been verified.

    A token may be used until it ends: Entra's have no ``jti`` to recognise one again by, and are made to be reused.

    Args:
        token: verified.
        tenant: whose it is.
        callers: all that are listed.
        now: the real instant, aware.

    Raises:
        CallerRefused: a claim is missing or does not hold, or the token is a person's and not an application's.
        CallerNotAllowed: an application of that tenant, but none that is listed, or without its role.
    """
    roles = checked_roles(token, tenant, now=now)
    claims, application = token.claims, token.claims.get("azp")
    if not isinstance(application, str):
        raise CallerRefused("application")
    if "scp" in claims:
        raise CallerRefused("a-persons")
    for caller in callers:
        is_listed = caller.tenant == tenant.tenant and caller.application == application
        if is_listed and (caller.role is None or caller.role in roles):
            return caller
    raise CallerNotAllowed("expected a caller that this app's operator has listed")


def is_of_gateway(gateway: Gateway | None, given: str | None) -> bool:
    """True if the request proves to come from the gateway; the same time is taken whatever was sent."""
    if gateway is None or given is None:
        return False
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, gateway.secret)]
    return hmac.compare_digest(*digests)


def certificate_caller(certificate: str, callers: Collection[JsonCaller]) -> JsonCaller:
    """Give the caller whose certificate the gateway handed on. The gateway has seen that the client holds its key.

    A certificate is known by its thumbprint alone; that it has run out is not looked at.

    Raises:
        CallerRefused: no base64.
        CallerNotAllowed: a certificate that is not listed.
    """
    if len(certificate) > _LONGEST_CERTIFICATE:
        raise CallerRefused("too-long")
    try:
        der = base64.b64decode(certificate, validate=True)
    except (binascii.Error, ValueError):
        raise CallerRefused("not-a-certificate") from None
    thumbprint = hashlib.sha256(der).hexdigest()
    for caller in callers:
        if caller.certificate_sha256 == thumbprint:
            return caller
    raise CallerNotAllowed("expected a caller that this app's operator has listed")

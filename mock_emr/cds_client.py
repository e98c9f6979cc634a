"""The EMR's side of CDS Hooks: signs its calls, fires hooks with what it hands over, and reports what became of cards.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/ [seen].
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_TOKEN = re.compile(r"\{\{context\.(\w+)\}\}")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the service answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def content(self) -> Any:
        """Give the body as JSON."""
        return json.loads(self.body)


Send = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Reply]]
"""Method, URL, headers and body to what came back."""
Search = Callable[[str], Awaitable[Any]]
"""A FHIR query such as ``Observation?patient=p1`` to the resource or searchset; None where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs for one EMR. ``jku`` and ``tenant`` stand in the token where they are given."""

    issuer: str
    key: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)
    key_id: str
    algorithm: str = "ES384"
    jku: str | None = None
    tenant: str | None = None
    life_s: int = 300

    def key_set(self) -> bytes:
        """Give the JWK Set that services verify with."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = json.loads(algorithm.to_jwk(self.key.public_key()))
        return json.dumps({"keys": [{**public, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}]}).encode()

    def token(self, *, audience: str, now: datetime) -> str:
        """Give a token for one call of one URL."""
        issued = int(now.timestamp())
        claims = {
            "iss": self.issuer,
            "aud": audience,
            "iat": issued,
            "exp": issued + self.life_s,
            "jti": secrets.token_hex(16),
            **({"tenant": self.tenant} if self.tenant else {}),
        }
        headers = {"kid": self.key_id, **({"jku": self.jku} if self.jku else {})}
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers=headers)


class CdsClient:
    """Calls the services of one provider.

    Args:
        base: the provider's, without ``/cds-services``.
        fhir_base: what the EMR calls its own FHIR server.
        send: reaches the provider.
        now: gives the real instant, aware.
        signer: None calls without a token.
    """

    def __init__(
        self, base: str, *, fhir_base: str, send: Send, now: Callable[[], datetime], signer: Signer | None = None
    ) -> None:
        self._base = base.rstrip("/")
        self._fhir_base = fhir_base
        self._send = send
        self._now = now
        self._signer = signer

    async def discover(self) -> Reply:
        """Ask which services there are."""
        return await self._call("GET", "cds-services", b"")

    async def fire(
        self,
        service: Mapping[str, Any],
        context: Mapping[str, Any],
        *,
        search: Search | None = None,
        hook_instance: str | None = None,
        authorization: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Fire a service's hook.

        Args:
            service: as discovery lists it.
            context: the hook's.
            search: reads the EMR's own chart for what the service asks to be handed over; None hands nothing over.
            hook_instance: None makes a new one.
            authorization: the ``fhirAuthorization`` that is lent.
        """
        call: dict[str, Any] = {
            "hook": service["hook"],
            "hookInstance": hook_instance or str(uuid.uuid4()),
            "fhirServer": self._fhir_base,
            "context": context,
        }
        if authorization is not None:
            call["fhirAuthorization"] = authorization
        if search is not None:
            call["prefetch"] = await _prefetch(service.get("prefetch") or {}, context, search)
        return await self._call("POST", f"cds-services/{service['id']}", json.dumps(call).encode())

    async def feed_back(self, service_id: str, outcomes: Sequence[Mapping[str, Any]]) -> Reply:
        """Report what became of cards."""
        body = json.dumps({"feedback": list(outcomes)}).encode()
        return await self._call("POST", f"cds-services/{service_id}/feedback", body)

    async def _call(self, method: str, path: str, body: bytes) -> Reply:
        url = f"{self._base}/{path}"
        headers = {"Content-Type": "application/json"} if body else {}
        if self._signer is not None:
            headers["Authorization"] = f"Bearer {self._signer.token(audience=url, now=self._now())}"
        return await self._send(method, url, headers, body)


def accepted(card: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """Give the feedback that a card was taken up, with all that it suggests."""
    taken = [{"id": suggestion["uuid"]} for suggestion in card.get("suggestions", ())]
    return {
        "card": card["uuid"],
        "outcome": "accepted",
        "acceptedSuggestions": taken,
        "outcomeTimestamp": at.isoformat(),
    }


def overridden(card: Mapping[str, Any], *, at: datetime, comment: str | None = None) -> dict[str, Any]:
    """Give the feedback that a card was overridden, for the first of the reasons that it offers."""
    outcome = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": at.isoformat()}
    reasons = card.get("overrideReasons", ())
    why: dict[str, Any] = {"reason": {key: reasons[0][key] for key in ("code", "system")}} if reasons else {}
    if comment is not None:
        why["userComment"] = comment
    return {**outcome, **({"overrideReason": why} if why else {})}


async def _prefetch(templates: Mapping[str, str], context: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """Read what is asked for; a template with a blank that the hook cannot fill is left out, as the standard says."""
    handed = {}
    for key, template in templates.items():
        if all(isinstance(context.get(name), str) for name in _TOKEN.findall(template)):
            handed[key] = await search(_TOKEN.sub(lambda blank: str(context[blank[1]]), template))
    return handed

"""The signed assertion by which we prove to a token endpoint who we are."""

from __future__ import annotations

from datetime import datetime

from deployr_serve.adapters.client_keys import ClientKey

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_S = 240
"""Under the 300 s that SMART allows, so that clocks may differ by a minute."""


def signed_assertion(key: ClientKey, *, client_id: str, audience: str, now: datetime, jti: str) -> str:
    """Give a compact JWT that says: whoever holds this key is this client, and asks this token endpoint, now.

    Args:
        key: signs it, and is named in the header.
        client_id: issuer and subject.
        audience: the URL of the token endpoint, to the letter.
        now: the real instant, aware; a replay's clock would make assertions that have expired.
        jti: unique among all assertions of this client for as long as they live.

    Source: SMART App Launch 2.2, https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html [seen].
    """
    import jwt

    issued_at = int(now.timestamp())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": issued_at,
        "exp": issued_at + LIFETIME_S,
        "jti": jti,
    }
    return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.key_id, "typ": "JWT"})

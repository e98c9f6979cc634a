"""A hand-made OpenID provider on loopback: it signs in whoever comes, with the claims that a test wants.

Source: OpenID Connect Core 1.0, sections 2, 3.1 and 10.1.1; RP-Initiated Logout 1.0; RFC 7636 [seen].
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "dashboard", "the-dashboards-own"


class Provider:
    """What it says of whoever comes. ``changes``: claims in place of the right ones; ``forged``: signs by another key.

    ``signed_out``: the query of each sign-out.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.changes: dict[str, Any] = {}
        self.forged = False
        self.signed_out: list[dict[str, str]] = []
        self._key, self._foreign = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        self._asked: dict[str, dict[str, str]] = {}

    async def metadata(self, _: Request) -> Response:
        """Say where everything is."""
        return JSONResponse(
            {
                "issuer": self.address,
                "authorization_endpoint": f"{self.address}/authorize",
                "token_endpoint": f"{self.address}/token",
                "jwks_uri": f"{self.address}/keys",
                "end_session_endpoint": f"{self.address}/end",
                "response_types_supported": ["code"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def authorize(self, request: Request) -> Response:
        """Send them back with a code, without a question."""
        asked = dict(request.query_params)
        code = f"code-{len(self._asked)}"
        self._asked[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    async def token(self, request: Request) -> Response:
        """Give an ID token for a code, once, to whoever holds the client's secret and the code's verifier."""
        form = dict(await request.form())
        asked = self._asked.pop(str(form["code"]))
        told = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        digest = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        if request.headers["Authorization"] != f"Basic {told}" or (
            base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        now = int(time.time())
        claims = {
            "iss": self.address,
            "sub": "pairwise-1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 3600,
            "nonce": asked["nonce"],
            "name": "Ada Lovelace",
            "roles": ["Monitor.Read"],
            **self.changes,
        }
        key = self._foreign if self.forged else self._key
        signed = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "1"})
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "id_token": signed})

    async def keys(self, _: Request) -> Response:
        """Give the public key."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public, "kid": "1", "alg": "RS256", "use": "sig"}]})

    async def end(self, request: Request) -> Response:
        """Sign out and send them back."""
        self.signed_out.append(dict(request.query_params))
        return RedirectResponse(request.query_params["post_logout_redirect_uri"])


@contextmanager
def provider() -> Iterator[Provider]:
    """Run a provider on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    made = Provider(f"http://127.0.0.1:{listening.getsockname()[1]}")
    routes = [
        Route("/.well-known/openid-configuration", made.metadata),
        Route("/authorize", made.authorize),
        Route("/token", made.token, methods=["POST"]),
        Route("/keys", made.keys),
        Route("/end", made.end),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield made
    finally:
        server.should_exit = True
        thread.join()
        listening.close()

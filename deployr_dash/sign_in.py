"""Who may look: decided from what the reverse proxy or Entra ID says, refused where nobody says anything."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

PROXY_SECRET_HEADER = "X-Deployr-Proxy-Secret"  # noqa: S105 # the name of a header
LONGEST = timedelta(hours=12)
"""How long a sign-in holds, whatever its cookie says: who has left the hospital is out by the next day."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_AUTH = ("client_id", "client_secret", "cookie_secret", "redirect_uri", "server_metadata_url")
_CALLBACK = "/oauth2callback"
_SHORTEST_SECRET = 32
_ANYBODYS = frozenset({"common", "organizations", "consumers"})
"""In place of a tenant in an address of Entra ID: whoever has an account anywhere."""


_OF_NO_APP = frozenset({"openid", "profile", "email", "offline_access"})
"""Scopes that say who somebody is; a token for these alone is for no app of ours."""


class SignInKind(StrEnum):
    """Who says who is looking: nobody, a reverse proxy by a header, or Entra ID by OpenID Connect."""

    NONE = "none"
    PROXY = "proxy"
    ENTRA = "entra"


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """How people sign in.

    ``header``: in which the proxy names who is looking. ``secret``: what the proxy proves itself by, in
    `PROXY_SECRET_HEADER`; None where nobody but the proxy can reach the address that is listened on. ``client_id``:
    what Entra ID calls the dashboard. ``roles``: app roles of which it takes one to look; where there are none,
    whomever Entra ID lets in may.
    """

    kind: SignInKind
    header: str = "X-Forwarded-User"
    secret: str | None = field(default=None, repr=False)
    client_id: str = ""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """May look. ``name``: as the proxy or Entra ID calls them; empty where nobody signs in."""

    name: str


class Remedy(StrEnum):
    """What somebody who may not look can do about it on the page."""

    SIGN_IN = "Sign in"
    SIGN_OUT = "Sign out"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """May not look; ``why`` is written to be shown, ``remedy`` is None where the page has none."""

    why: str
    remedy: Remedy | None = None


def check_start(sign_in: SignIn, *, is_production: bool, address: str) -> None:
    """Refuse to start where anybody could look.

    Raises:
        ValueError: a production dashboard without a sign-in, or one that would believe a header from anybody.
    """
    if is_production and sign_in.kind is SignInKind.NONE:
        raise ValueError("expected --sign-in proxy or --sign-in entra in the prod profile")
    if sign_in.kind is SignInKind.PROXY and sign_in.secret is None and address not in _LOOPBACK:
        raise ValueError(
            f"expected --host 127.0.0.1, or DEPLOYR_DASH_PROXY_SECRET: whoever reaches {address} could name themselves"
        )
    if sign_in.kind is SignInKind.NONE and address not in _LOOPBACK:
        raise ValueError(f"expected a sign-in where others than this machine can reach the dashboard, at {address}")


def check_auth(auth: Mapping[str, object]) -> str:
    """Give the client id out of the section ``[auth]`` of Streamlit's secrets, if people can sign in by it.

    Raises:
        ValueError: something is missing, travels in the clear, or would let in people of other tenants; no value of a
            secret is repeated.
    """
    if missing := [name for name in _AUTH if not isinstance(auth.get(name), str) or not auth[name]]:
        raise ValueError(f"expected {', '.join(missing)} in [auth] of .streamlit/secrets.toml; see docs/dashboard.md")
    if len(str(auth["cookie_secret"])) < _SHORTEST_SECRET:
        raise ValueError(f"[auth] cookie_secret: expected {_SHORTEST_SECRET} characters or more, drawn at random")
    if not str(auth["redirect_uri"]).endswith(_CALLBACK):
        raise ValueError(f"[auth] redirect_uri: expected the dashboard's own address with {_CALLBACK} at its end")
    for name in ("redirect_uri", "server_metadata_url"):
        place = urlsplit(str(auth[name]))
        if place.scheme != "https" and place.hostname not in _LOOPBACK:
            raise ValueError(f"[auth] {name}: expected https, but on this machine alone")
    if _ANYBODYS & set(urlsplit(str(auth["server_metadata_url"])).path.split("/")):
        raise ValueError("[auth] server_metadata_url: expected your tenant's own, not that of everybody's accounts")
    return str(auth["client_id"])


def check_deeds(
    sign_in: SignIn, *, app: str, authorization: str | None, is_production: bool, auth: Mapping[str, object]
) -> None:
    """Refuse to start where deeds could not be sent to the app under the proof of whoever does them.

    Args:
        sign_in: how people sign in.
        app: the app's address; empty where deeds are not sent.
        authorization: a proof of somebody's own, for a machine of one's own; None without one.
        is_production: the prod profile.
        auth: the section ``[auth]`` of Streamlit's secrets.

    Raises:
        ValueError: there is no such proof, everybody would act as one person, or it would travel in the clear.
    """
    if authorization is not None and (is_production or sign_in.kind is not SignInKind.NONE or not app):
        raise ValueError(
            "DEPLOYR_DASH_AUTHORIZATION: expected only in the dev profile, with --sign-in none and DEPLOYR_DASH_APP:"
            " everybody who looks would act as one person"
        )
    if not app:
        return
    place = urlsplit(app)
    if place.scheme not in {"http", "https"} or not place.hostname or "@" in place.netloc or place.query:
        raise ValueError("DEPLOYR_DASH_APP: expected the app's address, such as https://deployr.hospital.example")
    if place.scheme != "https" and place.hostname not in _LOOPBACK:
        raise ValueError("DEPLOYR_DASH_APP: expected https, but on this machine alone")
    if sign_in.kind is SignInKind.PROXY or (sign_in.kind is SignInKind.NONE and authorization is None):
        raise ValueError("DEPLOYR_DASH_APP: expected --sign-in entra: nobody else has a proof that the app could take")
    if sign_in.kind is SignInKind.ENTRA:
        exposed, asked = auth.get("expose_tokens"), auth.get("client_kwargs")
        scope = asked.get("scope") if isinstance(asked, Mapping) else None
        if exposed not in ("access", ["access"]) or not set(str(scope or "").split()) - _OF_NO_APP:
            raise ValueError(
                'DEPLOYR_DASH_APP: expected expose_tokens = ["access"] in [auth], and in client_kwargs a scope of the'
                " app's; see docs/dashboard.md"
            )


def admit(
    sign_in: SignIn, headers: Mapping[str, str], *, claims: Mapping[str, object] | None = None, now: datetime
) -> Admitted | Refused:
    """Decide on one visit.

    Args:
        sign_in: how people sign in.
        headers: of the request, their names in lower case.
        claims: of whom Entra ID has signed in, after signature, issuer and times were checked; None for nobody.
        now: when it is.
    """
    match sign_in.kind:
        case SignInKind.NONE:
            return Admitted(name="")
        case SignInKind.ENTRA:
            return _by_claims(sign_in, claims or {}, now=now)
        case SignInKind.PROXY:
            told = headers.get(PROXY_SECRET_HEADER.lower(), "")
            if sign_in.secret is not None and not hmac.compare_digest(told.encode(), sign_in.secret.encode()):
                return Refused(why="This page is reached through the hospital's proxy only.")
            name = headers.get(sign_in.header.lower(), "").strip()
            return Admitted(name=name) if name else Refused(why="The proxy did not say who you are: sign in there.")


def _by_claims(sign_in: SignIn, claims: Mapping[str, object], *, now: datetime) -> Admitted | Refused:
    """Decide by an ID token's claims. Source: Microsoft Learn, "ID token claims reference"."""
    name = next((each for key in ("name", "preferred_username", "email") if (each := str(claims.get(key) or ""))), "")
    audience, issued = claims.get("aud"), claims.get("iat")
    is_ours = sign_in.client_id and sign_in.client_id in (audience if isinstance(audience, list) else [audience])
    if not name or not is_ours or not isinstance(issued, int | float):
        return Refused(why="Sign in with your work account.", remedy=Remedy.SIGN_IN)
    if now.timestamp() - issued > LONGEST.total_seconds():
        why = f"Your sign-in is more than {LONGEST.total_seconds() / 3600:.0f} hours old. Sign in again."
        return Refused(why=why, remedy=Remedy.SIGN_IN)
    held = claims.get("roles")
    if sign_in.roles and not sign_in.roles & set(held if isinstance(held, list) else ()):
        needed = " or ".join(sorted(sign_in.roles))
        why = f"You are signed in as {name}, without the role {needed}. Ask whoever administers this app for it."
        return Refused(why=why, remedy=Remedy.SIGN_OUT)
    return Admitted(name=name)

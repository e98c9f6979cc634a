"""Who may look: decided from what the reverse proxy or Entra ID says, refused where nobody says anything."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PROXY_SECRET_HEADER = "X-Deployr-Proxy-Secret"  # noqa: S105 # the name of a header
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SignInKind(StrEnum):
    """Who says who is looking: nobody, a reverse proxy by a header, or Entra ID by OpenID Connect."""

    NONE = "none"
    PROXY = "proxy"
    ENTRA = "entra"


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """How people sign in.

    ``header``: in which the proxy names who is looking. ``secret``: what the proxy proves itself by, in
    `PROXY_SECRET_HEADER`; None where nobody but the proxy can reach the address that is listened on.
    """

    kind: SignInKind
    header: str = "X-Forwarded-User"
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """May look. ``name``: as the proxy or Entra ID calls them; empty where nobody signs in."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """May not look; ``why`` is written to be shown."""

    why: str


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


def admit(sign_in: SignIn, headers: Mapping[str, str], *, entra_name: str | None = None) -> Admitted | Refused:
    """Decide on one visit.

    Args:
        sign_in: how people sign in.
        headers: of the request, their names in lower case.
        entra_name: whom Entra ID has signed in; None for nobody.
    """
    match sign_in.kind:
        case SignInKind.NONE:
            return Admitted(name="")
        case SignInKind.ENTRA:
            return Refused(why="Sign in with your work account.") if not entra_name else Admitted(name=entra_name)
        case SignInKind.PROXY:
            told = headers.get(PROXY_SECRET_HEADER.lower(), "")
            if sign_in.secret is not None and not hmac.compare_digest(told.encode(), sign_in.secret.encode()):
                return Refused(why="This page is reached through the hospital's proxy only.")
            name = headers.get(sign_in.header.lower(), "").strip()
            return Admitted(name=name) if name else Refused(why="The proxy did not say who you are: sign in there.")

"""Access tokens: random, short-lived, and forgotten when they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mock_emr.paging import opaque


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What was granted to whom; ``ends_at`` is on the monotonic clock, in seconds."""

    client_id: str
    scope: str
    ends_at: float
    token: str = field(repr=False)


class AccessTokens:
    """The tokens that are good now. They end on the real, monotonic clock, wherever the EMR's stands."""

    def __init__(self, *, lifetime_s: int, token_bytes: Callable[[int], bytes], monotonic: Callable[[], float]) -> None:
        """Grant tokens for ``lifetime_s`` seconds each."""
        self.lifetime_s = lifetime_s
        self._token_bytes = token_bytes
        self._monotonic = monotonic
        self._grants: dict[str, Grant] = {}

    def grant(self, client_id: str, scope: str) -> Grant:
        """Give the client a new token."""
        now = self._monotonic()
        self._grants = {token: held for token, held in self._grants.items() if held.ends_at > now}
        grant = Grant(
            client_id=client_id,
            scope=scope,
            ends_at=now + self.lifetime_s,
            token=opaque(self._token_bytes),
        )
        self._grants[grant.token] = grant
        return grant

    def grant_of(self, authorization: str | None) -> Grant | None:
        """Give what was granted with the token in an `Authorization` header; None without one that is good now.

        Source: RFC 6750 section 2.1; the scheme's case does not matter (RFC 9110 section 11.1).
        """
        scheme, _, token = (authorization or "").partition(" ")
        grant = self._grants.get(token.strip()) if scheme.lower() == "bearer" else None
        return grant if grant is not None and self._monotonic() < grant.ends_at else None

    def end(self, authorization: str | None) -> None:
        """End the token in an `Authorization` header before its time, if there is one."""
        grant = self.grant_of(authorization)
        if grant is not None:
            del self._grants[grant.token]

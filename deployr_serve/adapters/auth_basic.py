"""User name and password, with the header by which Epic tells its clients apart."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from deployr_serve.adapters.auth import Origin
from deployr_serve.adapters.scopes import Scopes
from deployr_serve.core.ports import Budget


class Basic:
    """The same headers for every request to the origins given.

    Args:
        user: without a colon, which would end it. Epic's ``emp$`` prefix is part of it and the site's business.
        password: any text.
        client_id: sent as ``Epic-Client-ID``; None sends no such header.
        origins: where the headers may be sent.

    Raises:
        ValueError: a colon in the user name.

    Source: RFC 7617 section 2; the header from wire formats document, section 2 [seen].
    """

    def __init__(self, *, user: str, password: str, client_id: str | None, origins: frozenset[Origin]) -> None:
        if ":" in user:
            raise ValueError("expected a user name without a colon")
        self.origins: frozenset[Origin] | None = origins
        pair = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._headers = {"Authorization": f"Basic {pair}"}
        if client_id is not None:
            self._headers["Epic-Client-ID"] = client_id

    async def headers(self, *, budget: Budget | None = None) -> dict[str, str]:  # noqa: ARG002 the port's
        """Give the headers."""
        return dict(self._headers)

    def refused(self, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 the port's
        """There are no others: asking again would only come closer to locking the account."""
        return False

    async def granted(self, *, budget: Budget | None = None) -> Scopes | None:  # noqa: ARG002 the port's
        """Nobody says."""
        return None

"""The bearer token that a CDS Hooks request lends: for that request, and for the configured EMR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployr_serve.adapters.auth import Origin
from deployr_serve.adapters.scopes import Scopes
from deployr_serve.core.errors import EmrRefused
from deployr_serve.core.ports import Budget


@dataclass(frozen=True, kw_only=True, slots=True)
class LentToken:
    """Made for one request and dropped with it: nothing here is cached, stored or logged, and ``repr`` hides it.

    ``origins`` are those of the configured FHIR base, whatever server the request names. A 401 stays one: asking again
    with our own credentials would read for a user what the EMR did not let that user read.

    Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#passing-the-access-token-to-the-cds-service [seen].
    """

    token: str = field(repr=False)
    origins: frozenset[Origin] | None

    async def headers(self, *, budget: Budget | None = None) -> dict[str, str]:  # noqa: ARG002 the port's
        """Give the bearer header.

        Raises:
            EmrRefused: the token is nothing that a header could carry.
        """
        if not is_bearer_token(self.token):
            raise EmrRefused("expected the access token that was lent to be printable ASCII without spaces")
        return {"Authorization": f"Bearer {self.token}"}

    def refused(self, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 the port's
        """There is no other."""
        return False

    async def granted(self, *, budget: Budget | None = None) -> Scopes | None:  # noqa: ARG002 the port's
        """Nobody says."""
        return None


def is_bearer_token(text: str) -> bool:
    """Tell whether the text can stand in a header: a line end would start another one. Source: RFC 6749 appendix A.12,
    without its space."""
    return bool(text) and all("!" <= character <= "~" for character in text)

"""Searches that are kept, so that a link to their next page need not say what was searched."""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mock_emr.store import Form


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found at the instant it was made; later pages do not see the clock move.

    ``client_id`` is whose search it is, None where the EMR is open. ``page_size`` is at least 1.
    """

    client_id: str | None
    resource_type: str
    forms: tuple[Form, ...] = field(repr=False)
    page_size: int

    def page(self, number: int) -> tuple[Form, ...]:
        """Give the resources of a page, counted from 1; nothing past the last."""
        return self.forms[(number - 1) * self.page_size : number * self.page_size]

    def has_after(self, number: int) -> bool:
        """Tell whether anything comes after this page."""
        return len(self.forms) > number * self.page_size


class Searches:
    """The latest searches that have further pages, under ids that say nothing about them."""

    def __init__(self, *, token_bytes: Callable[[int], bytes], limit: int = 10_000) -> None:
        """Keep at most ``limit`` searches; those not asked about for longest go first."""
        self._token_bytes = token_bytes
        self._limit = limit
        self._kept: OrderedDict[str, Search] = OrderedDict()

    def keep(self, search: Search) -> str:
        """Keep a search and give its session id."""
        session_id = opaque(self._token_bytes)
        self._kept[session_id] = search
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return session_id

    def recall(self, session_id: str, *, client_id: str | None, resource_type: str) -> Search | None:
        """Give a kept search; None where it has gone, or is another client's or type's."""
        search = self._kept.get(session_id)
        if search is None or search.client_id != client_id or search.resource_type != resource_type:
            return None
        self._kept.move_to_end(session_id)
        return search

    def patients_of(self, session_id: str) -> frozenset[str]:
        """Give whom the resources of a kept search are about; none where it has gone."""
        search = self._kept.get(session_id)
        return frozenset(form.patient_id for form in search.forms if form.patient_id) if search else frozenset()


def opaque(token_bytes: Callable[[int], bytes]) -> str:
    """Give 192 random bits as text that fits into a URL."""
    return base64.urlsafe_b64encode(token_bytes(24)).decode()

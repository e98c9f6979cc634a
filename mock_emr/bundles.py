"""Searchset Bundles, joined from bytes that were serialised once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mock_emr.outcomes import Issue, operation_outcome
from mock_emr.store import Form


def searchset(
    forms: Sequence[Form],
    *,
    fhir_base: str,
    total: int,
    self_url: str,
    next_url: str | None,
    issues: Sequence[Issue] = (),
) -> bytes:
    """Give one page of a search as JSON.

    Args:
        forms: the resources of this page.
        fhir_base: the server's FHIR root, without a slash at its end; `fullUrl` begins with it.
        total: how many resources the whole search found.
        self_url: what this page answers.
        next_url: where the next page is, or None on the last.
        issues: what to tell beside the results; they go into one entry with `search.mode` outcome.

    Source: FHIR R4 bundle.html#searchset and search.html#errors; the outcome entry without fullUrl, Epic's [seen].
    """
    links = [{"relation": "self", "url": self_url}]
    if next_url is not None:
        links.append({"relation": "next", "url": next_url})
    head = {"resourceType": "Bundle", "type": "searchset", "total": total, "link": links}
    entries = [part for form in forms for part in (form.address, b'","resource":', form.body)]
    # Every resource costs three references and one copy; the text between two of them is the same all over the page.
    start = b'{"fullUrl":"' + fhir_base.encode() + b"/"
    end = b',"search":{"mode":"match"}}'
    between = end + b"," + start
    parts: list[bytes] = [start] if entries else []
    for place in range(0, len(entries), 3):
        if place:
            parts.append(between)
        parts.extend(entries[place : place + 3])
    if entries:
        parts.append(end)
    if issues:
        outcome = {"resource": operation_outcome(*issues), "search": {"mode": "outcome"}}
        parts.append((b"," if entries else b"") + msgspec.json.encode(outcome))
    opening = msgspec.json.encode(head)
    if not parts:
        return opening
    # A FHIR array is never empty, so `entry` is there only when something is in it.
    return b"".join((opening[:-1], b',"entry":[', *parts, b"]}"))

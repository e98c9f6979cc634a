"""What an OperationOutcome says about an answer: whether it may be believed to be whole. Pure."""

from __future__ import annotations

from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete, Restricted, ServeError

_EPIC = "1.2.840.114350"
_BREAK_THE_GLASS = frozenset({"4130", "4131"})
_SESSION_EXPIRED = frozenset({"4113"})
_TOO_MANY = frozenset({"4127", "59133"})
"""Epic's codes. Source: a third party's list [secondary]; nobody publishes answers that carry them [assumed]."""

_WITHHELD = frozenset({"suppressed"})
_SECURITY = frozenset({"security", "forbidden"})
_UNKNOWN = frozenset({"not-found", "deleted"})
_PARTIAL = frozenset({"incomplete", "too-costly", "too-long"})
"""Source: http://hl7.org/fhir/R4/valueset-issue-type.html [seen]."""

_WORDS = ("break-the-glass", "break the glass", "breaktheglass", "btg", "restricted record", "restricted patient")
"""How a refusal of ``security`` may say that it is about this record and not about us [assumed]."""


def refusal(outcome: wire.OperationOutcome) -> ServeError | None:
    """Give the error that the outcome amounts to; None where it says nothing that matters, such as "no results".

    A record that is withheld comes first, whatever the severity: as a warning beside nothing, it would pass for a short
    history. What is missing because of an error would be taken for "nothing there" likewise.
    """
    if any(_restricts(issue) for issue in outcome.issue):
        return Restricted("expected the whole record, but the EMR withholds some or all of it")
    if any(issue.severity in {"error", "fatal"} for issue in outcome.issue):
        return EmrBadResponse("expected the matches, got an error instead of them or among them")
    if any(issue.code in _PARTIAL or _codes(issue) & _TOO_MANY for issue in outcome.issue):
        return EmrIncomplete("expected all matches, but the EMR says that these are not all")
    return None


def is_restricted(outcome: wire.OperationOutcome) -> bool:
    """Tell whether the EMR withholds this record, as opposed to refusing us."""
    return any(_restricts(issue) for issue in outcome.issue)


def is_unknown_id(outcome: wire.OperationOutcome) -> bool:
    """Tell whether the EMR says that there is nothing, or nothing any more, by the id that was asked for."""
    return any(issue.code in _UNKNOWN for issue in outcome.issue)


def is_expired_session(outcome: wire.OperationOutcome) -> bool:
    """Tell whether the server has forgotten the search whose next page was asked for."""
    return any(_codes(issue) & _SESSION_EXPIRED for issue in outcome.issue)


def _restricts(issue: wire.Issue) -> bool:
    if issue.code in _WITHHELD or _codes(issue) & _BREAK_THE_GLASS:
        return True
    text = f"{issue.details.text if issue.details else ''} {issue.diagnostics}".lower()
    return issue.code in _SECURITY and any(words in text for words in _WORDS)


def _codes(issue: wire.Issue) -> set[str | None]:
    """Give the codes that are Epic's, or of no system."""
    codings = issue.details.coding if issue.details else ()
    return {coding.code for coding in codings if coding.system is None or _EPIC in coding.system}

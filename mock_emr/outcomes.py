"""OperationOutcomes as Epic words them, and the refusals that carry one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

# Source: recorded exchanges with Epic's sandbox [seen] for the system, for 4101 and for `diagnostics` with
# `expression`; the other codes are a third party's list [secondary] and their wording is [assumed].
SYSTEM = "urn:oid:1.2.840.114350.1.13.0.1.7.2.657369"


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One issue of an OperationOutcome; ``epic_code`` and ``text`` go into `details`."""

    severity: str
    code: str
    epic_code: str
    text: str
    diagnostics: str | None = None
    expression: str | None = None


def no_results() -> Issue:
    """Say that nothing was found; Epic puts this into the empty Bundle."""
    return Issue(
        severity="warning",
        code="processing",
        epic_code="4101",
        text="Resource request returns no results.",
    )


def not_found(resource_type: str) -> Issue:
    """Say that no such resource shows; the id is not repeated."""
    return Issue(
        severity="fatal",
        code="not-found",
        epic_code="4102",
        text="The read resource request contained an invalid reference.",
        diagnostics=f"No {resource_type} with this id.",
    )


def missing_element(expression: str, diagnostics: str) -> Issue:
    """Say that a required search parameter is missing."""
    return Issue(
        severity="fatal",
        code="required",
        epic_code="59108",
        text="A required element is missing.",
        diagnostics=diagnostics,
        expression=expression,
    )


def invalid_value(expression: str, diagnostics: str) -> Issue:
    """Say which parameter has a value that cannot be read; the value is not repeated."""
    return Issue(
        severity="fatal",
        code="value",
        epic_code="59102",
        text="The content/operation contains an invalid value.",
        diagnostics=diagnostics,
        expression=expression,
    )


def unknown_parameter(name: str, *, severity: str) -> Issue:
    """Say that a parameter is not known; a warning where it was ignored, fatal where that was not wanted."""
    return Issue(
        severity=severity,
        code="not-supported" if severity == "fatal" else "processing",
        epic_code="4122",
        text="An unknown search parameter was ignored."
        if severity == "warning"
        else "An unknown search parameter was given.",
        diagnostics="This parameter is not known for this resource.",
        expression=name,
    )


def session_gone() -> Issue:
    """Say that the search whose next page was asked for is not kept any more."""
    return Issue(
        severity="fatal",
        code="expired",
        epic_code="4113",
        text="The cached search has expired. Repeat the search.",
    )


def login_needed() -> Issue:
    """Say that the call carries no access token that is valid now."""
    return Issue(severity="fatal", code="login", epic_code="4118", text="User is not authorized for this request.")


def scope_needed(resource_type: str) -> Issue:
    """Say that the access token was not granted this; the wording and the code are [assumed]."""
    return Issue(
        severity="fatal",
        code="forbidden",
        epic_code="4119",
        text="The client is not authorized for this request.",
        diagnostics=f"The access token grants no scope for this interaction with {resource_type}.",
    )


def restricted_record() -> Issue:
    """Say that the record is behind Break-the-Glass. Source: Epic's code 4130 [secondary]; the wording is [assumed]."""
    return Issue(
        severity="fatal",
        code="suppressed",
        epic_code="4130",
        text="Break-the-Glass security prevented the retrieval of this record.",
    )


def stale_version() -> Issue:
    """Say that the resource is at another version than the one to be updated; the code is [assumed]."""
    return Issue(
        severity="fatal",
        code="conflict",
        epic_code="59177",
        text="The resource has been changed since.",
        diagnostics="Expected If-Match with the current ETag.",
    )


def not_supported(diagnostics: str) -> Issue:
    """Say that the server does not do this."""
    return Issue(
        severity="fatal",
        code="not-supported",
        epic_code="59006",
        text="The interaction is not supported.",
        diagnostics=diagnostics,
    )


def scripted(status: int) -> Issue:
    """Say that the server cannot answer now, because a fault was asked for."""
    code = {408: "timeout", 429: "throttled", 504: "timeout"}.get(
        status, "transient" if status >= 500 else "processing"
    )
    return Issue(severity="fatal", code=code, epic_code="59500", text="The server cannot answer now.")


def operation_outcome(*issues: Issue) -> dict[str, Any]:
    """Give the OperationOutcome with these issues.

    Source: FHIR R4 operationoutcome.html; `details` as Epic fills it [seen].
    """
    return {"resourceType": "OperationOutcome", "issue": [_issue(issue) for issue in issues]}


def outcome_body(*issues: Issue) -> bytes:
    """Give the OperationOutcome with these issues as JSON."""
    return msgspec.json.encode(operation_outcome(*issues))


def _issue(issue: Issue) -> dict[str, Any]:
    coding = {"system": SYSTEM, "code": issue.epic_code, "display": issue.text}
    written: dict[str, Any] = {
        "severity": issue.severity,
        "code": issue.code,
        "details": {"coding": [coding], "text": issue.text},
    }
    if issue.diagnostics is not None:
        written["diagnostics"] = issue.diagnostics
    if issue.expression is not None:
        written["expression"] = [issue.expression]
    return written

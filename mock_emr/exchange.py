"""One call and its answer, as plain values between the routes and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mock_emr.faults import NO_FAULT, Rule
from mock_emr.journal import Write
from mock_emr.outcomes import Issue, outcome_body

FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"
JSON = "application/json"
HTML = "text/html"
XML_FORMATS = ("xml", "application/xml", "text/xml", FHIR_XML)
"""What asks for XML. Source: FHIR R4 http.html#mime-type."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back: status, body and its media type, further headers."""

    status: int = 200
    body: bytes = b""
    media_type: str = FHIR_JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The call is not answered with what it asked for, but with ``answer``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


@dataclass(kw_only=True, slots=True)
class Exchange:
    """What a route tells the journal about the call it answers, and the fault it must play.

    It is the one thing here that changes: the gate makes one per call and the route fills it in. ``scope`` is what was
    granted with the call's token, None on an open server.
    """

    client_id: str | None = None
    scope: str | None = None
    resource_type: str | None = None
    parameters: tuple[str, ...] = ()
    write: Write | None = None
    fault: Rule = NO_FAULT


def refuse(status: int, *issues: Issue, headers: Mapping[str, str] | None = None) -> Refused:
    """Give the refusal whose body is an OperationOutcome with these issues."""
    return Refused(Answer(status=status, body=outcome_body(*issues), headers=headers or {}))

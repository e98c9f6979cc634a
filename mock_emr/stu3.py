"""Conditions and Observations as STU3 has them, made of R4's.

Source: FHIR R4 condition.html and observation.html, "R3 Diff".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mock_emr.elements import codings

Resource = Mapping[str, Any]

TYPES = ("Condition", "Observation")
"""What the vendor still gives in STU3. Source: wire-formats.md section 2 [seen]."""
_RENAMED = {"encounter": "context", "recordedDate": "assertedDate"}
_NOT_IN_STU3 = {"recorder", "partOf", "focus", "hasMember", "derivedFrom"}


def stu3_of(resource: Resource, *, patient_id: str) -> dict[str, Any]:
    """Give a Condition or Observation of R4 in STU3's shape.

    Args:
        resource: of one of TYPES.
        patient_id: the patient's STU3 id, which the subject is to be named by.
    """
    made = {_RENAMED.get(name, name): value for name, value in resource.items() if name not in _NOT_IN_STU3}
    if "subject" in made:
        made["subject"] = {**made["subject"], "reference": f"Patient/{patient_id}"}
    for name in ("clinicalStatus", "verificationStatus"):
        if name in made:
            made[name] = next((code for _, code in codings(made[name])), "unknown")
    if resource["resourceType"] == "Observation":
        _observation(made)
    return made


def _observation(made: dict[str, Any]) -> None:
    interpretations = made.get("interpretation")
    if isinstance(interpretations, list):
        made["interpretation"] = interpretations[0]
    notes = made.pop("note", None)
    if isinstance(notes, list):
        made["comment"] = "\n".join(str(note.get("text", "")) for note in notes)

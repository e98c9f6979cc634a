"""The settings of the ways out: which there are, in which order, and what is secret about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.core.deliver import EXPIRES_AFTER
from deployr_serve.setting_values import existing_file

FHIR_KINDS: Mapping[str, str] = {
    "observation": "Observation",
    "risk-assessment": "RiskAssessment",
    "communication": "Communication",
    "flag": "Flag",
    "document-reference": "DocumentReference",
}
"""The outputs that are FHIR resources, by name."""
BY_VENDOR = ("score-column", "flowsheet", "smart-data", "in-basket")
KNOWN = frozenset({*BY_VENDOR, *FHIR_KINDS, "file-drop", "webhook"})
_IN_NAME_OF_A_USER = frozenset({"flowsheet", "smart-data"})
_LEAST_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSettings:
    """``chosen``: each way out with its alternatives, the preferred first; None takes the score column where there is a
    vendor base. ``file``: what belongs to each of them. ``expires_after``: how late a score may still be sent.
    ``patient_id_type``: by which identifier the vendor's write services are told of a patient.
    """

    chosen: tuple[tuple[str, ...], ...] | None
    file: Path | None
    expires_after: timedelta
    patient_id_type: str
    webhook_key: bytes | None = field(repr=False)

    @property
    def names(self) -> frozenset[str]:
        """Give every output that may be used, alternatives included."""
        return frozenset(name for names in self.chosen or () for name in names)


def read_outputs(reader: Reader) -> OutputSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    settings = OutputSettings(
        chosen=reader.read("DEPLOYR_OUTPUTS", _chosen, default=None),
        file=reader.read("DEPLOYR_OUTPUTS_FILE", existing_file, default=None),
        expires_after=reader.read("DEPLOYR_OUTPUT_EXPIRES_HOURS", _hours, default=EXPIRES_AFTER),
        patient_id_type=reader.read("DEPLOYR_OUTPUT_PATIENT_ID_TYPE", str, default="FHIR"),
        webhook_key=reader.read("DEPLOYR_WEBHOOK_KEY", _key, default=None),
    )
    if settings.names & set(BY_VENDOR) and not reader.has("DEPLOYR_EMR_VENDOR_BASE"):
        reader.problems.setdefault("DEPLOYR_EMR_VENDOR_BASE", "expected the base that DEPLOYR_OUTPUTS writes to")
    if settings.names & _IN_NAME_OF_A_USER and not reader.has("DEPLOYR_EMR_USER_ID"):
        reader.problems.setdefault("DEPLOYR_EMR_USER_ID", "expected the user in whose name scores are written")
    if "webhook" in settings.names and settings.webhook_key is None:
        reader.problems.setdefault("DEPLOYR_WEBHOOK_KEY", "expected the key that signs events")
    return settings


def _chosen(text: str) -> tuple[tuple[str, ...], ...]:
    chosen = tuple(tuple(name.strip() for name in part.split("|")) for part in text.split(","))
    names = [name for alternatives in chosen for name in alternatives]
    if not set(names) <= KNOWN or len(set(names)) != len(names):
        raise ValueError(
            f"expected each once, a comma between outputs and | between alternatives: {', '.join(sorted(KNOWN))}"
        )
    return chosen


def _hours(text: str) -> timedelta:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0):
        raise ValueError("expected a whole number of hours from 1 to 9999")
    return timedelta(hours=int(text))


def _key(text: str) -> bytes:
    if len(text.encode()) < _LEAST_KEY_BYTES:
        raise ValueError(f"expected a secret of at least {_LEAST_KEY_BYTES} bytes")
    return text.encode()

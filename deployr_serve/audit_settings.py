"""The settings of the audit, and of how long what is stored is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.core.retention import Kept
from deployr_serve.setting_values import plain_url


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """``folder``: None keeps no audit. ``fhir_base``: where the records are sent on to, with ``token`` if it has one.

    ``retention_days``: by kind; a kind that is not there is kept for good.
    """

    folder: Path | None
    fhir_base: str | None
    token: str | None = field(repr=False)
    retention_days: Mapping[Kept, int]


def read_audit(reader: Reader) -> AuditSettings:
    """Read them; what is wrong stands in the reader's problems afterwards."""
    settings = AuditSettings(
        folder=reader.read("DEPLOYR_AUDIT", _folder, default=None),
        fhir_base=reader.read("DEPLOYR_AUDIT_FHIR_BASE", _base, default=None),
        token=reader.read("DEPLOYR_AUDIT_FHIR_TOKEN", str, default=None),
        retention_days=reader.read("DEPLOYR_RETENTION_DAYS", _days, default={}),
    )
    if settings.fhir_base is not None and settings.folder is None:
        expected = "expected folder: and the path of a folder, from which DEPLOYR_AUDIT_FHIR_BASE is sent to"
        reader.problems.setdefault("DEPLOYR_AUDIT", expected)
    if settings.token is not None and settings.fhir_base is None:
        reader.problems.setdefault("DEPLOYR_AUDIT_FHIR_TOKEN", "is for DEPLOYR_AUDIT_FHIR_BASE, which is not set")
    return settings


def audit_too_weak_for_production(settings: AuditSettings) -> dict[str, str]:
    """Give what the prod profile does not take, by the setting's name."""
    problems = {}
    if settings.folder is None:
        problems["DEPLOYR_AUDIT"] = "expected folder: and the path of a folder for audit records, in the prod profile"
    if settings.fhir_base is not None and not settings.fhir_base.startswith("https://"):
        problems["DEPLOYR_AUDIT_FHIR_BASE"] = "expected https in the prod profile"
    return problems


def _folder(text: str) -> Path:
    kind, _, path = text.partition(":")
    if kind != "folder" or not path:
        raise ValueError("expected folder: and the path of a folder")
    return Path(path)


def _base(text: str) -> str:
    return plain_url(text).rstrip("/")


def _days(text: str) -> dict[Kept, int]:
    expected = f"expected kinds of {', '.join(Kept)} with whole days, such as scored:2557,unscored:400"
    days: dict[Kept, int] = {}
    for part in text.split(","):
        kind, _, number = part.strip().partition(":")
        if kind not in set(Kept) or not number.isdecimal() or not 1 <= int(number) <= 36_525:
            raise ValueError(expected)
        if Kept(kind) in days:
            raise ValueError(f"{expected}; each kind once")
        days[Kept(kind)] = int(number)
    return days

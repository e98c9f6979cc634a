"""The settings of what is read by the vendor's web services, and of how identifiers are resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import existing_file


class Interface(StrEnum):
    """``fhir``: searches. ``epic``: the vendor's services. ``epic-2019``: these, with the newer demographics."""

    FHIR = "fhir"
    EPIC = "epic"
    EPIC_2019 = "epic-2019"


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorSettings:
    """What is read how.

    ``reads``: the interface of each group that is not read by FHIR. ``components_file``: None is the one that is
    shipped. ``user_id`` and ``user_id_type``: in whose name the vendor's services read. ``identity``: who resolves
    identifiers. ``identifier_systems``: the FHIR identifier system of each type.
    """

    reads: Mapping[str, Interface]
    components_file: Path | None
    user_id: str = field(repr=False)
    user_id_type: str
    identity: Interface
    identifier_systems: Mapping[str, str]

    @property
    def needs_vendor_base(self) -> bool:
        """True if anything is read by the vendor's services."""
        return bool(self.reads) or self.identity is not Interface.FHIR


def read_vendor(reader: Reader) -> VendorSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    settings = VendorSettings(
        reads=reader.read("DEPLOYR_EMR_READS", _reads, default={}),
        components_file=reader.read("DEPLOYR_EMR_COMPONENTS", existing_file, default=None),
        user_id=reader.read("DEPLOYR_EMR_USER_ID", str, default=""),
        user_id_type=reader.read("DEPLOYR_EMR_USER_ID_TYPE", str, default="External"),
        identity=reader.read("DEPLOYR_EMR_IDENTITY", _identity, default=Interface.FHIR),
        identifier_systems=reader.read("DEPLOYR_EMR_IDENTIFIER_SYSTEMS", _systems, default={}),
    )
    if settings.needs_vendor_base and not reader.has("DEPLOYR_EMR_VENDOR_BASE"):
        reader.problems.setdefault(
            "DEPLOYR_EMR_VENDOR_BASE", "expected the base that the vendor's services are read at"
        )
    if settings.reads and not settings.user_id:
        reader.problems.setdefault("DEPLOYR_EMR_USER_ID", "expected the user in whose name the vendor's services read")
    return settings


def _reads(text: str) -> dict[str, Interface]:
    allowed = {
        "labs": (Interface.FHIR, Interface.EPIC),
        "vitals": (Interface.FHIR, Interface.EPIC),
        "patient": tuple(Interface),
    }
    found: dict[str, Interface] = {}
    for name, interface in _pairs(text).items():
        if name not in allowed or interface not in allowed[name]:
            raise ValueError("expected labs=, vitals= and patient=, each fhir or epic; patient also epic-2019")
        found[name] = Interface(interface)
    return {name: interface for name, interface in found.items() if interface is not Interface.FHIR}


def _identity(text: str) -> Interface:
    if text not in {Interface.FHIR, Interface.EPIC}:
        raise ValueError("expected fhir or epic")
    return Interface(text)


def _systems(text: str) -> dict[str, str]:
    systems = _pairs(text)
    if len(set(systems.values())) != len(systems):
        raise ValueError("expected each identifier system under one type")
    return systems


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not name or not value or name in found:
            raise ValueError("expected name=value, a comma between, each name once")
        found[name] = value
    return found

"""What a site's vendor interfaces call things: a data file, reviewed by the site, read and checked at start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from deployr_core.codes import LOINC, Code
from deployr_core.features import FeatureSpec, LabGroup, VitalGroup

SHIPPED = Path(__file__).with_name("epic_components.json")
"""For the paper's components. Source: `HCT` and the rows' ids, wire formats document, section 2 [seen]; the other base
names and the titles of races from public code of one hospital [secondary]; every site checks its own."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Misspelt keys are refused."""


class Component(_Entry, frozen=True, kw_only=True):
    """One component of results: the base name that it is asked for by, the code it means.

    ``unit`` is what its numbers are in where an answer does not say; empty if nobody knows. ``ids`` are what answers
    call it by, where that is not the base name.
    """

    base_name: str
    code: str
    system: str = LOINC
    unit: str = ""
    ids: tuple[str, ...] = ()

    @property
    def key(self) -> Code:
        """The code that its facts carry."""
        return Code(self.system, self.code)

    @property
    def names(self) -> frozenset[str]:
        """What an answer may call it, in capitals."""
        return frozenset(name.upper() for name in (self.base_name, *self.ids))


class FlowsheetRow(_Entry, frozen=True, kw_only=True):
    """One row of a flowsheet. With two codes its values are written ``first/second``, as blood pressures are."""

    id: str
    codes: tuple[str, ...]
    type: str = "EXTERNAL"
    system: str = LOINC
    unit: str = ""

    def __post_init__(self) -> None:
        if len(self.codes) not in {1, 2}:
            raise ValueError("expected one code for a flowsheet row, or two")

    @property
    def keys(self) -> tuple[Code, ...]:
        """The codes that its facts carry, in the order in which they are written."""
        return tuple(Code(self.system, code) for code in self.codes)


class VendorCodes(_Entry, frozen=True, kw_only=True):
    """The whole file.

    ``most_results``: how many results an answer holds at the most; one with as many may have been cut off.
    ``unit_spellings``: UCUM for what answers write. ``races`` and ``ethnicities``: OMB category codes by title.

    Raises:
        ValueError: another version, or a base name, id or row that is there twice.
    """

    schema_version: int
    components: tuple[Component, ...]
    flowsheet_rows: tuple[FlowsheetRow, ...]
    most_results: int = 200
    unit_spellings: dict[str, str] = {}
    races: dict[str, str] = {}
    ethnicities: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.schema_version != 1:
            raise ValueError("expected schema_version 1")
        if not 1 <= self.most_results <= 10_000:
            raise ValueError("expected most_results from 1 to 10000")
        _expect_once("component", (name for component in self.components for name in component.names))
        _expect_once("flowsheet row", (row.id for row in self.flowsheet_rows))

    def components_for(self, spec: FeatureSpec) -> tuple[Component, ...]:
        """Give the components that the declaration's laboratory groups are computed from."""
        wanted = {key for group in spec.groups if isinstance(group, LabGroup) for a in group.analytes for key in a.keys}
        return tuple(component for component in self.components if component.key in wanted)

    def rows_for(self, spec: FeatureSpec) -> tuple[FlowsheetRow, ...]:
        """Give the flowsheet rows that the declaration's vital signs are computed from."""
        groups = [group for group in spec.groups if isinstance(group, VitalGroup)]
        wanted = {key for group in groups for analyte in group.analytes for key in analyte.keys}
        return tuple(row for row in self.flowsheet_rows if wanted & set(row.keys))

    def knows_all_of(self, group: LabGroup | VitalGroup) -> bool:
        """True if each test of the group has a component, or a row."""
        known: set[Code]
        if isinstance(group, LabGroup):
            known = {component.key for component in self.components}
        else:
            known = {key for row in self.flowsheet_rows for key in row.keys}
        return all(known & set(analyte.keys) for analyte in group.analytes)

    def unit_of(self, told: str | None, fallback: str) -> str:
        """Give the unit in UCUM: what the answer says, else the file's; empty if neither does."""
        text = (told or "").strip()
        return self.unit_spellings.get(text, text) or fallback


def read_vendor_codes(path: Path) -> VendorCodes:
    """Read the data file.

    Raises:
        ValueError: it cannot be read, or is not what it must be; the message names the place.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=VendorCodes)
    except OSError:
        raise ValueError("expected a file that can be read") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a file of vendor codes: {error}") from None


def _expect_once(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"expected each {what} once, got {name!r} twice")
        seen.add(name)

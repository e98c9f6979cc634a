"""The causes that are known by name: what each means, and what is said of one that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deployr_core.features import (
    DiagnosisGroup,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    VisitGroup,
    VitalGroup,
    WindowedGroup,
)
from deployr_dev.parity_facts import Side

FEWEST = 3
"""How many facts must show a pattern before it is called one."""

MOST_OF, HALF_OF, SOME_OF = 0.8, 0.5, 0.05


class CauseKind(StrEnum):
    """What can be told from the pattern of the differences.

    ``missing-group``: one side has nothing of a group at all. ``missing-element``: the EMR has the resource, but not
    the element that makes it count. ``missing-facts``: one side lacks some of what the other has, and nothing tells
    why. ``code-system``: one side writes the same facts in a system or with codes that the declaration does not count.
    ``time-zone``: the same facts a constant time apart. ``late-results``: the same facts, known later at one side.
    ``unit-factor``: the same results, a constant factor apart. ``other-analyser``: some of the results of a test, a
    constant factor apart, the others equal. ``other-unit``: the same results in units that convert, at the cost of
    digits or of nothing. ``unit-not-converted``: the same results, in a unit without a reviewed conversion.
    ``case-mix``: both sides agree, and later patients are not those of before (`parity_periods`).
    """

    MISSING_GROUP = "missing-group"
    MISSING_ELEMENT = "missing-element"
    MISSING_FACTS = "missing-facts"
    CODE_SYSTEM = "code-system"
    TIME_ZONE = "time-zone"
    LATE_RESULTS = "late-results"
    UNIT_FACTOR = "unit-factor"
    OTHER_ANALYSER = "other-analyser"
    OTHER_UNIT = "other-unit"
    UNIT_NOT_CONVERTED = "unit-not-converted"
    CASE_MIX = "case-mix"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One cause, in one group; ``facts`` (or patients, of a demographic group) show it, of ``of`` that could.

    ``side``: whose facts are missing, late, or written otherwise; None where both are as likely. ``example``: a code, a
    unit, an element or a lag, never a patient's value; empty where the group says it all. ``patch``: what to change in
    the source mapping, empty where the mapping is not the place.
    """

    kind: CauseKind
    group: str
    side: Side | None
    facts: int
    of: int
    explanation: str
    example: str = ""
    patch: Mapping[str, Any] = field(default_factory=dict)


_WHERE: tuple[tuple[type[WindowedGroup], str, str, str], ...] = (
    (LabGroup, "measurement", "Observation", "issued"),
    (VitalGroup, "measurement", "Observation", "effective[x]"),
    (DiagnosisGroup, "condition_occurrence", "Condition", "recordedDate"),
    (MedicationGroup, "drug_exposure", "MedicationRequest", "authoredOn"),
    (ProcedureGroup, "procedure_occurrence", "Procedure", "performed[x]"),
    (OrderGroup, "ext_lab_order", "ServiceRequest", "authoredOn"),
    (VisitGroup, "visit_occurrence", "Encounter", "period.start"),
)


def table_of(group: WindowedGroup) -> str:
    """Name the OMOP table that a source mapping's ``local_systems`` speaks of."""
    return next(table for kind, table, _, _ in _WHERE if isinstance(group, kind))


def dated_by(group: WindowedGroup) -> str:
    """Name the FHIR element without which a fact of the group does not count."""
    return next(f"{resource}.{element}" for kind, _, resource, element in _WHERE if isinstance(group, kind))


def coded_by(group: WindowedGroup) -> str:
    """Name the FHIR element that says what a fact of the group is."""
    resource = next(resource for kind, _, resource, _ in _WHERE if isinstance(group, kind))
    return f"{resource}.{'medication[x]' if isinstance(group, MedicationGroup) else 'code'}"


def name_of(side: Side) -> str:
    """Name a side as people do."""
    return "EMR" if side is Side.EMR else "warehouse"


def share_of(part: int, whole: int) -> str:
    """Give a share as text, in whole percent."""
    return f"{part / whole:.0%}" if whole else "-"

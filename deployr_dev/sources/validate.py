"""Whether an extract can be trained on, before an hour is spent: what is wrong with it, how badly, and what to do.

Pure: `deployr_dev.sources.profile` counts, this judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from deployr_core.codes import LOINC, Code
from deployr_core.units import CANONICAL_SPELLING, conversion_factor
from deployr_dev.sources.profile import OrderCounts, Profile, TableCount, UnitCount, Unmapped

MAY_BE_NEGATIVE = frozenset(
    {"1925-7", "1927-3", "1922-4", "11555-0", "19235-1", "30318-0", "33037-3", "10466-1", "1863-0", "41276-7"}
)
"""LOINC codes of results that can be below zero: base excess, and the anion gap."""
_MANY = 0.05


class Severity(StrEnum):
    """How much a finding matters: training would fail or be wrong; may be wrong; good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was found. ``count`` is of facts, results or rows, as ``what`` says; 0 where nothing is counted.

    ``check``: which check found it, a word that does not change.
    """

    severity: Severity
    check: str
    table: str
    what: str
    count: int
    do: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitLine:
    """One unit of one test. ``factor`` takes its values to ``wanted``; None if no conversion was reviewed."""

    table: str
    system: str
    code: str
    unit: str
    results: int
    median: float | None
    wanted: str
    factor: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationReport:
    """What is in an extract and what is wrong with it; the findings by severity, the worst first."""

    source: str
    mapping: str | None
    findings: tuple[Finding, ...]
    tables: tuple[TableCount, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()
    units: tuple[UnitLine, ...] = ()

    @property
    def is_usable(self) -> bool:
        """True without a finding that is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def to_json(self) -> bytes:
        """Give the report as JSON, with the key ``usable``."""
        return msgspec.json.format(msgspec.json.encode({"usable": self.is_usable, **msgspec.to_builtins(self)}))


_IF_EMPTY = {
    "persons": (Severity.ERROR, "nobody can be trained on; export the table again"),
    "labs": (Severity.ERROR, "tasks have no labels; export the table again"),
    "orders": (
        Severity.WARNING,
        "tasks about orders have no rows; in OMOP orders are in ext_lab_order, docs/sources.md",
    ),
}


def judge(
    profile: Profile, *, source: str, mapping: str, wanted_units: Mapping[Code, str] | None = None
) -> ValidationReport:
    """Judge what was counted.

    Args:
        profile: the counts.
        source: what the extract is called in the report.
        mapping: the name of its mapping.
        wanted_units: the unit that a declaration wants a test in; a test that it does not name is wanted in the unit
            that it mostly comes in.
    """
    units = tuple(_unit_lines(profile.units, wanted_units or {}))
    findings = [
        *_sizes(profile),
        *_times(profile),
        *_ids(profile),
        *_orders(profile.orders),
        *_codes(profile),
        *_units(units),
        *_values(profile.units),
        *_left_out(profile),
    ]
    order = list(Severity)
    return ValidationReport(
        source=source,
        mapping=mapping,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        tables=profile.tables,
        unmapped=profile.unmapped,
        units=units,
    )


def refused(*, source: str, faults: tuple[str, ...]) -> ValidationReport:
    """Give the report of an extract that could not be opened."""
    findings = (
        Finding(
            severity=Severity.ERROR,
            check="cannot_be_opened",
            table="",
            what=fault,
            count=0,
            do="mend the extract, or name its mapping as NAME:PATH or in a source.yaml beside its tables",
        )
        for fault in faults
    )
    return ValidationReport(source=source, mapping=None, findings=tuple(findings))


def _finding(severity: Severity, check: str, table: str, what: str, count: int, do: str) -> Iterator[Finding]:
    """Give a finding if there is anything to find."""
    if count:
        yield Finding(severity=severity, check=check, table=table, what=what, count=count, do=do)


def _sizes(profile: Profile) -> Iterator[Finding]:
    for table in profile.tables:
        if table.rows == 0:
            severity, do = _IF_EMPTY.get(table.table, (Severity.NOTE, "features and cohorts that need it find nothing"))
            yield Finding(
                severity=severity, check="empty_table", table=table.table, what="has no facts", count=0, do=do
            )
    yield from _finding(
        Severity.WARNING,
        "no_birth_year",
        "persons",
        "persons without a year of birth",
        profile.persons_without_birth_year,
        "they have no age; add it, or leave age out of the declaration",
    )


def _times(profile: Profile) -> Iterator[Finding]:
    for table, count in profile.undated.items():
        yield from _finding(
            Severity.WARNING,
            "undated_rows",
            table,
            "rows with neither time nor day are left out",
            count,
            "nobody can place them; see why the warehouse has no date",
        )
    for table, column in profile.dates_only:
        yield Finding(
            severity=Severity.WARNING,
            check="midnights_only",
            table=table,
            what=f"the times of {column} are all midnight, so they are read as days, known at the day's end",
            count=0,
            do="export the time of day if there is one: a day is too coarse for predictions within a stay",
        )
    if profile.zoneless:
        yield Finding(
            severity=Severity.NOTE,
            check="times_without_zone",
            table=", ".join(profile.zoneless),
            what="times carry no zone; the mapping's time_zone is taken",
            count=0,
            do="check it against one record whose true time you know",
        )
    for faults in profile.times:
        table = faults.table
        yield from _finding(
            Severity.WARNING, "in_future", table, "facts are dated in the future", faults.in_future, "check the zone"
        )
        yield from _finding(
            Severity.WARNING,
            "known_too_early",
            table,
            "facts were known before they happened",
            faults.known_too_early,
            "check which column is the specimen's and which the result's",
        )
        yield from _finding(
            Severity.WARNING,
            "before_birth",
            table,
            "facts are older than their person",
            faults.before_birth,
            "look for a placeholder date such as 1900-01-01",
        )


def _ids(profile: Profile) -> Iterator[Finding]:
    for faults in profile.times:
        yield from _finding(
            Severity.ERROR,
            "doubled_ids",
            faults.table,
            "ids stand for several facts",
            faults.doubled,
            "remove repeated rows, or give each fact its own id",
        )
        yield from _finding(
            Severity.WARNING,
            "of_no_person",
            faults.table,
            "facts are of nobody in persons",
            faults.of_no_person,
            "export the same patients in every table",
        )


def _orders(counts: OrderCounts) -> Iterator[Finding]:
    if not counts.orders:
        return
    yield from _finding(
        Severity.ERROR if counts.released_before_order > _MANY * counts.results else Severity.WARNING,
        "released_before_order",
        "labs",
        "results were released before their order was placed",
        counts.released_before_order,
        "a model would see its own label: check which column is the order's time",
    )
    yield from _finding(
        Severity.WARNING,
        "released_with_order",
        "labs",
        "results were released at the very instant of their order",
        counts.released_with_order,
        "one of the two times is a copy of the other; find the true one",
    )
    yield from _finding(
        Severity.NOTE,
        "drawn_before_order",
        "labs",
        "specimens were taken before their order was placed",
        counts.drawn_before_order,
        "right for tests added to a specimen; otherwise check the columns",
    )
    yield from _finding(
        Severity.NOTE,
        "drawn_with_order",
        "labs",
        "specimens were taken at the very instant of their order",
        counts.drawn_with_order,
        "the order's time may have been made of the specimen's",
    )
    yield from _finding(
        Severity.NOTE,
        "no_order",
        "labs",
        "results name no order",
        counts.results_naming_no_order,
        "their release is the mapping's guess if the table has no release time",
    )
    yield from _finding(
        Severity.WARNING,
        "absent_order",
        "labs",
        "results name an order that is not there",
        counts.results_naming_absent_order,
        "export the orders of the same patients and years",
    )
    yield from _finding(
        Severity.NOTE, "no_result", "orders", "orders have no result", counts.without_result, "they have no label"
    )


def _codes(profile: Profile) -> Iterator[Finding]:
    facts = {table.table: table.facts for table in profile.tables}
    for unmapped in profile.unmapped:
        many = unmapped.facts > _MANY * facts[unmapped.table]
        yield from _finding(
            Severity.WARNING if many else Severity.NOTE,
            "unmapped_codes",
            unmapped.table,
            f"facts of {facts[unmapped.table]} have no code of a standard system",
            unmapped.facts,
            "map the codes below, or declare features by the local system",
        )


def _unit_lines(counts: tuple[UnitCount, ...], wanted_units: Mapping[Code, str]) -> Iterator[UnitLine]:
    by_test: dict[tuple[str, str, str], list[UnitCount]] = defaultdict(list)
    for count in counts:
        by_test[count.table, count.system, count.code].append(count)
    for (table, system, code), units in by_test.items():
        commonest = max((unit for unit in units if unit.unit), key=lambda unit: unit.results, default=units[0]).unit
        test = Code(system, code)
        wanted = wanted_units.get(test, CANONICAL_SPELLING.get(commonest, commonest))
        for unit in units:
            yield UnitLine(
                table=table,
                system=system,
                code=code,
                unit=unit.unit,
                results=unit.results,
                median=unit.median,
                wanted=wanted,
                factor=conversion_factor(test, unit=unit.unit, wanted=wanted),
            )


def _units(lines: tuple[UnitLine, ...]) -> Iterator[Finding]:
    for line in lines:
        if line.factor is None:
            spelt = repr(line.unit) if line.unit else "no unit"
            yield from _finding(
                Severity.WARNING,
                "no_conversion",
                line.table,
                f"results of {_test(line.system, line.code)} in {spelt} cannot be taken to {line.wanted!r}",
                line.results,
                "they count as no number; add a reviewed conversion to deployr_core/units.py, or declare that unit",
            )


def _values(counts: tuple[UnitCount, ...]) -> Iterator[Finding]:
    for count in counts:
        test = f"results of {_test(count.system, count.code)} in {count.unit!r}"
        do = "see what the source writes there, such as 9999999 for a text; set them to NULL"
        yield from _finding(
            Severity.ERROR, "not_finite", count.table, f"{test} are infinite or not a number", count.not_finite, do
        )
        yield from _finding(
            Severity.WARNING, "too_large", count.table, f"{test} are too large for any unit", count.too_large, do
        )
        if not (count.system == LOINC and count.code in MAY_BE_NEGATIVE):
            yield from _finding(Severity.WARNING, "negative", count.table, f"{test} are below zero", count.negative, do)
        yield from _finding(
            Severity.WARNING,
            "far_outside",
            count.table,
            f"{test} are over a thousand times the median",
            count.far_outside,
            "a unit may be wrong, or a placeholder stand for no number",
        )


def _left_out(profile: Profile) -> Iterator[Finding]:
    for reason, count in profile.left_out.items():
        table, _, why = reason.partition(".")
        yield from _finding(
            Severity.NOTE,
            "left_out",
            table,
            f"resources are no facts: {why.replace('_', ' ')}",
            count,
            "serving leaves the same out; nothing to do if that is so",
        )


def _test(system: str, code: str) -> str:
    return f"{'LOINC' if system == LOINC else system} {code}"

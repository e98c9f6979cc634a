"""The validator counts what is wrong with an extract and says what to do, before an hour is spent on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from deployr_cli.validate import run_validate
from deployr_core.codes import LOINC, Code
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.profile import profile_of
from deployr_dev.sources.validate import Finding, Severity, ValidationReport, judge

NOW = datetime(2020, 1, 1, tzinfo=UTC)
LAB = "person_id,fact_id,system,code,value,unit,order_id,happened_at,known_at\n"
ORDER = "person_id,fact_id,code,happened_at\n1,O1,58410-2,2015-01-06 08:00:00\n"
HEMATOCRIT = Code(LOINC, "4544-3")


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., ValidationReport]:
    """Give a function that writes flat tables and validates them on 1 January 2020."""

    def make(**tables: str) -> ValidationReport:
        for name, text in {"persons": "person_id,birth_year\n1,1950\n", **tables}.items():
            (tmp_path / f"{name}.csv").write_text(text)
        with Extract.open(tmp_path) as extract:
            profile = profile_of(extract, as_of=NOW)
        return judge(profile, source="here", mapping="flat", wanted_units={HEMATOCRIT: "%"})

    return make


def lab(
    fact_id: str = "L1",
    *,
    person: int = 1,
    system: str = LOINC,
    code: str = "4544-3",
    value: object = 40,
    unit: str = "%",
    order: str = "",
    at: str = "2015-01-06 09:00:00",
    known: str = "2015-01-06 10:00:00",
) -> str:
    return f"{person},{fact_id},{system},{code},{value},{unit},{order},{at},{known}\n"


def found(report: ValidationReport, check: str) -> list[tuple[str, int, Severity]]:
    return [(each.table, each.count, each.severity) for each in report.findings if each.check == check]


def test_a_sound_extract_has_no_errors_and_no_warnings(report: Callable[..., ValidationReport]):
    good = report(labs=LAB + lab(order="O1"), orders=ORDER)

    assert good.is_usable
    assert {finding.severity for finding in good.findings} == {Severity.NOTE}


def test_sizes_and_spans_are_of_facts_and_not_of_rows(report: Callable[..., ValidationReport]):
    twice_coded = lab() + lab(system="urn:x", code="HCT")

    tables = {
        table.table: table for table in report(labs=LAB + twice_coded + lab("L2", at="2016-01-06 09:00:00")).tables
    }

    assert (tables["labs"].rows, tables["labs"].facts, tables["labs"].persons) == (3, 2, 1)
    assert (tables["labs"].first, tables["labs"].last) == (
        datetime(2015, 1, 6, 9, tzinfo=UTC),
        datetime(2016, 1, 6, 9, tzinfo=UTC),
    )
    assert tables["deaths"].first is None


@pytest.mark.parametrize(
    ("check", "rows", "count", "severity"),
    [
        ("not_finite", lab(value="inf") + lab("L2", value="nan"), 2, Severity.ERROR),
        ("negative", lab(value=-1), 1, Severity.WARNING),
        ("too_large", lab(value=1e9), 1, Severity.WARNING),
        ("far_outside", "".join(lab(f"L{n}") for n in range(9)) + lab("X", value=40_001), 1, Severity.WARNING),
        ("no_conversion", lab(unit="mg/dL"), 1, Severity.WARNING),
        ("unmapped_codes", lab(system="urn:starr:base-name", code="HCT"), 1, Severity.WARNING),
        ("doubled_ids", lab() + lab(value=41), 1, Severity.ERROR),
        ("doubled_ids", lab() + lab(), 1, Severity.ERROR),
        ("of_no_person", lab(person=2), 1, Severity.WARNING),
        ("in_future", lab(known="2020-01-01 00:00:01"), 1, Severity.WARNING),
        ("known_too_early", lab(known="2015-01-06 08:59:59"), 1, Severity.WARNING),
        ("before_birth", lab(at="1900-01-01 09:00:00"), 1, Severity.WARNING),
        ("undated_rows", lab(at=""), 1, Severity.WARNING),
        ("absent_order", lab(order="O2"), 1, Severity.WARNING),
        ("no_order", lab(), 1, Severity.NOTE),
        ("released_before_order", lab(order="O1", known="2015-01-06 07:59:00"), 1, Severity.ERROR),
        ("released_with_order", lab(order="O1", known="2015-01-06 08:00:00"), 1, Severity.WARNING),
        ("drawn_before_order", lab(order="O1", at="2015-01-06 07:00:00"), 1, Severity.NOTE),
        ("drawn_with_order", lab(order="O1", at="2015-01-06 08:00:00"), 1, Severity.NOTE),
    ],
)
def test_each_fault_is_found_counted_and_graded(
    report: Callable[..., ValidationReport], check: str, rows: str, count: int, severity: Severity
):
    assert found(report(labs=LAB + rows, orders=ORDER), check) == [("labs", count, severity)]


def test_base_excess_may_be_negative(report: Callable[..., ValidationReport]):
    assert not found(report(labs=LAB + lab(code="1925-7", value=-3, unit="mmol/L")), "negative")


def test_units_are_listed_with_the_factor_to_the_one_that_is_wanted(report: Callable[..., ValidationReport]):
    rows = lab(value=0.4, unit="L/L") + lab("L2", unit="percent") + lab("L3", unit="")

    lines = {line.unit: (line.wanted, line.factor, line.results) for line in report(labs=LAB + rows).units}

    assert lines == {"L/L": ("%", 100.0, 1), "percent": ("%", 1.0, 1), "": ("%", None, 1)}


def test_midnights_only_is_a_warning_about_the_column(report: Callable[..., ValidationReport]):
    rows = lab(at="2015-01-06") + lab("L2", at="2015-01-07", known="2015-01-08 10:00:00")

    warning = next(f for f in report(labs=LAB + rows).findings if f.check == "midnights_only")

    assert (warning.table, warning.severity) == ("labs", Severity.WARNING)
    assert "happened_at" in warning.what


def test_persons_without_a_birth_year_and_empty_tables_are_found(report: Callable[..., ValidationReport]):
    thin = report(persons="person_id,birth_year\n1,\n", labs=LAB)

    assert found(thin, "no_birth_year") == [("persons", 1, Severity.WARNING)]
    assert ("labs", 0, Severity.ERROR) in found(thin, "empty_table")
    assert ("orders", 0, Severity.WARNING) in found(thin, "empty_table")
    assert not thin.is_usable


def test_the_worst_comes_first(report: Callable[..., ValidationReport]):
    severities = [finding.severity for finding in report(labs=LAB + lab(value="inf") + lab("L2", unit="?")).findings]

    assert severities == sorted(severities, key=list(Severity).index)


def test_an_extract_that_cannot_be_opened_has_its_faults_as_findings(tmp_path: Path):
    (tmp_path / "person.csv").write_text("person_id\n1\n")
    out = tmp_path / "report.json"

    with (tmp_path / "screen").open("w") as screen:
        usable = run_validate(f"omop54:{tmp_path}", out, console=Console(file=screen, width=200))

    said = json.loads(out.read_bytes())
    assert (usable, said["usable"], said["mapping"]) == (False, False, None)
    assert any(
        finding["what"] == "person.csv lacks the column gender_concept_id, year_of_birth, month_of_birth, "
        "day_of_birth, race_concept_id, ethnicity_concept_id, person_source_value"
        for finding in said["findings"]
    )
    assert "table concept is missing" in (tmp_path / "screen").read_text()


def test_every_finding_says_what_to_do(report: Callable[..., ValidationReport]):
    findings: tuple[Finding, ...] = report(labs=LAB + lab(value=-1, unit="?", person=3, at="1900-01-01")).findings

    assert len(findings) > 5
    assert all(finding.do and finding.what for finding in findings)

"""`deployr validate`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployr_cli.progress import bar
from deployr_core.codes import Code
from deployr_core.features import LabGroup
from deployr_dev.declarations.shipped import shipped_declaration, shipped_declaration_names
from deployr_dev.sources.database import Steps
from deployr_dev.sources.extract import open_source, shown_source
from deployr_dev.sources.mapping import MappingInvalid
from deployr_dev.sources.profile import profile_of
from deployr_dev.sources.tables import ExtractInvalid
from deployr_dev.sources.validate import Severity, ValidationReport, judge, refused

_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_MOST_UNITS = 40


def run_validate(source: str, json_file: Path | None, *, console: Console | None = None) -> bool:
    """Report what is in an extract and what is wrong with it; True if it can be trained on.

    Args:
        source: a folder, or a database's URL; ``NAME:`` of a shipped mapping may stand before it.
        json_file: where the whole report goes as JSON; None writes none.
        console: where the tables go; None takes standard output.
    """
    console = console or Console()
    report = validated(source, as_of=datetime.now(UTC), steps=partial(bar, console))
    show(report, console)
    if json_file is not None:
        json_file.write_bytes(report.to_json())
    return report.is_usable


def validated(source: str, *, as_of: datetime, steps: Steps | None = None) -> ValidationReport:
    """Give the report of a source; one that cannot be opened has the reasons as its findings."""
    shown = shown_source(source)
    try:
        with open_source(source, steps=steps) as extract:
            profile = profile_of(extract, as_of=as_of)
            return judge(profile, source=shown, mapping=extract.mapping.name, wanted_units=_declared_units())
    except ExtractInvalid as error:
        return refused(source=shown, faults=error.faults)
    except MappingInvalid as error:
        return refused(source=shown, faults=(str(error),))


def show(report: ValidationReport, console: Console) -> None:
    """Print the report's tables."""
    console.print(f"{report.source}: mapping {report.mapping or 'none'}", highlight=False)
    if report.tables:
        tables = Table("table", "rows", "facts", "persons", "from", "to", title="Fact tables", title_justify="left")
        for table in report.tables:
            days = [f"{moment:%Y-%m-%d}" if moment else "" for moment in (table.first, table.last)]
            tables.add_row(table.table, f"{table.rows:,}", f"{table.facts:,}", f"{table.persons:,}", *days)
        console.print(tables)
    for unmapped in report.unmapped:
        codes = Table("system", "code", "facts", title=f"Unmapped codes in {unmapped.table}", title_justify="left")
        for code in unmapped.commonest:
            codes.add_row(code.system or "none", code.code or "none", f"{code.facts:,}")
        console.print(codes)
    odd = [line for line in report.units if line.factor != 1.0]
    if odd:
        units = Table("test", "unit", "results", "median", "taken to", "factor", title="Units", title_justify="left")
        for line in odd[:_MOST_UNITS]:
            median = "" if line.median is None else f"{line.median:g}"
            factor = "none reviewed" if line.factor is None else f"{line.factor:g}"
            units.add_row(line.code, line.unit or "none", f"{line.results:,}", median, line.wanted or "none", factor)
        console.print(units)
    findings = Table("", "table", "count", "what", "what to do", title="Findings", title_justify="left")
    for finding in report.findings:
        count = f"{finding.count:,}" if finding.count else ""
        style = _STYLE[finding.severity]
        findings.add_row(finding.severity, finding.table, count, finding.what, finding.do, style=style)
    console.print(findings)
    counts = [sum(finding.severity is severity for finding in report.findings) for severity in Severity]
    verdict = "can be trained on" if report.is_usable else "cannot be trained on as it is"
    console.print(f"{verdict}: {counts[0]} errors, {counts[1]} warnings, {counts[2]} notes", highlight=False)


def _declared_units() -> Mapping[Code, str]:
    """Give the unit that the shipped declarations want each test in; the first that names it decides."""
    units: dict[Code, str] = {}
    for name in shipped_declaration_names():
        for group in shipped_declaration(name).groups:
            for analyte in group.analytes if isinstance(group, LabGroup) else ():
                units.setdefault(Code(analyte.system, analyte.code), analyte.unit)
    return units

"""`deployr doctor`: reads the settings, examines the site check by check, prints what was found and what to fix."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployr_cli.doctor.chart import check_chart, check_search_by_post, check_vendor, check_write
from deployr_cli.doctor.decide.findings import (
    Finding,
    State,
    has_failed,
    settings_findings,
    to_fix,
    to_json,
    verdict,
)
from deployr_cli.doctor.decide.writes import refusal
from deployr_cli.doctor.visit import Asked, Visit, Watched
from deployr_cli.doctor.way_in import check_way_in
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import Transport
from deployr_serve.bootstrap import build
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock
from deployr_serve.settings import Profile, Settings, read_settings
from deployr_serve.store_settings import InMemory

_MARKS = {
    State.OK: ("✓", "green"),
    State.WARN: ("!", "yellow"),
    State.FAIL: ("✗", "bold red"),
    State.SKIPPED: ("·", "dim"),
}
_CHECK_WIDTH = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """What is said about the test write: ``environment`` as it was repeated, ``confirm`` asks a person."""

    environment: str | None
    confirm: Callable[[str], bool]


def run_doctor(
    settings_file: Path | None,
    asked: Asked,
    *,
    write: Write,
    json_file: Path | None,
    console: Console | None = None,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
) -> bool:
    """Examine a site; True if nothing has to be fixed.

    Args:
        settings_file: a local.settings.json; the environment wins over it. None takes the environment alone.
        asked: what is asked for beside the settings.
        write: consulted only where a test score is asked for.
        json_file: where the findings go as JSON; None writes none.
        console: where they are printed; None takes standard output.
        clock: the machine's, for tests; None takes it.
        environ: the environment, for tests; None takes it.

    Raises:
        CommandFailed: the file cannot be read, or no test score may be written.
    """
    console = console or Console()
    values = settings_values(settings_file, os.environ if environ is None else environ)
    findings: list[Finding] = []
    told = _Telling(console)
    try:
        settings = read_settings(values)
        _allow(settings, asked, write)
        with _quiet_app():
            findings = asyncio.run(_examined(settings, asked, tell=told, clock=clock or SystemClock()))
    except SettingsInvalid as error:
        findings = settings_findings(str(error))
        for finding in findings:
            told(finding)
    _show_fixes(findings, console)
    if json_file is not None:
        json_file.write_bytes(to_json(findings))
    return not has_failed(findings)


def _allow(settings: Settings, asked: Asked, write: Write) -> None:
    """Return if a test score may be written, or none is asked for."""
    if not asked.write_test:
        return
    problem = refusal(
        environment=settings.environment,
        is_prod_profile=settings.profile is Profile.PROD,
        repeated=write.environment,
        has_base=settings.vendor_base is not None,
        has_patient=asked.patient is not None,
    )
    if problem:
        raise CommandFailed(problem)
    question = f"Write one score of 0 to the test patient's encounter in {settings.environment}?"
    if not write.confirm(question):
        raise CommandFailed("--write-test: nothing was written; answer yes, or pass --yes")


async def _examined(
    settings: Settings, asked: Asked, *, tell: Callable[[Finding], None], clock: Clock
) -> list[Finding]:
    visit = _visit(settings, asked, tell=tell, clock=clock)
    try:
        await check_way_in(visit)
        if await check_search_by_post(visit):
            # What comes next is examined as it will be once this is fixed.
            found, visit = visit, await _by_get(visit)
            visit.findings, visit.statement = found.findings, found.statement
        encounter = await check_chart(visit)
        await check_vendor(visit, encounter)
        await check_write(visit, encounter)
    finally:
        await visit.application.aclose()
    return visit.findings


async def _by_get(visit: Visit) -> Visit:
    await visit.application.aclose()
    return _visit(replace(visit.settings, search_by_get=True), visit.asked, tell=visit.tell, clock=visit.clock)


def _visit(settings: Settings, asked: Asked, *, tell: Callable[[Finding], None], clock: Clock) -> Visit:
    made: list[Watched] = []

    def over(network: Transport) -> Transport:
        made.append(Watched(network, clock=clock))
        return made[0]

    # No store is opened, and nothing is repeated: what fails once at night is to be seen.
    application = build(replace(settings, store=InMemory()), over=over)
    return Visit(settings=settings, application=application, watched=made[0], clock=clock, asked=asked, tell=tell)


@contextmanager
def _quiet_app() -> Iterator[None]:
    """Keep what the app logs about the same troubles from standing between the lines."""
    log = logging.getLogger("deployr_serve")
    was = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(was)


class _Telling:
    """Prints each finding as it is made, under one another."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, finding: Finding) -> None:
        mark, style = _MARKS[finding.state]
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=_CHECK_WIDTH, overflow="fold")
        line.add_column(overflow="fold")
        # Text, not markup: a unit such as mm[Hg] is none.
        muted = "dim" if finding.state is State.SKIPPED else ""
        said = finding.said if finding.state is not State.SKIPPED else f"skipped: {finding.said}"
        line.add_row(Text(mark, style=style), Text(finding.check, style=style), Text(said, style=muted))
        self._console.print(line)


def _show_fixes(findings: list[Finding], console: Console) -> None:
    for title, state in (("To fix, in this order", State.FAIL), ("To look at", State.WARN)):
        chosen = to_fix(findings) if state is State.FAIL else [it for it in findings if it.state is state]
        if not chosen:
            continue
        console.print(Text(f"\n{title}", style="bold"))
        for number, finding in enumerate(chosen, start=1):
            line = Table.grid(padding=(0, 1))
            line.add_column(width=3, justify="right")
            line.add_column(overflow="fold")
            line.add_row(f"{number}.", Text.assemble((f"{finding.check}: ", _MARKS[state][1]), finding.fix))
            console.print(line)
    console.print(Text(f"\n{verdict(findings)}", style="bold"))

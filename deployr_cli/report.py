"""`deployr report`: how the models do, as files for a committee, from an extract and without a browser."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of, with_store
from deployr_cli.workspaces import EXTRACT_FOLDER
from deployr_core.instants import parse_instant
from deployr_core.monitoring.alert_words import WORDS
from deployr_core.monitoring.alerting import Notice, What
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.alert_bootstrap import desk_of, read_rules
from deployr_serve.settings import Settings, read_settings
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    from deployr_dash.panels.panel import Window
    from deployr_dash.report import Report
    from deployr_dash.report_making import Asked
    from deployr_plots.tables import Table


class Labels(StrEnum):
    """Which labels count."""

    RIPE = "ripe"
    ALL = "all"


_Day = datetime | None


def report(
    extract: Annotated[Path, typer.Argument(help="The folder of deployr monitor extract.")] = EXTRACT_FOLDER,
    models: Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeatable.")] = None,
    first: Annotated[
        _Day, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in UTC; default: 90 days up to --to.")
    ] = None,
    last: Annotated[
        _Day, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, included; default: that of the extract.")
    ] = None,
    labels: Annotated[Labels, typer.Option(help="ripe leaves out labels that came early.")] = Labels.RIPE,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write one HTML file that needs nothing else.")
    ] = None,
    pdf_file: Annotated[Path | None, typer.Option("--pdf", help="Write a PDF with bookmarks and tags.")] = None,
    plans: Annotated[Path | None, typer.Option(help="A folder with a monitoring_plan.yaml for each model.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A local.settings.json: alerts of these days are then read from its store.")
    ] = None,
    made_by: Annotated[str | None, typer.Option("--by", help="Who makes it; default: the account it runs in.")] = None,
    at: Annotated[str | None, typer.Option(help="When it is made, such as 2015-04-01T06:00:00Z; default: now.")] = None,
) -> None:
    """Write what the dashboard shows as a report for a committee: HTML, PDF, or both.

    It reads an extract and changes nothing, names no patient, and needs no browser: run it by a timer. The same extract
    and the same --at give the same bytes. Exits with 2 if nothing could be written; nothing half-done stays behind.

    Start with: [bold]deployr report --html report.html --pdf report.pdf[/bold]
    """
    if html_file is None and pdf_file is None:
        raise CommandFailed("expected --html FILE, --pdf FILE, or both: where is the report to go?")
    _expect_installed(pdf=pdf_file is not None)
    for file in (html_file, pdf_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise CommandFailed(f"{file}: expected its folder to be there; make it first")
    from deployr_dash.report_making import Asked

    asked = Asked(
        models=tuple(models or ()),
        first=None if first is None else first.date(),
        last=None if last is None else last.date(),
        only_ripe=labels is Labels.RIPE,
    )
    made_at = SystemClock().now() if at is None else parse_instant(at)
    console = Console()
    site = None if settings is None else read_settings(settings_values(settings, os.environ))
    made = _made(extract, asked, plans, site, made_at=made_at, made_by=made_by or _account(), console=console)
    _write(made, html_file, pdf_file, console=console)


def alert_tables(notices: Sequence[Notice], window: Window) -> dict[str, Table]:
    """Give the alerts that began in a window, by model, the newest last; those of no model under the empty name."""
    from deployr_plots.tables import Table

    over = {(each.key, each.begun_at): each.at for each in notices if each.what is What.ENDED}
    # One that began in silence, and was told once the silence was over, is the same one.
    begun = {(each.key, each.begun_at): each for each in notices if each.what is What.BEGUN}
    rows: dict[str, list[tuple[str, ...]]] = {}
    for each in begun.values():
        if not window.start <= each.begun_at < window.end:
            continue
        end = over.get((each.key, each.begun_at))
        row = (
            f"{each.begun_at:%Y-%m-%d %H:%M}",
            "not yet" if end is None else f"{end:%Y-%m-%d %H:%M}",
            each.severity.value if each.is_told else f"{each.severity.value}, silenced",
            f"{WORDS[each.rule].title}{f' ({each.part})' if each.part else ''}",
            each.said,
        )
        rows.setdefault(each.model, []).append(row)
    columns = ("began (UTC)", "over (UTC)", "severity", "alert", "what was found")
    return {model: Table(columns=columns, rows=tuple(some)) for model, some in rows.items()}


def _alerts(site: Settings, window: Window) -> dict[str, Table]:
    async def told(store: Store) -> Sequence[Notice]:
        desk = desk_of(site, read_rules(site.alerts), records=store, clock=clock_of(site))
        return await desk.told(since=window.start)

    return alert_tables(with_store(site, told), window)


def _made(
    extract: Path,
    asked: Asked,
    plans: Path | None,
    site: Settings | None,
    *,
    made_at: datetime,
    made_by: str,
    console: Console,
) -> Report:
    from deployr_dash.report_making import make_report

    if plans is not None and not plans.is_dir():
        raise CommandFailed(f"{plans}: expected a folder with a monitoring_plan.yaml for each model")
    with bar(console, "measuring") as tell:
        return make_report(
            extract,
            asked,
            made_at=made_at.astimezone(UTC).replace(microsecond=0),
            made_by=made_by,
            plans=plans,
            alerts=None if site is None else partial(_alerts, site),
            tell=tell,
        )


def _write(made: Report, html_file: Path | None, pdf_file: Path | None, *, console: Console) -> None:
    from deployr_dash.parts import aside
    from deployr_dash.report import drawings_of
    from deployr_dash.report_html import report_html
    from deployr_dash.report_pdf import report_pdf

    with bar(console, "drawing") as tell:
        drawings = drawings_of(made, tell)
    ways: list[tuple[Path | None, Callable[[], bytes]]] = [
        (html_file, lambda: report_html(made, drawings).encode()),
        (pdf_file, lambda: report_pdf(made, drawings)),
    ]
    # Both are whole before either is written.
    whole = [(file, write()) for file, write in ways if file is not None]
    for file, content in whole:
        with aside(file) as part:
            part.write_bytes(content)
    for file, content in whole:
        console.print(f"{file}: {made.title}, {len(content) / 1e6:.1f} MB", highlight=False, soft_wrap=True)


def _expect_installed(*, pdf: bool) -> None:
    if any(find_spec(each) is None for each in ("pyarrow", "pandas", "duckdb", "matplotlib", "scipy")):
        raise CommandFailed("expected pyarrow, pandas, duckdb, matplotlib and scipy, which deployr[dash] installs")
    if pdf and find_spec("typst") is None:
        raise CommandFailed("--pdf: expected typst, which deployr[report] installs; --html does without")


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "an account without a name"

"""`deployr alerts`: what is watched, what is wrong, who has seen to it, and whether anybody would be told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.audited import who, write_down
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of, with_store
from deployr_cli.with_app import with_app
from deployr_cli.workspaces import EXTRACT_FOLDER
from deployr_core.instants import parse_instant
from deployr_core.monitoring.alert_rules import NAMES, AlertRules, Severity, rules_with_names
from deployr_core.monitoring.alert_words import WORDS
from deployr_core.monitoring.alerting import Entry, Finding, Notice, Silenced, Verdict, What
from deployr_core.monitoring.alerting_operations import NIGHTLY, evaluators
from deployr_serve.alert_bootstrap import desk_of, read_rules, sinks_of
from deployr_serve.bootstrap import Application
from deployr_serve.core.alert_desk import AlertDesk, Looked, Message, Seen, silence, silences
from deployr_serve.core.audit import Act
from deployr_serve.core.ports import Clock, Records
from deployr_serve.settings import Settings, read_settings
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    from deployr_core.monitoring.drift_alarm import DriftLook

alerts_app = typer.Typer(
    no_args_is_help=True,
    help="""What is watched, what is wrong, and who is told.

The app itself looks at operation every few minutes; run [bold]deployr alerts run[/bold] after each nightly extract for
performance, drift and trials. Start with: [bold]deployr alerts test[/bold]""",
)

_LOOKS_KEPT = 3
_WAIT_S, _MOST_WAITS = 5.0, 70
"""How long it waits for the app's own look to be over: that takes seconds, and five minutes if its worker died."""
_BASICS = ("severity", "enabled", "begin_minutes", "end_minutes")
_STYLES = {"page": "bold red", "warn": "yellow", "note": "cyan"}

_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]


@alerts_app.command("rules")
def rules_command(
    model: Annotated[str, typer.Option(help="As they are for this model; default: for all.")] = "",
    settings: _SettingsFile = None,
) -> None:
    """Show the rules in force: what each means, when it alerts, and what to do."""
    site = read_settings(settings_values(settings, os.environ))
    print_rules(read_rules(site.alerts), model=model, console=Console())


@alerts_app.command("run")
def run_command(
    extract: Annotated[Path, typer.Argument(help="The folder of deployr monitor extract.")] = EXTRACT_FOLDER,
    settings: _SettingsFile = None,
) -> None:
    """Look at performance, calibration, drift, coverage, labels and trials, and tell what is new.

    Run it after each extract. The app's own timer looks at everything else; this command notices if it does not. Exits
    with 1 if something is found, or a sink did not take what there was to tell.
    """
    try:
        from deployr_dash.alert_figures import models_of
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas, duckdb and scipy, which deployr[dash] installs") from None
    models = models_of(extract)
    console = Console()

    async def work(site: Settings, application: Application, tell: Tell) -> Looked:
        records, clock = application.services.records, application.services.clock
        sinks = sinks_of(site, application)
        desk = desk_of(site, read_rules(site.alerts), records=records, clock=clock, sinks=sinks)
        return await nightly_look(desk, records, extract, models, site=site.site, clock=clock, tell=tell)

    looked = with_app(settings, os.environ, work, console=console, title="Measuring models")
    if looked.was_busy:
        raise CommandFailed("another process is looking at alerts right now; run it again in a few minutes")
    print_findings(looked.findings, console=console)
    if looked.unsent:
        console.print(f"not sent yet, tried again by the next look: {', '.join(looked.unsent)}", highlight=False)
    fires = any(each.verdict is Verdict.FIRING for each in looked.findings)
    raise typer.Exit(1 if fires or looked.unsent else 0)


@alerts_app.command("list")
def list_command(
    days: Annotated[float, typer.Option(min=0.0, help="How far back to show what was told.")] = 7.0,
    settings: _SettingsFile = None,
) -> None:
    """Show what is wrong now, what is silenced, and what was told in the last days."""
    site = read_settings(settings_values(settings, os.environ))
    now = clock_of(site).now()

    async def work(store: Store) -> tuple[Mapping[str, Entry], Sequence[Silenced], Sequence[Notice]]:
        desk = desk_of(site, read_rules(site.alerts), records=store, clock=clock_of(site))
        quiet = await silences(store, site.site, now=now)
        return await desk.standing(), quiet, await desk.told(since=now - timedelta(days=days))

    standing, quiet, told = with_store(site, work)
    print_alerts(standing, quiet, told, now=now, console=Console())


@alerts_app.command("silence")
def silence_command(
    alert: Annotated[str, typer.Argument(help="As `list` shows it: RULE[/MODEL[/PART]]; * is any rule.")],
    why: Annotated[str, typer.Option(help="Kept on record; nothing about a patient.")],
    until: Annotated[str | None, typer.Option(help="Until when, such as 2026-03-01T07:00:00Z.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.01, help="In place of --until: for how long from now.")] = None,
    by: Annotated[str | None, typer.Option(help="Who decided it; default: who is logged in here.")] = None,
    settings: _SettingsFile = None,
) -> None:
    """Acknowledge or silence alerts until an instant: they are kept on record, and nobody is told.

    What still holds when the silence is over is told then. Who silenced what, and why, stays in the audit.
    """
    site = read_settings(settings_values(settings, os.environ))
    now = clock_of(site).now()
    silenced = silenced_of(alert, until=_end(until, hours, now=now), by=who(by), why=why, now=now)
    with_store(site, lambda store: silence(store, site.site, silenced))
    details = {"alert": alert, "until": f"{silenced.until:%Y-%m-%dT%H:%M:%SZ}", "why": why}
    write_down(site, Act.SILENCE, by=silenced.by, said="silenced", details=details)
    print(f"{alert}: silenced until {silenced.until:%Y-%m-%dT%H:%M:%SZ} by {silenced.by}")


@alerts_app.command("test")
def trial_command(settings: _SettingsFile = None) -> None:
    """Send a trial message, marked as one, to every sink that is configured. Exits with 1 if one did not take it."""
    console = Console()

    async def work(site: Settings, application: Application, tell: Tell) -> Mapping[str, str | None]:
        clock = application.services.clock
        rules = read_rules(site.alerts)
        desk = desk_of(
            site, rules, records=application.services.records, clock=clock, sinks=sinks_of(site, application)
        )
        found = await desk.try_out(trial_message(site.site, site.environment, now=clock.now()))
        tell(1, 1)
        return found

    found = with_app(settings, os.environ, work, console=console, title="Sending")
    table = Table("sink", "", box=None)
    for sink, reason in found.items():
        table.add_row(sink, "taken" if reason is None else f"[red]{reason}[/red]")
    console.print(table)
    if set(found) == {"log"}:
        console.print("Nobody is told but the log: see docs/alerts.md for webhooks, mail and FHIR.", highlight=False)
    raise typer.Exit(0 if all(reason is None for reason in found.values()) else 1)


async def nightly_look(
    desk: AlertDesk,
    records: Records,
    extract: Path,
    models: Sequence[str],
    *,
    site: str,
    clock: Clock,
    tell: Tell,
) -> Looked:
    """Measure every model of an extract, and take what is found into account; evaluators watch each other."""
    from deployr_core.monitoring.alerting_statistics import NAMES as STATISTICS
    from deployr_core.monitoring.alerting_statistics import of_figures
    from deployr_dash.alert_figures import measured
    from deployr_dash.one_thread import one_thread

    now, rules = clock.now(), desk.rules
    found: list[Finding] = []
    # Before anything is held: this takes minutes, and the app's timer is not to wait for it.
    for place, model in enumerate(models):
        looks = await drift_looks(records, site, model, now=now)
        with one_thread():
            one = measured(extract, model=model, rules=rules.of(model), looks=looks, now=now)
        if one.look is not None:
            await keep_look(records, site, model, (*looks, one.look), now=now)
        found += of_figures(one.figures, rules.of(model))
        tell(place + 1, len(models))

    async def find(last_runs: Mapping[str, datetime]) -> Seen:
        others = evaluators(last_runs, rules.rules.evaluator, running=NIGHTLY, now=now)
        return Seen(findings=(*found, *others), watched=STATISTICS)

    looked = await desk.look(NIGHTLY, find)
    for _ in range(_MOST_WAITS):
        if not looked.was_busy:
            break
        await clock.sleep(_WAIT_S)
        looked = await desk.look(NIGHTLY, find)
    return looked


async def drift_looks(records: Records, site: str, model: str, *, now: datetime) -> tuple[DriftLook, ...]:
    """Give the looks at a model's drift of the last nights, in order of time."""
    from deployr_core.monitoring.drift_alarm import DriftLook

    held = await records.read_record(f"drift-looks-{site}", model, now=now)
    return () if held is None else msgspec.json.decode(held.content, type=tuple[DriftLook, ...])


async def keep_look(records: Records, site: str, model: str, looks: Sequence[DriftLook], *, now: datetime) -> None:
    """Keep the last looks, one of each night: the last one of it."""
    by_night = {each.until: each for each in looks}
    content = msgspec.json.encode([by_night[until] for until in sorted(by_night)][-_LOOKS_KEPT:])
    held = await records.read_record(f"drift-looks-{site}", model, now=now)
    if held is None:
        await records.create_record(f"drift-looks-{site}", model, content, now=now)
    else:
        await records.replace_record(f"drift-looks-{site}", model, content, etag=held.etag)


def silenced_of(alert: str, *, until: datetime, by: str, why: str, now: datetime) -> Silenced:
    """Give what an alert's name, or the beginning of one, silences.

    Raises:
        CommandFailed: no such rule, or a silence that is over before it begins.
    """
    rule, _, rest = alert.partition("/")
    if rule not in {*NAMES, "*"}:
        raise CommandFailed(f"expected an alert as `deployr alerts list` shows it, or one of {', '.join(NAMES)}")
    if until <= now:
        raise CommandFailed("--until: expected an instant that is yet to come")
    model, has_part, part = rest.partition("/")
    return Silenced(
        rule=None if rule == "*" else rule,
        model=model if rest else None,
        part=part if has_part else None,
        until=until,
        by=by,
        why=why,
        at=now,
    )


def trial_message(site: str, environment: str, *, now: datetime) -> Message:
    """Give a message that says of itself that nothing has happened."""
    notice = Notice(
        notice_id=f"test.{now:%Y%m%dT%H%M%SZ}",
        what=What.BEGUN,
        key="test",
        rule="test",
        model="",
        part="",
        severity=Severity.PAGE,
        said="If you can read this, alerts reach you here.",
        begun_at=now,
        at=now,
    )
    return Message(
        message_id=f"test.{site}.{now:%Y%m%dT%H%M%S%fZ}",
        site=site,
        environment=environment,
        at=now,
        notices=(notice,),
        is_test=True,
    )


def print_rules(rules: AlertRules, *, model: str, console: Console) -> None:
    """Print a line for each rule, and below it what it means and what to do."""
    console.print(f"reminded every {rules.remind_hours:g} hours; {model or 'all models'}\n", highlight=False)
    for name, rule in rules_with_names(rules.of(model)):
        words = WORDS[name]
        values = msgspec.to_builtins(rule)
        limits = "  ".join(f"{key}={values[key]}" for key in values if key not in _BASICS and values[key] is not None)
        state = f"[{_STYLES[rule.severity]}]{rule.severity}[/]" if rule.enabled else "[dim]off[/dim]"
        console.print(f"[bold]{name}[/bold]  {state}  {limits}", highlight=False)
        lasts = f"begins after {rule.begin_minutes} min, over after {rule.end_minutes} min"
        console.print(
            f"    {words.means}\n    {words.do}\n    [dim]{lasts}; {_panel(words.panel)}[/dim]", highlight=False
        )


def print_findings(findings: Sequence[Finding], *, console: Console) -> None:
    """Print what fires, and below how many rules could not be told, and why."""
    fires = [each for each in findings if each.verdict is Verdict.FIRING]
    table = Table("alert", "found", box=None)
    for each in fires:
        table.add_row(each.key, each.said)
    if fires:
        console.print(table)
    unknown = [each for each in findings if each.verdict is Verdict.UNKNOWN]
    console.print(f"{len(findings)} looked at, {len(fires)} found, {len(unknown)} cannot be told", highlight=False)
    for each in unknown:
        console.print(f"  [dim]{each.key}: {each.said}[/dim]", highlight=False)


def print_alerts(
    standing: Mapping[str, Entry],
    quiet: Sequence[Silenced],
    told: Sequence[Notice],
    *,
    now: datetime,
    console: Console,
) -> None:
    """Print what stands, what is silenced, and what was told."""
    if not standing:
        console.print("nothing is wrong, as far as anybody has looked")
    else:
        table = Table("alert", "severity", "since", "", box=None)
        for key, entry in standing.items():
            is_quiet = any(each.covers(entry, now=now) for each in quiet)
            severity = f"[{_STYLES[entry.severity]}]{entry.severity}[/]" + (" (silenced)" if is_quiet else "")
            table.add_row(key, severity, _instant(entry.begun_at or entry.firing_since), entry.said)
        console.print(table)
    for silenced in quiet:
        about = "/".join(
            each or "" for each in (silenced.rule or "*", silenced.model, silenced.part) if each is not None
        )
        console.print(
            f"silenced until {_instant(silenced.until)}: {about}, by {silenced.by}: {silenced.why}", highlight=False
        )
    if told:
        console.print()
        history = Table("at", "what", "alert", "", box=None)
        for notice in reversed(told):
            what = notice.what.value if notice.is_told else f"{notice.what.value}, silenced"
            history.add_row(_instant(notice.at), what, notice.key, notice.said)
        console.print(history)


def _end(until: str | None, hours: float | None, *, now: datetime) -> datetime:
    if (until is None) == (hours is None):
        raise CommandFailed("expected one of --until and --hours")
    return parse_instant(until).astimezone(UTC) if until is not None else now + timedelta(hours=hours or 0.0)


def _panel(panel: str | None) -> str:
    return "page of all models" if panel is None else f"panel {panel}"


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%MZ}"

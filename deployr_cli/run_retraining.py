"""`deployr run due` and `deployr run next`: runs that a schedule or an alarm opens, and their training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployr_cli.failures import CommandFailed
from deployr_core.registry.run import RUN_FILE, RunInvalid, parse_run

if TYPE_CHECKING:
    from deployr_cli.models_site import RegistrySite
    from deployr_core.monitoring.alerting import Notice
    from deployr_core.registry.journal import Entry
    from deployr_dev.runs.config import ResolvedConfig
    from deployr_serve.core.registry_journal import Journal
    from deployr_serve.core.schedule import Schedule
    from deployr_serve.store_bootstrap import Store

RUNS_FOLDER = Path(".deployr/runs")
"""Where runs lie if nobody says otherwise."""
_ALARMS_COUNT_FOR = timedelta(days=62)

Configs = Annotated[list[Path], typer.Argument(help="Model configs (YAML).")]
SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]


def due_command(configs: Configs, settings: SettingsFile = None) -> None:
    """Open a run for each config whose schedule or drift alarm says so: an entry in the model's journal, no more.

    Run it each night, after the alerts. `deployr run next` trains what was opened; nothing here deploys anything.
    """
    from deployr_cli.models_site import RegistrySite

    site = RegistrySite(settings)
    for config in configs:
        typer.echo(f"{config}: {open_if_due(config, site)}")


def next_command(
    configs: Configs,
    source: Annotated[str | None, typer.Option(help="Default: what each config says.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder of runs.")] = RUNS_FOLDER,
    by: Annotated[str | None, typer.Option(help="Who trains; default: who is logged in here.")] = None,
    settings: SettingsFile = None,
) -> None:
    """Train what was opened and not trained yet. Whoever looks at the report registers it, or does not."""
    from deployr_cli.audited import who
    from deployr_cli.models_site import RegistrySite
    from deployr_dev.set_engine import SetEngine

    site = RegistrySite(settings)
    for config in configs:
        typer.echo(
            f"{config}: {train_if_opened(config, site, source=source, out=out, by=who(by), engine_of=SetEngine)}"
        )


def open_if_due(config_file: Path, site: RegistrySite) -> str:
    """Open a run if one is due; say what was done, or why not.

    Raises:
        ConfigInvalid: the config, or its schedule, is not what it must be.
        JournalBroken: nothing is opened.
    """
    from deployr_serve.core.retraining import due

    config = _resolved(config_file)
    retrain, model_id = config.config.retrain, config.task.model_id
    if retrain.schedule is None and not retrain.on_drift_alarm:
        return "retrain: neither a schedule nor on_drift_alarm; it is trained by hand"
    schedule, now = _schedule(retrain.schedule, config_file), site.now()

    async def read(store: Store) -> tuple[Journal, Sequence[Notice]]:
        return await site.journal(store, model_id), await _alarms(store, site, model_id, now)

    journal, alarms = site.in_store(read)
    found = due(journal.entries, schedule=schedule, notices=alarms if retrain.on_drift_alarm else (), now=now)
    if found is None:
        return _why_not(journal)
    entry = site.open_by_itself(model_id, why=found.said)
    return f"opened, entry {entry.number} of the journal of {model_id}: {found.said}"


def train_if_opened(
    config_file: Path, site: RegistrySite, *, source: str | None, out: Path, by: str, engine_of: object = None
) -> str:
    """Train the run that was opened, unless it was trained already; say what was done, or why not."""
    from deployr_cli.run import train_run
    from deployr_dev.runs.making import Opening
    from deployr_serve.core.retraining import because_of, waiting

    config = _resolved(config_file)
    model_id, now = config.task.model_id, site.now()
    opened = waiting(site.in_store(lambda store: site.journal(store, model_id)).entries)
    if opened is None:
        return "nothing is opened"
    if (trained := _trained_for(opened, out)) is not None:
        return f"trained already, and not registered yet: {trained}"
    opening = Opening(at=now, by=by, source="", because=because_of(opened), asked_for=_name(opened))
    folder = train_run(config_file, opening, source=source, out=out, engine_of=engine_of)  # type: ignore[arg-type]
    return f"trained: {folder}; look at its report, then: deployr models register {folder}"


def _resolved(config_file: Path) -> ResolvedConfig:
    from deployr_dev.runs.config import load_config, resolved

    return resolved(load_config(config_file), folder=config_file.parent)


def _schedule(text: str | None, config_file: Path) -> Schedule | None:
    from deployr_serve.core.schedule import parse_schedule

    try:
        return None if text is None else parse_schedule(text, zone=UTC)
    except ValueError as error:
        raise CommandFailed(f"{config_file}: retrain.schedule: {error}") from None


async def _alarms(store: Store, site: RegistrySite, model_id: str, now: datetime) -> Sequence[Notice]:
    from deployr_cli.stores import clock_of
    from deployr_serve.alert_bootstrap import desk_of, read_rules

    desk = desk_of(site.settings, read_rules(site.settings.alerts), records=store, clock=clock_of(site.settings))
    told = await desk.told(since=now - _ALARMS_COUNT_FOR)
    return [notice for notice in told if notice.model == model_id]


def _why_not(journal: Journal) -> str:
    from deployr_core.registry.journal import Action
    from deployr_serve.core.retraining import waiting

    if waiting(journal.entries) is not None:
        return "a run is opened already, and waits: deployr run next"
    if not any(entry.action is Action.REGISTERED for entry in journal.entries):
        return "no run was ever registered; the first one is trained by hand"
    return "nothing is due"


def _trained_for(opened: Entry, out: Path) -> Path | None:
    for record in sorted(out.glob(f"*/{RUN_FILE}")):
        try:
            run = parse_run(record.read_bytes())
        except RunInvalid:
            continue
        if run.opened_for == _name(opened):
            return record.parent
    return None


def _name(entry: Entry) -> str:
    return f"{entry.model_id}:{entry.number}"

"""`deployr models`: the registry at the command line: how models stand, and what may be done with their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployr_cli.failures import CommandFailed
from deployr_cli.models_mlflow import from_mlflow_command, to_mlflow_command
from deployr_cli.workspaces import EXTRACT_FOLDER, extract_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deployr_cli.models_site import RegistrySite
    from deployr_serve.core.registry import Done
    from deployr_serve.core.registry_journal import Journal
    from deployr_serve.store_bootstrap import Store

models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""See how models stand, and take a run from challenger to champion and back.

A run is trained by one person (`deployr run`), registered, compared with the champion, approved by
[bold]another[/bold] person, and deployed. Each step is an entry in the model's journal, which is never changed.
docs/registry.md explains.""",
)

models_app.command("to-mlflow")(to_mlflow_command)
models_app.command("from-mlflow")(from_mlflow_command)

_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_By = Annotated[
    str | None,
    typer.Option(help="Who does it, where the site lists nobody (dev profile); else who is logged in counts."),
]
_Model = Annotated[str, typer.Argument(help="The model's id, such as hematocrit.")]
_Run = Annotated[str, typer.Argument(help="The run's id; `deployr models show MODEL` lists them.")]
_Why = Annotated[str, typer.Option(help="In your own words; kept on record, so nothing about a patient.")]
_Extract = Annotated[
    Path | None, typer.Option(help=f"The folder of deployr monitor extract; default: {EXTRACT_FOLDER}, if it is there.")
]
_Parity = Annotated[Path | None, typer.Option(help="What deployr parity --json wrote.")]
_Bars = Annotated[Path | None, typer.Option(help="The site's own bars; docs/governance.md has their names.")]


@models_app.command("list")
def list_models(settings: _SettingsFile = None, as_json: _Json = False) -> None:
    """Show every model that has a journal: its champion, what waits for a decision, and what was done last."""
    from deployr_serve.core.registry_journal import heads

    site = _site(settings)

    async def read(store: Store) -> list[Journal]:
        known = sorted(await heads(store, now=site.now()))
        return [await site.journal(store, model_id) for model_id in known]

    journals = site.in_store(read)
    if as_json:
        from deployr_serve.triggers.registry_json import standing_told

        _print_json({"models": [standing_told(journal.standing) for journal in journals]})
        return
    from deployr_cli.models_tables import models_table

    _print(models_table(journals))


@models_app.command()
def show(
    model: _Model,
    run: Annotated[str | None, typer.Argument(help="Only this run: what it was trained on, and who signed it.")] = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Show a model's runs, its journal, and what may be done next by whom; or one run."""
    from deployr_cli.models_tables import journal_table, run_table, runs_table
    from deployr_cli.models_words import next_lines
    from deployr_serve.triggers.registry_json import journal_told, run_told

    site = _site(settings)
    if run is not None:
        shelved = site.shelved(model, run)
        _print_json(run_told(shelved)) if as_json else _print(run_table(shelved))
        return

    journal = site.in_store(lambda store: site.journal(store, model))
    if not journal.entries:
        raise CommandFailed(f"{model}: expected a model that has a journal; `deployr models register FOLDER` begins it")
    if as_json:
        _print_json(journal_told(journal))
        return
    _print(runs_table(journal.standing))
    _print(journal_table(journal.entries))
    for line in next_lines(journal.standing):
        typer.echo(line)


@models_app.command()
def compare(
    model: _Model,
    run: _Run,
    record: Annotated[bool, typer.Option("--record", help="Write into the journal that it was compared.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--from", help="The run's folder with a newer comparison.json, for the shelf.")
    ] = None,
    by: _By = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Show a challenger beside the champion, on the same rows, as `deployr run compare` measured it.

    An approval asks for a comparison with today's champion in the journal: --record puts it there. Takes the role
    developer; to look takes none.
    """
    from deployr_core.registry.journal import Action
    from deployr_serve.adapters.run_shelf import read_run

    site = _site(settings)
    if folder is not None:
        taken = read_run(folder)
        if (taken.model_id, taken.run_id) != (model, run):
            raise CommandFailed(f"--from: expected the folder of {run} of {model}, got that of {taken.run_id}")
        if not site.may(Action.COMPARED, model, by=by):
            # It is refused there, and that it was tried is written down.
            site.do(Action.COMPARED, model=model, run=run, by=by)
        site.shelf.take(folder)
    shelved = site.shelved(model, run)
    if shelved.comparison is None:
        raise CommandFailed(f"{run}: expected a comparison.json on the shelf; `deployr run compare` makes one")
    if record:
        site.do(Action.COMPARED, model=model, run=run, by=by)
    if as_json:
        import msgspec

        _print_json(msgspec.to_builtins(shelved.comparison))
        return
    from deployr_cli.models_tables import comparison_table
    from deployr_core.registry.comparison import in_words

    _print(comparison_table(shelved.comparison))
    for line in in_words(shelved.comparison):
        typer.echo(line)


@models_app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="A run's folder: run.json, bundle/, perhaps comparison.json.")],
    why: _Why = "",
    by: _By = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Lay a run onto the shelf (DEPLOYR_BUNDLE_ARCHIVE) and make it a challenger: it may be approved from then on.

    Its rows are not copied. Where there is a comparison, that goes into the journal too. Takes the role developer.
    """
    from deployr_core.registry.journal import Action
    from deployr_core.registry.run import COMPARISON_FILE
    from deployr_serve.adapters.run_shelf import read_run

    site = _site(settings)
    run = read_run(folder)
    if site.may(Action.REGISTERED, run.model_id, by=by):
        site.shelf.take(folder)
    told = [site.do(Action.REGISTERED, model=run.model_id, run=run.run_id, why=why, by=by)]
    if (folder / COMPARISON_FILE).is_file():
        told.append(site.do(Action.COMPARED, model=run.model_id, run=run.run_id, by=by))
    _tell(told, as_json=as_json)


@models_app.command("checklist")
def checklist_command(
    model: _Model,
    run: _Run,
    extract: _Extract = None,
    parity: _Parity = None,
    bars: _Bars = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Compute the go / no-go checklist of a run: each item with its bar, its figure, and what to do.

    Exits with 1 unless every item passed; what cannot be told does not pass.
    """
    from deployr_cli.models_checklist import computed, show
    from deployr_core.governance.checklist import Verdict

    told = computed(_site(settings), model, run, extract=extract_of(extract), parity=parity, bars=bars)
    if as_json:
        from dataclasses import asdict

        _print_json({"items": [asdict(each) for each in told]})
    else:
        show(told)
    raise typer.Exit(0 if all(each.verdict is Verdict.PASSED for each in told) else 1)


@models_app.command()
def approve(
    model: _Model,
    run: _Run,
    why: _Why,
    checklist: Annotated[
        Path | None, typer.Option(help='A JSON list of {"item", "passed", "said"}, as a go/no-go checklist has it.')
    ] = None,
    despite_failed: Annotated[
        bool, typer.Option("--despite-failed", help="Approve although items failed; that stays on record.")
    ] = False,
    extract: _Extract = None,
    parity: _Parity = None,
    bars: _Bars = None,
    by: _By = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Say that a run may go live; it does not yet. Takes the role approver, and not who trained or registered it.

    With an extract, a parity report or bars the go / no-go checklist is computed, shown and recorded, as
    `deployr models checklist` shows it.
    """
    from deployr_core.registry.journal import Action

    site = _site(settings)
    from deployr_cli.models_site import checklist_in

    items = () if checklist is None else checklist_in(checklist)
    extract = extract_of(extract)
    if extract is not None or parity is not None or bars is not None:
        from deployr_cli.models_checklist import computed, show
        from deployr_core.governance.checklist import for_journal

        told = computed(site, model, run, extract=extract, parity=parity, bars=bars)
        if not as_json:
            show(told)
        items = (*for_journal(told), *items)
    done = site.do(Action.APPROVED, model=model, run=run, why=why, by=by, checklist=items, despite=despite_failed)
    _tell([done], as_json=as_json)


@models_app.command()
def reject(
    model: _Model, run: _Run, why: _Why, by: _By = None, settings: _SettingsFile = None, as_json: _Json = False
) -> None:
    """Say that a run may not go live, for good. Takes the role approver."""
    from deployr_core.registry.journal import Action

    _tell([_site(settings).do(Action.REJECTED, model=model, run=run, why=why, by=by)], as_json=as_json)


@models_app.command()
def deploy(
    model: _Model,
    run: _Run,
    why: _Why = "",
    to: Annotated[Path | None, typer.Option(help="Of a run for the edge: the folder to export to.")] = None,
    by: _By = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Let an approved run take the champion's place, while requests run; the earlier bundle stays for the way back.

    The bundle must be signed by a key of DEPLOYR_TRUSTED_KEYS. A run for the edge is exported to --to in place of
    that, with its model as ONNX and PMML where these can say it. Said again of the champion, it puts it in place on
    this machine. Takes the role developer or approver.
    """
    from deployr_core.registry.journal import Action

    site = _site(settings)
    action = Action.DEPLOYED if to is None else Action.EXPORTED
    done = site.do(action, model=model, run=run, why=why, by=by, to=to)
    # First: it is done, whatever becomes of the files beside it.
    _tell([done], as_json=as_json)
    if to is not None:
        from deployr_cli.edge.export import export_beside

        for line in export_beside(to):
            typer.echo(line, err=as_json)


@models_app.command()
def rollback(model: _Model, why: _Why, by: _By = None, settings: _SettingsFile = None, as_json: _Json = False) -> None:
    """Withdraw the champion, and bring back the one before it, within seconds. Takes the role developer or approver.

    The withdrawn run can only come back by another approval. To stop a model altogether: `deployr switch off`.
    """
    from deployr_core.registry.journal import Action

    _tell([_site(settings).do(Action.ROLLED_BACK, model=model, why=why, by=by)], as_json=as_json)


@models_app.command()
def retire(
    model: _Model, run: _Run, why: _Why, by: _By = None, settings: _SettingsFile = None, as_json: _Json = False
) -> None:
    """Take a run out of use for good; of the champion, nothing is shown any more. Takes the role approver."""
    from deployr_core.registry.journal import Action

    _tell([_site(settings).do(Action.RETIRED, model=model, run=run, why=why, by=by)], as_json=as_json)


@models_app.command()
def vouch(model: _Model, why: _Why, by: _By = None, settings: _SettingsFile = None, as_json: _Json = False) -> None:
    """Stand up for the entries of a journal from before they were signed (DEPLOYR_JOURNAL_KEY), or that lack it.

    Look them through first: deployr models show MODEL, without the key. From then on nothing unsigned is added unseen.
    Takes the role approver.
    """
    from deployr_core.registry.journal import Action

    _tell([_site(settings).do(Action.VOUCHED, model=model, why=why, by=by)], as_json=as_json)


@models_app.command()
def verify(
    model: Annotated[str | None, typer.Argument(help="Only this model; default: all.")] = None,
    settings: _SettingsFile = None,
    as_json: _Json = False,
) -> None:
    """Recompute every digest of the journals, and look for what was changed, left out, moved or cut off.

    With keys (DEPLOYR_JOURNAL_KEY, DEPLOYR_JOURNAL_TRUSTED_KEYS) each entry's signature is verified, too. What was cut
    off is missed by what the audit's records and the deployed bundle's marker were told. Exits with 1 if a journal is
    not what was written.
    """
    from deployr_serve.adapters.registry_heads import told_heads
    from deployr_serve.core.registry_journal import heads, verdict
    from deployr_serve.triggers.registry_json import verdict_told

    site = _site(settings)
    folder = None if site.audit is None else site.audit.folder

    async def read(store: Store) -> list[dict[str, Any]]:
        known = sorted(await heads(store, now=site.now())) if model is None else [model]
        told = {each: told_heads(each, audit=folder, bundles=site.settings.bundles) for each in known}
        keys = site.settings.registry.journal_keys.trusted
        found = [await verdict(store, each, now=site.now(), told=told[each], keys=keys) for each in known]
        return [verdict_told(each) for each in found]

    verdicts = site.in_store(read)
    if as_json:
        _print_json({"models": verdicts})
    else:
        from deployr_cli.models_words import verdict_lines

        for line in verdict_lines(verdicts):
            typer.echo(line)
    raise typer.Exit(0 if all(each["is_whole"] for each in verdicts) else 1)


def _site(settings: Path | None) -> RegistrySite:
    from deployr_cli.models_site import RegistrySite

    return RegistrySite(settings)


def _tell(done: list[Done], *, as_json: bool) -> None:
    from deployr_cli.models_words import done_lines

    if as_json:
        from deployr_serve.triggers.registry_json import done_told

        _print_json({"done": [done_told(each.entry, each.note) for each in done]})
        return
    for each in done:
        for line in done_lines(each):
            typer.echo(line)


def _print(told: RenderableType) -> None:
    from rich.console import Console

    Console().print(told)


def _print_json(told: object) -> None:
    typer.echo(json.dumps(told, indent=1))

"""The `deployr` command: what there is, and errors as one line that says what to do."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deployr_cli.failures import explain, is_expected
from deployr_cli.later import group_of

_LATER = {
    "Train": {
        "run": "Training runs: one model config, trained once, with a record of what went in and what came out.",
        "bundle": "Look at bundles, check them, sign them.",
    },
    "Serve": {
        "batches": "The batches of a site, and how they went.",
        "deliveries": "Scores on their way to the EMR: list them by state, show one, have dead ones sent again.",
        "labels": "What happened after the predictions: extract it now, and see how far it is known.",
        "monitor": "What monitoring reads: tables without identities, taken from the store and kept up to date.",
        "models": "See how models stand, and take a run from challenger to champion and back.",
        "sites": "List the sites that one app serves, and what is wrong with their settings, or shared between them.",
        "switch": "Switch a model, this site or everything off and on again.",
        "store": (
            "The store of packets, deliveries, labels and events (DEPLOYR_STORE): make it, check it, take out of it."
        ),
    },
    "Monitor": {
        "report": "Write what the dashboard shows as a report for a committee: HTML, PDF, or both.",
        "alerts": "What is watched, what is wrong, and who is told.",
        "papers": "Write a model's papers for governance: model card, reporting checklists, source attributes.",
    },
}
"""By heading and name, what the help of all commands says of those that are imported when they are called."""

app = typer.Typer(
    name="deployr",
    cls=group_of(_LATER),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Gets clinical ML models into the electronic medical record, and measures whether they help.

New here? Run [bold]deployr demo[/bold]: it trains a model, serves it to a mock EMR, and shows how it did.""",
)

trial_app = typer.Typer(name="trial", no_args_is_help=True, help="Trials on a synthetic hospital.")

_App = Annotated[Path, typer.Option("--app", help="A function_app.py, or its folder.")]
_AT = "DEPLOYR_AT"


@app.callback()
def at_site(
    context: typer.Context,
    at: Annotated[
        str | None, typer.Option("--at", help="Which site is meant, where DEPLOYR_SITES says that there are several.")
    ] = None,
) -> None:
    """Say for every command which of several sites it is about."""
    if at is not None:
        before = os.environ.get(_AT)
        os.environ[_AT] = at
        context.call_on_close(lambda: os.environ.pop(_AT) if before is None else os.environ.update({_AT: before}))


@app.command(rich_help_panel="Try it")
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="A folder that holds omop/ (an OMOP 5.4 extract) and fhir/ (NDJSON) of the same patients."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    workspace: Annotated[Path, typer.Option(help="Where to work; what an earlier demo left there is removed.")] = Path(
        ".deployr/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the synthetic hospital, the split and the forest.")] = 0,
) -> None:
    """Show the whole job on this machine: train, serve, replay a held-out week, label, measure.

    Without --data it makes a synthetic hospital. Nothing leaves this machine, and no question is asked. Exits with 1 if
    any part failed.
    """
    from deployr_cli.demo.run import run_demo

    raise typer.Exit(0 if run_demo(data=data, json_file=json_file, workspace=workspace, seed=seed) else 1)


@app.command(rich_help_panel="Try it")
def up(
    data: Annotated[
        Path | None,
        typer.Option(help="A folder that holds omop/ (an OMOP 5.4 extract) and fhir/ (NDJSON) of the same patients."),
    ] = None,
    port: Annotated[int, typer.Option(help="The function host's port; 0 takes a free one.")] = 7071,
    emr_port: Annotated[int, typer.Option("--emr-port", help="The mock EMR's port; 0 takes a free one.")] = 8090,
    dash_port: Annotated[int, typer.Option("--dash-port", help="The dashboard's port; 0 takes a free one.")] = 8501,
    workspace: Annotated[Path, typer.Option(help="Where data, models and requests are kept for the next time.")] = Path(
        ".deployr/up"
    ),
    azure_like: Annotated[
        bool,
        typer.Option("--azure-like", help="Keep packets, blobs and queues in stand-ins for Azure, and run a batch."),
    ] = False,
) -> None:
    """Start a mock EMR, the function host with trained models and the dashboard, and run until Ctrl-C.

    The first time it makes a synthetic hospital and trains; half a minute. It prints how to call the models;
    docs/first-calls.md shows more to try.
    """
    from deployr_cli.up import run_up

    run_up(
        data=data,
        host_port=port,
        emr_port=emr_port,
        dash_port=dash_port,
        workspace=workspace,
        azure_like=azure_like,
    )


@trial_app.command()
def silent(
    orders: Annotated[int, typer.Option(min=20, help="How many orders are asked about; the paper had some 40,000.")] = (
        40_000
    ),
    weeks: Annotated[int, typer.Option(min=1, help="How long the trial is.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same tables.")] = 0,
    workspace: Annotated[Path, typer.Option(help="Where to work; what an earlier trial left there is removed.")] = Path(
        ".deployr/trial"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Repeat the paper's silent trial: twelve models, five weeks of orders over HTTP, labels, its tables beside ours.

    On a synthetic hospital. Nothing leaves this machine. Try it first with [bold]--orders 200[/bold]. Exits with 1 if
    a packet is lost, unfinished or without a score.
    """
    from deployr_cli.trial.run import run_silent_trial

    found = run_silent_trial(orders=orders, weeks=weeks, seed=seed, workspace=workspace, json_file=json_file)
    raise typer.Exit(1 if found.figures.complaints else 0)


@app.command(rich_help_panel="Train")
def train(
    tasks: Annotated[list[str] | None, typer.Argument(help="Shipped tasks by name, or task files (YAML).")] = None,
    source: Annotated[str, typer.Option(help="[NAME:]FOLDER or NAME:URL; NAME is a mapping.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The folder that gets one bundle per task.")] = ...,  # type: ignore[assignment]
    group: Annotated[str | None, typer.Option("--tasks", help="A group of shipped tasks, such as paper12.")] = None,
    features: Annotated[str | None, typer.Option(help="A declaration; default: what each task names.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="A source mapping; found by itself for known extracts.")] = None,
    estimator: Annotated[str, typer.Option(help="By name, or your own by dotted name.")] = "random-forest",
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of the estimator; repeatable.")] = None,
    balanced: Annotated[bool, typer.Option(help="Weigh the classes so that both count alike.")] = False,
    calibration: Annotated[str | None, typer.Option(help="isotonic or sigmoid.")] = None,
    split: Annotated[str, typer.Option(help="time, patient, or time+patient.")] = "time+patient",
    search: Annotated[Path | None, typer.Option(help="A hyperparameter search (YAML).")] = None,
    allow_pickle: Annotated[bool, typer.Option(help="Ship a model that runs code when loaded.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the estimator and the bootstrap.")] = 0,
) -> None:
    """Train models on a warehouse extract, measure them on what was held out, and write their bundles."""
    from deployr_cli.train import run_train
    from deployr_dev.set_engine import SetEngine

    run_train(
        tasks=tasks or (),
        source=source,
        out=out,
        mapping=mapping,
        group=group,
        features=features,
        estimator=estimator,
        settings=setting or (),
        balanced=balanced,
        calibration=calibration,
        split=split,
        search=search,
        allow_pickle=allow_pickle,
        seed=seed,
        engine_of=SetEngine,
    )


@app.command(rich_help_panel="Train")
def validate(
    source: Annotated[str, typer.Argument(help="[NAME:]FOLDER or NAME:URL; NAME is a mapping.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")] = None,
) -> None:
    """Say what is in an extract and what is wrong with it, before an hour is spent. Exits with 1 on errors."""
    from deployr_cli.validate import run_validate

    raise typer.Exit(0 if run_validate(source, json_file) else 1)


@app.command(rich_help_panel="Train")
def parity(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    source: Annotated[str, typer.Option(help="The warehouse: [NAME:]FOLDER or NAME:URL.")],
    fhir: Annotated[str, typer.Option(help="The FHIR side: a base URL, or a folder of NDJSON files.")],
    sample: Annotated[int, typer.Option(min=1, help="How many orders to compare.")] = 200,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    reference_until: Annotated[
        datetime | None,
        typer.Option(
            "--reference-until",
            formats=["%Y-%m-%d"],
            help="Compare the patients from this day on with those before, too: has the case mix changed?",
        ),
    ] = None,
) -> None:
    """Compare what the warehouse and the EMR say of the same patients at the same instants, feature by feature."""
    from deployr_cli.parity import run_parity

    day = None if reference_until is None else reference_until.date()
    run_parity(bundle, source, fhir, sample, json_file, seed, reference_until=day)


@app.command(rich_help_panel="Monitor")
def dash(
    extract: Annotated[Path, typer.Argument(help="The folder of deployr monitor extract.")] = Path(".deployr/monitor"),
    sign_in: Annotated[
        str, typer.Option("--sign-in", help="none, proxy (it names people in a header), or entra.")
    ] = "none",
    address: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8501,
    plans: Annotated[Path | None, typer.Option(help="A folder with a monitoring_plan.yaml for each model.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A local.settings.json: single packets are then read from its store.")
    ] = None,
) -> None:
    """Show how the models do: the dashboard, read-only, over an extract. docs/dashboard.md explains it."""
    from deployr_cli.dash import run_dash

    run_dash(extract, sign_in=sign_in, host=address, port=port, plans=plans, settings=settings)


@app.command(rich_help_panel="Serve")
def host(
    app_path: _App = Path("function_app.py"),
    address: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 7071,
    settings: Annotated[
        Path | None, typer.Option(help="Default: local.settings.json beside the app. The environment wins.")
    ] = None,
) -> None:
    """Run a Functions app without Azure: its routes, keys and timers, as the real host does."""
    from deployr_serve.local_host.__main__ import main as host_main

    arguments = ["--app", str(app_path), "--host", address, "--port", str(port)]
    raise typer.Exit(host_main([*arguments, *(["--settings", str(settings)] if settings else [])]))


@app.command(rich_help_panel="Serve")
def doctor(
    settings: Annotated[Path | None, typer.Option(help="A local.settings.json; the environment wins over it.")] = None,
    patient: Annotated[str | None, typer.Option(help="The FHIR id of a test patient; used, and never shown.")] = None,
    encounter: Annotated[
        str | None, typer.Option(help="The contact serial number of an encounter of that patient.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Where windows look back from, such as 2015-01-06T20:55:00Z; default: now.")
    ] = None,
    jwks_url: Annotated[
        str | None, typer.Option("--jwks-url", help="Where the EMR fetches our key set; compared with ours.")
    ] = None,
    write_test: Annotated[bool, typer.Option("--write-test", help="Write one score of 0 to that encounter.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the test write.")] = False,
    environment: Annotated[
        str | None, typer.Option(help="The environment's name again; a test write in production needs it.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the findings to this file.")] = None,
) -> None:
    """Check a site before go-live: settings, servers, token, scopes, searches, units; say what to fix.

    It only reads, unless --write-test is given, and shows counts, codes and units, nothing of a patient. Exits with 1
    if anything has to be fixed.
    """
    from deployr_cli.doctor.run import Write, run_doctor
    from deployr_cli.doctor.visit import Asked
    from deployr_core.instants import parse_instant

    asked = Asked(
        patient=patient,
        encounter=encounter,
        as_of=parse_instant(as_of) if as_of else None,
        jwks_url=jwks_url,
        write_test=write_test,
    )
    write = Write(environment=environment, confirm=(lambda _: True) if yes else typer.confirm)
    raise typer.Exit(0 if run_doctor(settings, asked, write=write, json_file=json_file) else 1)


@app.command("send-test", rich_help_panel="Serve")
def send_test(
    packet: Annotated[str, typer.Option(help="The packet's id: answers carry it as X-Packet-Id.")],
    output: Annotated[str, typer.Option(help="A way out, such as flowsheet or risk-assessment.")],
    settings: Annotated[Path | None, typer.Option(help="A local.settings.json; the environment wins over it.")] = None,
    send: Annotated[bool, typer.Option("--send", help="Send it, too.")] = False,
    environment: Annotated[
        str | None, typer.Option(help="The environment's name again; sending in production needs it.")
    ] = None,
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Print ids of patient, encounter and order as they are.")
    ] = False,
) -> None:
    """Show what a stored score looks like on one way out, to the byte; send it only with --send.

    The way out need not be in DEPLOYR_OUTPUTS yet: name it, and see what the EMR's team would get. Patients are looked
    up in the EMR as for a real write; nothing is written, and the store stays as it is. With --send the write goes out
    under the id of the real delivery, so that a score which is there already is not written a second time. Exits with 1
    if it was refused.

    Start with: [bold]deployr send-test --packet p0123… --output risk-assessment[/bold]
    """
    from deployr_cli.send_test import run_send_test

    went_well = run_send_test(
        settings,
        packet_id=packet,
        output=output,
        send=send,
        environment=environment,
        show_identifiers=show_identifiers,
    )
    raise typer.Exit(0 if went_well else 1)


@app.command(rich_help_panel="Serve")
def replay(
    packet: Annotated[str | None, typer.Argument(help="The packet's id: answers carry it as X-Packet-Id.")] = None,
    since: Annotated[
        str | None, typer.Option(help="In place of one packet: all asked for from here on, 2015-01-06T00:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Where the period ends; this instant is no part of it.")] = None,
    model: Annotated[str | None, typer.Option(help="Of the period, only this model; default: all.")] = None,
    from_facts: Annotated[
        bool, typer.Option("--from-facts", help="Compute the features again, too, where facts are kept.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was found to this file.")] = None,
    settings: Annotated[Path | None, typer.Option(help="A local.settings.json; the environment wins over it.")] = None,
) -> None:
    """Score stored packets again and show that they are the same to the bit, or name what has changed.

    A packet is scored with the very bundle that its digest names: keep earlier ones in DEPLOYR_BUNDLE_ARCHIVE. The
    store stays as it is, and nothing of a patient is shown. Exits with 0 if all is the same, 1 if anything differs, 2
    if nothing can be told.

    Start with: [bold]deployr replay p0123…[/bold]
    """
    from deployr_cli.replay import Period, run_replay
    from deployr_core.instants import parse_instant

    period = None
    if since is not None:
        end = parse_instant(until) if until else None
        period = Period(since=parse_instant(since), until=end, model=model)
    elif until is not None or model is not None:
        raise typer.BadParameter("expected --since with --until and --model")
    raise typer.Exit(run_replay(settings, packet_id=packet, period=period, from_facts=from_facts, json_file=json_file))


@app.command(rich_help_panel="Try it")
def emr(
    data: Annotated[Path, typer.Option(help="A folder of FHIR R4 NDJSON files, plain or gzipped.")],
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8090,
    now: Annotated[str | None, typer.Option(help="The EMR's instant, such as 2015-01-06T20:55:00Z.")] = None,
) -> None:
    """Run the mock EMR on loopback, open to all, to try things against."""
    from mock_emr.__main__ import main as emr_main

    arguments = ["--data", str(data), "--port", str(port), "--open", *(["--now", now] if now else [])]
    raise typer.Exit(emr_main(arguments))


app.add_typer(trial_app, name="trial", rich_help_panel="Try it")


def run() -> None:
    """Run the command line; an error that was foreseen is one line on standard error, and exit code 2."""
    try:
        app()
    except Exception as error:
        if not is_expected(error):
            raise
        sys.stderr.write(f"deployr: {explain(error)}\n")
        sys.exit(2)


if __name__ == "__main__":
    run()

"""The `deployr` command: what there is, and errors as one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deployr_cli.failures import EXPECTED, explain

app = typer.Typer(
    name="deployr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Gets clinical ML models into the electronic medical record, and measures whether they help.

New here? Run [bold]deployr demo[/bold]: it trains a model, serves it to a mock EMR, and shows how it did.""",
)

_App = Annotated[Path, typer.Option("--app", help="A function_app.py, or its folder.")]


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


@app.command(rich_help_panel="Train")
def train(
    source: Annotated[Path, typer.Option(help="The folder of an OMOP 5.4 extract, CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; it must not exist yet.")],
    task: Annotated[str, typer.Option(help="A shipped task's name, or a task file (JSON).")] = "hematocrit",
    features: Annotated[str, typer.Option(help="A shipped declaration's name, or a declaration file.")] = "hematocrit",
    mapping: Annotated[Path | None, typer.Option(help="A source mapping; found by itself for known extracts.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the forest and the bootstrap.")] = 0,
) -> None:
    """Train a model on a warehouse extract, measure it on patients held out, and write its bundle."""
    from deployr_cli.train import run_train

    run_train(source=source, out=out, task=task, features=features, mapping=mapping, seed=seed)


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


bundle_app = typer.Typer(no_args_is_help=True, help="Look at bundles.")
app.add_typer(bundle_app, name="bundle", rich_help_panel="Train")


@bundle_app.command()
def verify(folder: Annotated[Path, typer.Argument(help="The bundle's folder.")]) -> None:
    """Check every digest of a bundle, then score its golden vectors on this machine."""
    from deployr_serve.adapters.models import read_bundle

    bundle = read_bundle(folder)
    manifest = bundle.manifest
    typer.echo(
        f"ok: {manifest.model_id} {manifest.version}, {manifest.n_features} features, "
        f"every digest and golden score as promised"
    )


def run() -> None:
    """Run the command line; an error that was foreseen is one line on standard error, and exit code 2."""
    try:
        app()
    except EXPECTED as error:
        sys.stderr.write(f"deployr: {explain(error)}\n")
        sys.exit(2)


if __name__ == "__main__":
    run()

"""`deployr run`: train what a config says, check a run, and hold two of them against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from deployr_cli.audited import who
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.run_live import live_command
from deployr_cli.run_retraining import RUNS_FOLDER, due_command, next_command
from deployr_core.registry.comparison import Comparison, in_words
from deployr_core.registry.run import COMPARISON_FILE, REPORT_FILE, Because, Run
from deployr_serve.adapters.clock import SystemClock

if TYPE_CHECKING:
    from deployr_dev.matrix import FeatureEngine
    from deployr_dev.runs.making import Opening
    from deployr_dev.sources.fact_source import FactSource

EngineOf = Callable[["FactSource"], "FeatureEngine"]


class _TrainsByDefault(TyperGroup):
    """Takes what is no command's name for a config: ``deployr run hematocrit.yaml``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click's own."""
        if args and args[0] not in self.commands:
            args = ["train", *args]
        return super().resolve_command(ctx, args)


run_app = typer.Typer(
    cls=_TrainsByDefault,
    no_args_is_help=True,
    help="""Training runs: one model config, trained once, with a record of what went in and what came out.

Start with: [bold]deployr run CONFIG --source SOURCE[/bold]. docs/runs.md has an example of a config.""",
)

_Out = Annotated[Path, typer.Option("--out", help="The folder of runs; each gets one of its own.")]
_Source = Annotated[
    str | None, typer.Option(help="[NAME:]FOLDER or NAME:URL; NAME is a mapping. Default: what the config says.")
]


@run_app.command("train", hidden=True)
def train_command(
    config: Annotated[Path, typer.Argument(help="A model config (YAML).")],
    source: _Source = None,
    out: _Out = RUNS_FOLDER,
    snapshot: Annotated[
        bool, typer.Option(help="Keep rows and features in the run's folder, for its owner alone.")
    ] = True,
    by: Annotated[str | None, typer.Option(help="Who trains; default: who is logged in here.")] = None,
) -> None:
    """Train what a config says, and write the run's folder: bundle, report, and run.json."""
    from deployr_dev.runs.making import Opening
    from deployr_dev.set_engine import SetEngine

    opening = Opening(at=SystemClock().now(), by=who(by), source="", because=Because.BY_HAND)
    train_run(config, opening, source=source, out=out, keep_snapshot=snapshot, engine_of=SetEngine)


@run_app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    source: Annotated[
        str | None, typer.Option(help="Also make the sets again from this extract, and say in what they differ.")
    ] = None,
) -> None:
    """Compute every digest of a run again, and say what is not as its record says. Exits with 1 where anything is."""
    from deployr_dev.set_engine import SetEngine

    raise typer.Exit(0 if verify_run(folder, source=source, engine_of=SetEngine) else 1)


@run_app.command("compare")
def compare_command(
    champion: Annotated[Path, typer.Argument(help="The champion's run folder.")],
    challenger: Annotated[Path, typer.Argument(help="The challenger's; it gets comparison.json and comparison.html.")],
    source: Annotated[str, typer.Option(help="Has the challenger's held-out rows.")],
    threshold: Annotated[
        float | None, typer.Option(help="In force for the champion: net benefit is measured there.")
    ] = None,
) -> None:
    """Score the challenger's held-out rows by both, and say how far apart they are, with intervals."""
    from deployr_dev.set_engine import SetEngine

    compare_on_held_out(champion, challenger, source=source, threshold=threshold, engine_of=SetEngine)


run_app.command("compare-live")(live_command)
run_app.command("due")(due_command)
run_app.command("next")(next_command)


def train_run(
    config_file: Path,
    opening: Opening,
    *,
    source: str | None,
    out: Path,
    keep_snapshot: bool = True,
    engine_of: EngineOf | None = None,
    console: Console | None = None,
) -> Path:
    """Train a config and write the run; give its folder.

    Args:
        config_file: the model config.
        opening: when, by whom and why; its source is filled in here.
        source: the extract; None takes what the config says.
        out: the folder of runs.
        keep_snapshot: whether rows and features are kept.
        engine_of: makes the engine that computes the features; None takes the reference engine.
        console: where to show things; None takes the standard output.

    Raises:
        CommandFailed: no source is named, or the data cannot support the model.
        Other ValueErrors: the config, a file that it names or the extract is not what it must be.
    """
    from dataclasses import replace

    from deployr_dev.cohorts.sources import NotInExtract
    from deployr_dev.folds import TrainingImpossible
    from deployr_dev.runs.config import load_config, resolved
    from deployr_dev.runs.folder import write_run
    from deployr_dev.runs.making import make_run
    from deployr_dev.sources.extract import shown_source
    from deployr_dev.sources.in_place import open_warehouse

    console = console or Console()
    config = load_config(config_file)
    named = source or config.source
    if named is None:
        raise CommandFailed(f"{config_file}: source: expected an extract there, or --source")
    whole = resolved(config, folder=config_file.parent)
    with open_warehouse(named, steps=lambda title: bar(console, title)) as extract, bar(console, "Training") as tell:
        try:
            made = make_run(
                extract,
                whole,
                replace(opening, source=shown_source(named)),
                engine=None if engine_of is None else engine_of(extract),
                keep_snapshot=keep_snapshot,
                progress=tell,
            )
        except (TrainingImpossible, NotInExtract) as error:
            raise CommandFailed(f"{config_file}: {error}") from None
    folder = write_run(made, out)
    for line in told_of(made.run):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{folder}: {REPORT_FILE} is the report", highlight=False, markup=False, soft_wrap=True)
    return folder


def verify_run(
    folder: Path, *, source: str | None = None, engine_of: EngineOf | None = None, console: Console | None = None
) -> bool:
    """Say what of a run is not as its record says; give whether all is.

    Raises:
        FolderInvalid: there is no record that could be checked against.
    """
    from deployr_dev.code_version import code_version
    from deployr_dev.runs.folder import RunFolder, verify, verify_against
    from deployr_dev.sources.in_place import open_warehouse

    console = console or Console()
    told = list(verify(folder))
    if not told:
        opened = RunFolder.open(folder)
        if not opened.run.has_snapshot:
            console.print("rows and features were not kept: of them only the source can tell (--source)")
        if source is not None:
            with open_warehouse(source, steps=lambda title: bar(console, title)) as extract:
                engine = None if engine_of is None else engine_of(extract)
                told += verify_against(opened, extract, engine=engine)
            if told and opened.run.code_version != code_version():
                console.print("it was trained by other code than is here, which may make other features")
    for line in told or ["everything is as run.json says"]:
        console.print(f"{folder.name}: {line}", highlight=False, markup=False, soft_wrap=True)
    return not told


def compare_on_held_out(
    champion: Path,
    challenger: Path,
    *,
    source: str,
    threshold: float | None = None,
    engine_of: EngineOf | None = None,
    console: Console | None = None,
) -> Comparison:
    """Hold two runs against each other on the challenger's held-out rows, and write it into the challenger's folder.

    Raises:
        NotComparable, FolderInvalid: nothing was written.
    """
    from deployr_dev.runs.folder import RunFolder
    from deployr_dev.runs.holdout import compare_runs
    from deployr_dev.sources.in_place import open_warehouse

    console = console or Console()
    first, second = RunFolder.open(champion), RunFolder.open(challenger)
    with (
        open_warehouse(source, steps=lambda title: bar(console, title)) as extract,
        bar(console, "Scoring the held-out rows by both"),
    ):
        found = compare_runs(
            first,
            second,
            extract,
            threshold=threshold,
            engine=None if engine_of is None else engine_of(extract),
            seed=second.config.config.seed,
        )
    write_comparison(found, challenger, console=console)
    return found


def write_comparison(comparison: Comparison, folder: Path, *, console: Console) -> None:
    """Write the record and its page into a folder, and say what it says."""
    from deployr_dev.evaluation.pages import write_whole
    from deployr_dev.runs.page import PAGE_FILE, comparison_html

    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / COMPARISON_FILE, comparison.to_json())
    write_whole(folder / PAGE_FILE, comparison_html(comparison).encode())
    for sentence in in_words(comparison):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{folder / PAGE_FILE}", highlight=False, markup=False, soft_wrap=True)


def told_of(run: Run) -> tuple[str, ...]:
    """Give what a run came to, in lines."""
    sets = [("trained on", run.sets.train), ("held out", run.sets.test)]
    figures = ", ".join(
        f"{name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for name, each in sorted(run.test.items())
    )
    return (
        f"run {run.run_id}",
        *(
            f"  {name}: {each.rows:,} rows of {each.patients:,} patients, {each.first} to {each.last}"
            for name, each in sets
        ),
        f"  held-out figures: {figures}",
    )

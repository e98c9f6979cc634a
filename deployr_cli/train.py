"""`deployr train`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_core.features import FeatureSpec
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import Task, load_task, shipped_task, shipped_task_names
from deployr_dev.declarations.shipped import load_declaration, shipped_declaration, shipped_declaration_names
from deployr_dev.sources.mapping import load_mapping
from deployr_dev.sources.omop import OmopExtract
from deployr_dev.training import train_bundle


def run_train(*, source: Path, out: Path, task: str, features: str, mapping: Path | None, seed: int) -> None:
    """Train, write the bundle, and say how it did."""
    console = Console()
    chosen, declaration = find_task(task), find_declaration(features)
    if out.exists():
        raise CommandFailed(f"{out}: expected a folder that does not exist yet; choose another --out or remove it")
    with (
        OmopExtract.open(source, load_mapping(mapping) if mapping else None) as extract,
        bar(console, f"Training {chosen.name}") as tell,
    ):
        trained = train_bundle(extract, chosen, declaration, seed=seed, progress=tell)
    write_bundle(trained, out)
    evaluation = trained.manifest.evaluation
    auroc = evaluation.auroc
    console.print(
        f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}) on {evaluation.rows} orders of "
        f"{evaluation.patients} patients held out; bundle {trained.manifest.version} in {out}"
    )


def find_task(name: str) -> Task:
    """Give the task of a file, or the shipped one of that name."""
    if Path(name).is_file():
        return load_task(Path(name))
    if name in shipped_task_names():
        return shipped_task(name)
    raise CommandFailed(f"{name}: expected a task file, or one of {', '.join(shipped_task_names())}")


def find_declaration(name: str) -> FeatureSpec:
    """Give the declaration of a file, or the shipped one of that name."""
    if Path(name).is_file():
        return load_declaration(Path(name))
    if name in shipped_declaration_names():
        return shipped_declaration(name)
    raise CommandFailed(f"{name}: expected a declaration file, or one of {', '.join(shipped_declaration_names())}")

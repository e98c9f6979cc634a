"""What there is before anything runs: a synthetic hospital, and a model that was trained on its past."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployr_cli.progress import bar
from deployr_core.bundle import Bundle
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import Task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_dev.training import train_bundle

if TYPE_CHECKING:
    from mock_emr.population.config import PopulationConfig


def synthetic_hospital(folder: Path, *, console: Console, config: PopulationConfig | None = None) -> Path:
    """Make a hospital in a folder, as an OMOP extract and as FHIR, and give the folder; ``config``: None, the usual."""
    from mock_emr.population.config import PopulationConfig
    from mock_emr.population.writing import write_population

    with bar(console, "Making a synthetic hospital"):
        write_population(config or PopulationConfig(), folder, processes=os.cpu_count() or 1)
    return folder


def trained_model(
    omop: Path,
    folder: Path,
    *,
    task: Task,
    before: datetime,
    console: Console,
    seed: int = 0,
    declaration: str | None = None,
) -> Bundle:
    """Train a task's model on what was before an instant, and write its bundle; ``declaration``: not the task's own."""
    features = shipped_declaration(declaration or task.declaration)
    with Extract.open(omop) as extract, bar(console, f"Training {task.name} on the past") as tell:
        trained = train_bundle(
            extract, task, features, before=before, seed=seed, engine=SetEngine(extract), progress=tell
        )
    return write_bundle(trained, folder)

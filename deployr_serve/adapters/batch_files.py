"""Reads the batches of a site: one YAML file per batch, checked as a whole before the app answers anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployr_serve.adapters.yaml_folder import read_folder
from deployr_serve.core.batch import Batch
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Models


def read_batches(folder: Path | None, *, models: Models, policies: Policies) -> tuple[Batch, ...]:
    """Read every ``*.yaml`` of a folder; None has no batches.

    Raises:
        SettingsInvalid: names every file that is wrong and what was expected in it, all at once.
    """
    read, problems = read_folder(folder, Batch, setting="DEPLOYR_BATCHES", each="batch")
    declared: dict[str, Batch] = {}
    for file, batch in read.items():
        if batch.name in declared:
            problems.append(f"{file}: name: expected one file for {batch.name}, got two")
        problems += (f"{file}: {text}" for text in _problems(batch, models.deployed(), policies))
        declared[batch.name] = batch
    if problems:
        raise SettingsInvalid("batches: " + "; ".join(problems))
    return tuple(declared.values())


def _problems(batch: Batch, deployed: Mapping[str, str | None], policies: Policies) -> list[str]:
    problems = []
    if unknown := sorted(set(batch.models) - set(deployed)):
        problems.append(f"models: expected some that are deployed here, got {', '.join(unknown)}")
    if batch.group is not None and not policies.in_group(batch.group):
        problems.append(f"group: expected one that a deployment file names, got {batch.group}")
    return problems

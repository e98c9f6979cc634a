"""Reads the deployment files: one YAML file per model, checked as a whole before the app answers anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from deployr_core.bundle import Bundle
from deployr_serve.adapters.yaml_folder import read_folder
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.core.ports import Models


def read_policies(
    folder: Path | None, *, models: Models, outputs: Iterable[str], all_declared: bool, has_vault: bool = False
) -> Policies:
    """Read every ``*.yaml`` of a folder.

    Args:
        folder: where the deployment files are; None if there are none.
        models: what is deployed; a file about a model that is not is refused.
        outputs: the names of the ways out that are configured.
        all_declared: whether every deployed model must have its file, as in the ``prod`` profile.
        has_vault: whether there is a place to keep facts in.

    Raises:
        SettingsInvalid: names every file that is wrong and what was expected in it, all at once.
    """
    known = frozenset(outputs)
    read, problems = read_folder(folder, Policy, setting="DEPLOYR_DEPLOYMENTS", each="model")
    declared: dict[str, Policy] = {}
    for file, policy in read.items():
        if policy.model in declared:
            problems.append(f"{file}: model: expected one file for {policy.model}, got two")
        problems += (f"{file}: {text}" for text in _problems(policy, models=models, outputs=known))
        if policy.keep_facts_days is not None and not has_vault:
            problems.append(f"{file}: keep_facts_days: expected DEPLOYR_FACTS_VAULT, to keep them in")
        declared[policy.model] = policy
    problems += _problems_of_groups(declared, models.deployed())
    if all_declared:
        missing = sorted(set(models.deployed()) - set(declared))
        problems += (f"{model}: expected a deployment file in DEPLOYR_DEPLOYMENTS" for model in missing)
    if problems:
        raise SettingsInvalid("deployments: " + "; ".join(problems))
    return Policies(declared=declared)


def _problems(policy: Policy, *, models: Models, outputs: frozenset[str]) -> list[str]:
    problems = []
    if policy.model not in models.deployed():
        problems.append(f"model: expected one that is deployed here, got {policy.model}")
    for key, names in (("outputs", policy.outputs or ()), ("when_advised", policy.when_advised)):
        if unknown := sorted(set(names) - outputs):
            configured = ", ".join(sorted(outputs)) or "none"
            problems.append(f"{key}: expected some of {configured}, got {', '.join(unknown)}")
    bundle = _bundle(models, policy.model)
    if bundle is not None and bundle.manifest.task.outputs.unit is None:
        if policy.threshold is not None and not 0.0 <= policy.threshold <= 1.0:
            problems.append("threshold: expected a probability from 0 to 1")
        if not all(0.0 <= band.at_least <= 1.0 for band in policy.bands):
            problems.append("bands: expected at_least to be a probability from 0 to 1")
    elif bundle is not None and policy.packed_in:
        problems.append("packed_in: expected a model of a probability; another number is not packed")
    return problems


def _problems_of_groups(declared: Mapping[str, Policy], deployed: Mapping[str, str | None]) -> list[str]:
    # The BPA route takes either name, so one must not hide the other.
    return [
        f"{model}: groups: expected a name that is no model's, got {group}"
        for model, policy in sorted(declared.items())
        for group in policy.groups
        if group in deployed
    ]


def _bundle(models: Models, model_id: str) -> Bundle | None:
    try:
        return models.bundle(model_id) if model_id in models.deployed() else None
    except ModelUnavailable:
        return None

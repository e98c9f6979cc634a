"""The monitoring plan of a model: what is watched, how often, by whom, and what is done when it is off.

A file `monitoring_plan.yaml` under a folder named for the model. Source: the plan of arXiv:2512.09048.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from deployr_core.strict_yaml import parse_yaml

PLAN_FILE = "monitoring_plan.yaml"


class Watched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the plan. ``panel``: the anchor of the panel that shows the metric, where there is one."""

    metric: str
    cadence: str
    owner: str
    action: str
    panel: str | None = None


class MonitoringPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment's owners agreed on before it went live."""

    model: str
    watched: tuple[Watched, ...]


def parse_plan(content: bytes) -> MonitoringPlan:
    """Read a plan.

    Raises:
        YamlInvalid: it is not of that shape; the message names the key.
    """
    return parse_yaml(content, MonitoringPlan)


def read_plans(folder: Path | None) -> Mapping[str, MonitoringPlan]:
    """Give the plans in the folders of a folder, by model; none without a folder.

    Raises:
        YamlInvalid: see `parse_plan`.
        ValueError: two plans of one model.
    """
    plans: dict[str, MonitoringPlan] = {}
    for file in sorted(folder.rglob(PLAN_FILE)) if folder is not None else ():
        plan = parse_plan(file.read_bytes())
        if plan.model in plans:
            raise ValueError(f"{file}: expected one plan for {plan.model}")
        plans[plan.model] = plan
    return plans

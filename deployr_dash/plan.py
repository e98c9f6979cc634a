"""The monitoring plan of a model: what is watched, how often, by whom, and what is done when it is off.

A file `monitoring_plan.yaml` under a folder named for the model. Source: the plan of arXiv:2512.09048.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from deployr_core.strict_yaml import parse_yaml
from deployr_dash.held_out import REPORT_FILE, HeldOut, parse_held_out
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.planned import PlannedTrial, PlannedUtilities
from deployr_plots.tables import Table

PLAN_FILE = "monitoring_plan.yaml"


class Watched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the plan. ``panel``: the anchor of the panel that shows the metric, where there is one."""

    metric: str
    cadence: str
    owner: str
    action: str
    panel: str | None = None


class MonitoringPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment's owners agreed on before it went live.

    ``utilities``: what right and wrong alerts are worth to its users. ``trial``: what its protocol says.
    """

    model: str
    watched: tuple[Watched, ...]
    utilities: PlannedUtilities | None = None
    trial: PlannedTrial | None = None


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


def read_held_out(folder: Path | None, model: str) -> Mapping[str, HeldOut]:
    """Give the curves of a model's versions from the reports of training in a folder's folders; none without one."""
    found = (parse_held_out(file.read_bytes()) for file in (sorted(folder.rglob(REPORT_FILE)) if folder else ()))
    return {each.version: each for each in found if each is not None and each.model_id == model}


def plan_panel(plan: MonitoringPlan) -> Panel:
    """Show what was agreed on, line by line."""
    return Panel(
        name="plan",
        title="Monitoring plan",
        tables=(
            NamedTable(
                caption="What was agreed on before it went live",
                table=Table(
                    columns=("metric", "how often", "who", "what is done"),
                    rows=tuple((each.metric, each.cadence, each.owner, each.action) for each in plan.watched),
                ),
            ),
        ),
    )

"""The monitoring plan of a model: what is watched, how often, by whom, and what is done when it is off.

A file `monitoring_plan.yaml` under a folder named for the model. Source: the plan of arXiv:2512.09048.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from deployr_core.strict_yaml import YamlInvalid, parse_yaml
from deployr_dash.held_out import REPORT_FILE, HeldOut, parse_held_out
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.planned import PlannedTrial, PlannedUtilities
from deployr_plots.tables import Table

PLAN_FILE = "monitoring_plan.yaml"


class PlanUnusable(ValueError):
    """A monitoring plan that is there cannot be used; the message names the file, and what is wrong with it."""


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
        PlanUnusable: one of them cannot be read, or two are of one model.
    """
    plans: dict[str, MonitoringPlan] = {}
    if folder is None:
        return plans
    for file in sorted(folder.rglob(PLAN_FILE)):
        try:
            plan = parse_plan(file.read_bytes())
        except YamlInvalid as error:
            raise PlanUnusable(f"{file.relative_to(folder)}: {error}") from error
        if plan.model in plans:
            raise PlanUnusable(f"{file.relative_to(folder)}: expected one plan for {plan.model}")
        plans[plan.model] = plan
    return plans


def read_held_out(folder: Path | None) -> Mapping[str, Mapping[str, HeldOut]]:
    """Give the curves in the reports of training in a folder's folders, by model and version; none without one."""
    found: dict[str, dict[str, HeldOut]] = {}
    for file in sorted(folder.rglob(REPORT_FILE)) if folder is not None else ():
        if (each := parse_held_out(file.read_bytes())) is not None:
            found.setdefault(each.model_id, {})[each.version] = each
    return found


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

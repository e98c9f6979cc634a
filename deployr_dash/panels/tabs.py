"""Which panels a model has, in which order: three tabs, as Stanford's monitoring has them.

Source: arXiv:2512.09048 (system integrity, performance, impact).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployr_core.bootstrap import NotMeasurable
from deployr_dash.panels.at_threshold import at_the_threshold
from deployr_dash.panels.curves import at_thresholds, calibration, discrimination, distributions
from deployr_dash.panels.drift import drift, feature_drift, presence
from deployr_dash.panels.effects import effect, wedge
from deployr_dash.panels.elsewhere import answered_by
from deployr_dash.panels.looks import running_effect
from deployr_dash.panels.operations import calling_pattern, deliveries, latency, reasons, volume
from deployr_dash.panels.panel import MakesPanel, Panel, View
from deployr_dash.panels.people import missing_labels, subgroups
from deployr_dash.panels.performance import estimated, in_short, over_time
from deployr_dash.panels.trial import response, under_selection
from deployr_dash.panels.trial_design import enrolled, likeness, strata, trial_health
from deployr_dash.panels.usefulness import burden, usefulness, utility
from deployr_dash.panels.volumes import volume_against_before


@dataclass(frozen=True, kw_only=True)
class Tab:
    """One tab: what it asks, and its panels by their names."""

    title: str
    asks: str
    panels: Mapping[str, MakesPanel]


TABS: Mapping[str, Tab] = {
    "integrity": Tab(
        title="System integrity",
        asks="Does it run, and are the patients those that the model knows?",
        panels={
            "volume": volume,
            "volume-change": volume_against_before,
            "reasons": reasons,
            "latency": latency,
            "deliveries": deliveries,
            "drift": drift,
            "feature-drift": feature_drift,
            "presence": presence,
            "answered-by": answered_by,
            "calling-pattern": calling_pattern,
        },
    ),
    "performance": Tab(
        title="Performance",
        asks="Are the scores right, for everybody, and still?",
        panels={
            "performance": in_short,
            "over-time": over_time,
            "estimated": estimated,
            "discrimination": discrimination,
            "calibration": calibration,
            "distributions": distributions,
            "thresholds": at_thresholds,
            "subgroups": subgroups,
            "funnel": missing_labels,
        },
    ),
    "impact": Tab(
        title="Impact",
        asks="Does anybody act on it, and does that help?",
        panels={
            "usefulness": usefulness,
            "utility": utility,
            "burden": burden,
            "response": response,
            "selection": under_selection,
            "effect": effect,
            "sequential": running_effect,
            "trial": trial_health,
            "strata": strata,
            "balance": likeness,
            "enrolment": enrolled,
            "stepped-wedge": wedge,
            "discontinuity": at_the_threshold,
        },
    ),
}


def panels_of(view: View, tab: str) -> tuple[Panel, ...]:
    """Give a tab's panels of a view that holds at least one packet; what cannot be measured says why in its place."""
    return tuple(_made(name, make, view) for name, make in TABS[tab].panels.items())


def _made(name: str, make: MakesPanel, view: View) -> Panel:
    try:
        return make(view)
    except NotMeasurable as error:
        return Panel(name=name, title=name.replace("-", " ").capitalize(), missing=f"It cannot be measured: {error}.")

"""What showing the advisory changed: the arms as they were assigned, and clusters that change over one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, NotMeasurable, Ratios, measure
from deployr_core.groups import too_small
from deployr_core.monitoring.clustered import Effect
from deployr_core.monitoring.effects import intention_to_treat, stepped_wedge
from deployr_core.outputs import Target
from deployr_dash.panels.panel import NamedTable, Panel, View, chance, patients_of, side_by_side
from deployr_dash.panels.trial_rows import (
    PLURALS,
    arms_of,
    difference,
    is_stepped,
    ripe_outcomes,
    took_part,
    unit_of,
    who_is_independent,
    written,
)
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.figures import Axis, Figure, Kind, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import percent


def effect(view: View) -> Panel:
    """Show the arms side by side: whose outcome was better, as assigned."""
    name, title = "effect", "Effect, as assigned"
    try:
        arms = arms_of(view)
        found = intention_to_treat(arms.outcomes, arms.treated, arms.clusters)
    except NotMeasurable as error:
        return Panel(name=name, title=title, missing=f"The effect cannot be measured yet: {error}.")
    rows = {"as it is": found.effect}
    saved = ""
    if arms.covariates.shape[1]:
        try:
            adjusted = intention_to_treat(arms.outcomes, arms.treated, arms.clusters, covariates=arms.covariates)
        except NotMeasurable as error:
            saved = f"Adjusted it cannot be given: {error}."
        else:
            rows["adjusted"] = adjusted.effect
            saved = (
                "Adjusted for what was known before: the first score and the strata. That took away"
                f" {percent(adjusted.variance_saved)} of the variance."
            )
    apart = {row: difference(view, each.value, each.low, each.high) for row, each in rows.items()}
    return Panel(
        name=name,
        title=title,
        said=(
            f"Outcome in arm {arms.treated_arm} {written(view, found.treated)}, in arm {arms.control_arm}"
            f" {written(view, found.control)}: a difference of {apart['as it is']}, {chance(found.effect.p_value)}.",
        ),
        figures=(
            estimates_figure(
                [Row(name=row, shown=_estimate(each)) for row, each in rows.items()],
                title=f"{arms.treated_arm.capitalize()} less {arms.control_arm}",
                told="; ".join(f"{row}: {words}" for row, words in apart.items()) + ".",
                name="effect",
                measure="Difference",
                axis=difference_axis(view, [bound for each in rows.values() for bound in (each.low, each.high)]),
                everybody=Estimate(value=0.0, low=0.0, high=0.0),
                everybody_name="no effect",
                rows_are="Estimate",
                width=620,
            ),
        ),
        notes=(
            f"Intention to treat: by arm, whatever was shown. {who_is_independent(arms.packets, found.effect.clusters)}"
            " Interval: cluster-robust (CR2), 95 %.",
            *((saved,) if saved else ()),
            "Looking often at a running trial finds what is not there: decide on it at the planned looks, or by the"
            " always-valid interval below.",
        ),
    )


def wedge(view: View) -> Panel:
    """Show the effect where clusters changed over one after another, and never back."""
    name, title = "stepped-wedge", "Stepped wedge"
    packets = took_part(view)
    if not is_stepped(packets):
        return Panel(
            name=name,
            title=title,
            missing="No stepped wedge runs in this window. A trial declares one in its deployment file"
            " (docs/trials.md).",
        )
    treated = _shows(packets)
    outcome = ripe_outcomes(view, packets)
    known = np.isfinite(outcome)
    packets, treated, outcome = packets.loc[known], treated[known], outcome[known]
    if packets.empty:
        return Panel(name=name, title=title, missing="No packet of the trial has an outcome in this window yet.")
    period = packets["wedge_period"].to_numpy(dtype=np.int64)
    places, cluster = np.unique(packets["wedge_cluster"].to_numpy(dtype=np.int64), return_inverse=True)
    try:
        found = stepped_wedge(outcome, treated, period, cluster.astype(np.int64))
    except (NotMeasurable, ValueError) as error:
        return Panel(name=name, title=title, missing=f"The stepped wedge cannot be measured yet: {error}.")
    words = difference(view, found.value, found.low, found.high)
    return Panel(
        name=name,
        title=title,
        said=(f"After the change {words}, {chance(found.p_value)}, each cluster against itself and the others.",),
        figures=(_steps(view, packets, outcome, treated, period, cluster),),
        tables=(
            NamedTable(
                caption="Effect, with periods and clusters taken out",
                table=Table(
                    columns=("difference", "p", "clusters", "periods"),
                    rows=((words, round(found.p_value, 4), places.size, np.unique(period).size),),
                ),
            ),
        ),
        notes=(
            f"Clusters are {PLURALS[unit_of(packets)]}, in the order of the deployment file's list; periods begin with"
            " its steps. Both are taken out as fixed effects (Hussey and Hughes 2007); interval: cluster-robust (CR2),"
            " 95 %. The effect is taken to be there at once and to stay as it is.",
        ),
    )


def _names_of(packets: pd.DataFrame) -> list[str]:
    """Name each cluster, in order of its place: by its stratum where that is its own, else by the place."""
    places = packets["wedge_cluster"].astype(int)
    strata = packets.loc[packets["stratum"].notna()].groupby(places, observed=True)["stratum"].agg(set)
    own = {place: next(iter(names)) for place, names in strata.items() if len(names) == 1}
    distinct = sorted(set(places))
    if len(set(own.values())) == len(distinct):
        return [str(own[place]) for place in distinct]
    return [f"cluster {place}" for place in distinct]


def _steps(
    view: View,
    packets: pd.DataFrame,
    outcome: Floats,
    treated: NDArray[np.bool_],
    period: NDArray[np.int64],
    cluster: NDArray[np.intp],
) -> Figure:
    """Draw each cluster's mean outcome before and after its change."""
    names = _names_of(packets)
    patients, is_number = patients_of(packets), view.target is Target.REGRESSION
    inside = {
        (called, name): chosen & (cluster == place)
        for called, chosen in (("before the change", ~treated), ("after it", treated))
        for place, name in enumerate(names)
    }
    told_apart = {key: rows for key, rows in inside.items() if too_small(patients[rows]) is None}
    series: dict[str, dict[str, Measured]] = {"before the change": {}, "after it": {}}
    if told_apart:
        weights = np.column_stack(list(told_apart.values())).astype(np.float64)
        means = Ratios(
            names=tuple(f"{called}@{name}" for called, name in told_apart),
            lacks=("at least one packet",) * len(told_apart),
            numerators=weights * outcome[:, np.newaxis],
            denominators=weights,
            shares=(not is_number,) * len(told_apart),
        )
        found = measure([means], patients, rng=view.rng(), resamples=view.resamples)
        for called, name in told_apart:
            series[called][name] = found[f"{called}@{name}"]
    marks = side_by_side(names, series)
    ends = [bound for mark in marks for bound in (*mark.low, *mark.high)]
    low, high = round_ends(min(ends, default=0.0), max(ends, default=1.0))
    first = [period[treated & (cluster == place)] for place in range(len(names))]
    told = "; ".join(
        f"{name} changed over with step {steps.min()}" if steps.size else f"{name} has not changed over yet"
        for name, steps in zip(names, first, strict=True)
    )
    return Figure(
        name="stepped-wedge",
        title="Outcome by cluster, before and after its change",
        told=f"{told}.",
        x=Axis(name="Outcome, mean", unit=view.unit, kind=_kind(view), low=low, high=high),
        y=Axis(name="Cluster", kind=Kind.NAMES, names=tuple(names)),
        marks=marks,
        width=620,
        height=110 + 34 * len(names),
    )


def _shows(packets: pd.DataFrame) -> NDArray[np.bool_]:
    """Say of each packet whether its arm shows advisories at all."""
    shown = packets.groupby("arm", observed=True)["shown_by_design"].any()
    arms = {str(arm) for arm, any_shown in shown.items() if any_shown}
    found: NDArray[np.bool_] = packets["arm"].astype("object").isin(arms).to_numpy(dtype=bool)
    return found


def _estimate(found: Effect) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high)


def difference_axis(view: View, bounds: Sequence[float]) -> Axis:
    """Give an axis of differences that is as long on either side of 0, a little longer than these bounds."""
    is_number = view.target is Target.REGRESSION
    reach = 1.15 * max([0.001, *(abs(each) for each in bounds)])
    return Axis(
        name="Difference in the outcome" if is_number else "Difference in the share with the outcome",
        unit=view.unit,
        kind=_kind(view),
        low=-reach,
        high=reach,
    )


def _kind(view: View) -> Kind:
    return Kind.NUMBER if view.target is Target.REGRESSION else Kind.PERCENT

"""Whether a trial runs as it was designed: its arms' sizes, on the whole and by stratum, their likeness, enrolment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Floats
from deployr_core.groups import FEWEST_PATIENTS
from deployr_core.monitoring.closed_form import Z_95, wilson_interval
from deployr_core.monitoring.designs import (
    ALARM_P,
    Imbalance,
    SampleRatio,
    balance,
    enrolment,
    sample_ratio,
    stratum_ratios,
)
from deployr_core.trial import RandomizationUnit
from deployr_dash.panels.panel import NamedTable, Panel, View, chance, estimate
from deployr_dash.panels.people import PROPERTIES, STRATUM, group_names
from deployr_dash.panels.trial_rows import (
    PLURALS,
    STEPPED,
    WITHIN_A_PATIENT,
    chances_of,
    cut_off,
    is_stepped,
    of_trial,
    sizes_of,
    unit_of,
    units_of,
)
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.figures import Axis, Band, Figure, Kind, Level, Line, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import count, number, of, percent

_FEWEST_UNITS = FEWEST_PATIENTS
"""In a stratum: of fewer nothing is said, they could tell of a person."""
_MOST_COVARIATES = 20


def trial_health(view: View) -> Panel:
    """Show how many units each arm has, against the chances that they were assigned with."""
    name, title = "trial", "The arms' sizes"
    units = units_of(of_trial(view))
    chances = chances_of(units)
    if chances is None:
        why = STEPPED if is_stepped(of_trial(view)) else "No trial with all of its arms runs in this window."
        return Panel(name=name, title=title, missing=why)
    counts = sizes_of(units, chances)
    found = sample_ratio(counts, chances)
    arms = sorted(chances)
    shares = {arm: _share(units, arm) for arm in arms}
    return Panel(
        name=name,
        title=title,
        said=(
            f"{of(sum(counts.values()), 'unit')} of randomization ({PLURALS[unit_of(units)]}). "
            + (
                f"The arms' sizes do not fit the chances they were drawn with ({chance(found.p_value)}): find out why"
                " before anything else is read."
                if found.alarm
                else f"The arms' sizes fit the chances they were drawn with ({chance(found.p_value)})."
            ),
        ),
        figures=(
            Figure(
                name="arms",
                title="Share of the units in each arm",
                told="; ".join(
                    f"{arm}: {count(counts[arm])} units, {number(found.expected[arm], digits=1)} expected"
                    for arm in arms
                )
                + ".",
                x=Axis(name="Share of the units", kind=Kind.PERCENT, low=0.0, high=1.0),
                y=Axis(name="Arm", kind=Kind.NAMES, names=tuple(arms)),
                marks=(
                    Points(
                        name="chance of the arm",
                        x=numbers(chances[arm] for arm in arms),
                        y=numbers(place + 0.13 for place in range(len(arms))),
                        role=Role.CONTRAST,
                    ),
                    Points(
                        name="in it",
                        x=numbers(shares[arm].value for arm in arms),
                        y=numbers(place - 0.13 for place in range(len(arms))),
                        low=numbers(shares[arm].low for arm in arms),
                        high=numbers(shares[arm].high for arm in arms),
                        level=True,
                    ),
                ),
                width=520,
                height=110 + 34 * len(arms),
            ),
        ),
        tables=(
            NamedTable(
                caption="Units by arm",
                table=Table(
                    columns=("arm", "units", "expected", "chance"),
                    rows=tuple(
                        (arm, counts[arm], round(found.expected[arm], 1), percent(chances[arm])) for arm in arms
                    ),
                ),
            ),
        ),
        notes=(
            f"Intervals: 95 %, Wilson, units being independent. The alarm sounds at p under {ALARM_P:g}, because it is"
            " looked at every day.",
        ),
    )


def strata(view: View) -> Panel:
    """Show the arms' sizes within each stratum."""
    name, title = "strata", "Strata"
    units = units_of(of_trial(view))
    chances = chances_of(units)
    if chances is None or not units[STRATUM].notna().any():
        return Panel(
            name=name,
            title=title,
            missing=STEPPED
            if is_stepped(of_trial(view))
            else "No trial with strata runs in this window. A trial declares them in its deployment file"
            " (docs/trials.md).",
        )
    units = units.loc[units[STRATUM].notna()]
    sizes = units[STRATUM].value_counts()
    told_of = [each for each in sorted(sizes.index) if sizes[each] >= _FEWEST_UNITS]
    found = stratum_ratios(units["arm"].tolist(), units[STRATUM].tolist(), chances)
    arm = str(units.sort_values(["shows", "arm"])["arm"].iloc[-1])
    alarms = [each for each in told_of if found[each].alarm]
    rows = [
        Row(
            name=f"{each} ({count(int(sizes[each]))})" if each in told_of else each,
            shown=_share(units.loc[units[STRATUM] == each], arm) if each in told_of else "too small",
        )
        for each in sorted(sizes.index)
    ]
    return Panel(
        name=name,
        title=title,
        said=(
            f"In {', '.join(alarms)} the arms' sizes do not fit the chances they were drawn with: find out why."
            if alarms
            else f"{of(len(sizes), 'stratum', 'strata')}; in each the arms' sizes fit the chances of being drawn.",
        ),
        figures=(
            estimates_figure(
                rows,
                title=f"Share of the units in arm {arm}, by stratum",
                told="; ".join(f"{each}: {found[each].counts[arm]} of {sizes[each]}" for each in told_of) + ".",
                name="strata",
                measure="Share",
                axis=Axis(name=f"Share of the units in arm {arm}", kind=Kind.PERCENT, low=0.0, high=1.0),
                everybody=Estimate(value=chances[arm], low=chances[arm], high=chances[arm]),
                everybody_name="chance",
                rows_are="Stratum",
                width=620,
            ),
        ),
        tables=(
            NamedTable(
                caption="Units by stratum and arm",
                table=Table(
                    columns=("stratum", *sorted(chances), "p"),
                    rows=tuple(_stratum_row(each, found[each], sorted(chances)) for each in told_of),
                ),
            ),
        ),
        notes=(
            f"Strata are what the channel told when a unit was assigned. Of under {_FEWEST_UNITS} units none is shown."
            f" The alarm sounds at p under {ALARM_P:g}, divided by the number of strata. Intervals: 95 %, Wilson.",
        ),
    )


def likeness(view: View) -> Panel:
    """Show how alike the arms are in what was known of their units before they were assigned."""
    name, title = "balance", "The arms' likeness"
    packets = of_trial(view)
    if is_stepped(packets):
        return Panel(name=name, title=title, missing=STEPPED)
    packets = packets.loc[packets["arm"].notna() & packets["unit_code"].notna() & packets["unit"].notna()]
    shows = packets.groupby("arm", observed=True)["shown_by_design"].mean()
    if len(shows) < 2:
        return Panel(name=name, title=title, missing="No trial with two arms runs in this window.")
    treated_arm, control_arm = str(shows.idxmax()), str(shows.idxmin())
    packets = packets.loc[packets["arm"].isin([treated_arm, control_arm])].sort_values("received_at", kind="stable")
    unit = unit_of(packets)
    within = unit in {*WITHIN_A_PATIENT, RandomizationUnit.PATIENT}
    # Later packets of a unit may be what the advisory made of it.
    packets = packets.drop_duplicates("unit_code" if within else ["unit_code", "patient_code"])
    columns = _covariates(packets)
    codes, place = np.unique(packets["unit_code"].to_numpy(dtype=np.int64), return_inverse=True)
    size = np.bincount(place)
    means = {each: np.bincount(place, weights=column) / size for each, column in columns.items()}
    treated = np.bincount(place, weights=(packets["arm"].astype("object") == treated_arm).to_numpy(float)) > 0
    found = balance(means, treated)
    ranked = sorted(found.covariates, key=lambda each: -abs(each.difference))[:_MOST_COVARIATES]
    reach = max(0.25, *(abs(each.difference) + Z_95 * each.by_chance for each in ranked)) * 1.1
    far = ranked[0]
    return Panel(
        name=name,
        title=title,
        said=(
            (
                f"The arms are more unlike than chance makes them ({chance(found.p_value)} for all together): look at"
                " how units are assigned."
                if found.alarm
                else f"The arms are as alike as chance makes them ({chance(found.p_value)} for all together)."
            ),
            f"Furthest apart: {far.name}, by {number(far.difference)} standard deviations.",
        ),
        figures=(_differences(ranked, reach=reach, treated=treated_arm, control=control_arm),),
        tables=(
            NamedTable(
                caption=f"{of(int(codes.size), 'unit')}: means, and standardised differences",
                table=Table(
                    columns=("what", control_arm, treated_arm, "difference (SD)", "by chance (SD)"),
                    rows=tuple(
                        (
                            each.name,
                            number(each.control),
                            number(each.treated),
                            round(each.difference, 3),
                            round(each.by_chance, 3),
                        )
                        for each in ranked
                    ),
                ),
            ),
        ),
        notes=(
            "Of each unit its first packet"
            + ("" if within else " of each patient")
            + f", before anything was shown. Intervals: 95 % of what chance alone makes. One test of all {len(columns)}"
            " together decides (Hansen and Bowers 2008); of many, some look unbalanced by themselves.",
        ),
    )


def enrolled(view: View) -> Panel:
    """Show how many units came, against how many were planned."""
    name, title = "enrolment", "Enrolment against plan"
    packets, planned = of_trial(view), view.planned_trial
    if packets.empty:
        return Panel(name=name, title=title, missing="No trial runs in this window.")
    if planned is None:
        return Panel(
            name=name,
            title=title,
            missing="Nobody has said how many units were planned: put `trial` into the model's monitoring plan"
            " (docs/dashboard.md).",
        )
    if (why := cut_off(view)) is not None:
        return Panel(name=name, title=title, missing=why)
    begins = datetime.combine(planned.begins, time(), UTC)
    days = max(1, (min(view.window.end, view.now) - begins).days)
    first = packets.loc[packets["unit_code"].notna()].groupby("unit_code", observed=True)["received_at"].min()
    day = ((first - pd.Timestamp(begins)) // pd.Timedelta(days=1)).to_numpy(dtype=np.int64)
    by_day = np.bincount(day[(day >= 0) & (day < days)], minlength=days)
    found = enrolment(by_day.tolist(), planned_per_day=planned.units_per_day)
    upto = np.cumsum(by_day)
    wanted = np.minimum(planned.units, planned.units_per_day * np.arange(1, days + 1))
    ends = begins.timestamp() + 86_400.0 * np.arange(1, days + 1)
    margin = Z_95 * np.sqrt(wanted)
    pace = upto[-1] / days
    left = (planned.units - int(upto[-1])) / pace if pace else float("inf")
    sentence = (
        f"{count(int(upto[-1]))} of {of(planned.units, 'planned unit')} in {of(days, 'day')}, where"
        f" {number(float(wanted[-1]), digits=0)} were planned by now."
    )
    if left > 0 and np.isfinite(left):
        sentence += f" At this pace the last comes in {number(left, digits=0)} days."
    return Panel(
        name=name,
        title=title,
        said=(
            sentence,
            f"In the last {of(found.window_days, 'day')}: {count(found.lately)},"
            f" {number(found.planned_lately, digits=1)} planned"
            + (f" ({chance(found.p_value)}): find out who is not asked any more." if found.alarm else "."),
        ),
        figures=(
            Figure(
                name="enrolment",
                title="Units enrolled",
                told=f"{count(int(upto[-1]))} units by {pd.Timestamp(ends[-1], unit='s'):%Y-%m-%d}, where"
                f" {number(float(wanted[-1]), digits=0)} were planned.",
                x=Axis(name="Day (UTC)", kind=Kind.TIME, low=begins.timestamp(), high=float(ends[-1])),
                y=Axis(name="Units enrolled so far", low=0.0),
                marks=(
                    Level(name="planned in all", at=float(planned.units)),
                    Band(
                        name="as planned",
                        x=numbers(ends),
                        low=numbers(np.maximum(0.0, wanted - margin)),
                        high=numbers(wanted + margin),
                        role=Role.CONTRAST,
                    ),
                    Line(name="as planned", x=numbers(ends), y=numbers(wanted), role=Role.CONTRAST),
                    Line(name="enrolled", x=numbers(ends), y=numbers(upto), steps=True),
                ),
                width=620,
                height=300,
            ),
        ),
        notes=(
            f"A unit counts on the day of its first scored packet. The band is what chance makes of a pace as planned"
            f" (Poisson, 95 %). The alarm looks at the last days alone, at p under {ALARM_P:g}.",
        ),
    )


def _share(units: pd.DataFrame, arm: str) -> Estimate:
    held = (units["arm"] == arm).to_numpy(dtype=bool)
    found = wilson_interval(held, np.arange(held.size))
    return estimate(found) or Estimate(value=0.0, low=0.0, high=1.0)


def _stratum_row(name: str, found: SampleRatio, arms: list[str]) -> tuple[str | float | None, ...]:
    return (name, *(found.counts[arm] for arm in arms), round(found.p_value, 4))


def _covariates(packets: pd.DataFrame) -> Mapping[str, Floats]:
    """Give a column for each category of each property, and the score."""
    columns: dict[str, Floats] = {"score": packets["score"].to_numpy(dtype=np.float64)}
    for column, called in PROPERTIES.items():
        names = group_names(packets[column])
        found = np.unique(names)
        if found.size < 2:
            continue
        columns |= {f"{called}: {each or 'none'}": (names == each).astype(np.float64) for each in found.tolist()}
    return columns


def _differences(ranked: list[Imbalance], *, reach: float, treated: str, control: str) -> Figure:
    shown = [(each.difference, Z_95 * each.by_chance) for each in ranked]
    return Figure(
        name="balance",
        title=f"Standardised differences, {treated} less {control}",
        told="; ".join(f"{each.name}: {number(each.difference)}" for each in ranked) + ".",
        x=Axis(name="Difference", unit="standard deviations", low=-reach, high=reach),
        y=Axis(name="What was known before", kind=Kind.NAMES, names=tuple(each.name for each in ranked)),
        marks=(
            Level(name="alike", at=0.0, upright=True),
            Points(
                name="difference",
                x=numbers(difference for difference, _ in shown),
                y=numbers(range(len(shown))),
                low=numbers(difference - margin for difference, margin in shown),
                high=numbers(difference + margin for difference, margin in shown),
                level=True,
            ),
        ),
        width=620,
        height=96 + 28 * len(ranked),
    )

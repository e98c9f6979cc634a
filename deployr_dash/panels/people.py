"""Whether every packet is accounted for, and whether the model does as well for some people as for everybody."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import NotMeasured
from deployr_core.groups import NOT_RECORDED, Strings
from deployr_core.monitoring.funnel import Maturity, Stage, funnel
from deployr_core.monitoring.subgroups import (
    Subgroup,
    Subgroups,
    SubgroupTable,
    TooSmall,
    binary_subgroups,
    other_subgroups,
)
from deployr_core.outputs import Target
from deployr_dash.panels.panel import (
    Labelled,
    NamedTable,
    Panel,
    View,
    estimate,
    is_ripe,
    labelled,
    refused,
    said,
    threshold_of,
    too_few,
    words_of,
)
from deployr_dash.panels.several import answered
from deployr_dash.planned import BETWEEN_STRATA
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.figures import Axis, Bars, Figure, Kind, Role, numbers, slug
from deployr_plots.tables import Table
from deployr_plots.words import count, of, percent

STRATUM = "stratum"
PROPERTIES = {
    "sex": "sex",
    "age_band": "age",
    "race": "race",
    "ethnicity": "ethnicity",
    "language": "language",
    "insurance": "insurance",
    "stratum": STRATUM,
}
"""Columns of packets by what they are called to people; none is measured where nothing is known of any packet."""

_BAND = re.compile(r"\[(\d+),(\d*)\)\Z")

_TITLES = {
    "auroc": "AUROC",
    "calibration_in_the_large": "calibration in the large",
    "ppv": "PPV",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
_OF_STRATA = "Strata are what the channel told of a unit when it was assigned; packets outside the trial have none."

_STAGES = {
    Stage.UNFINISHED: "unfinished",
    Stage.REJECTED: "rejected",
    Stage.FAILED: "failed",
    Stage.ABSTAINED: "abstained",
    Stage.NOT_RIPE: "not yet ripe",
    Stage.OVERDUE: "ripe, not looked at yet",
    Stage.CENSORED: "censored",
}


def missing_labels(view: View) -> Panel:
    """Show what became of every request, down to those with a label."""
    packets = view.packets
    found = funnel(
        words_of(packets["kind"]),
        words_of(packets["reason"]),
        words_of(packets["label_kind"]),
        words_of(packets["label_reason"]),
        is_ripe(packets["label_ripe_at"], now=view.now),
        maturity=Maturity.RIPE if view.only_ripe else Maturity.ALL,
    )
    lost = {each.stage: each for each in found.lost}
    steps = [("requested", found.requested)]
    steps += [(_STAGES[stage], lost[stage].packets) for stage in _STAGES if stage in lost]
    steps.append(("labelled", found.labelled))
    places = numbers(range(len(steps)))
    figure = Figure(
        name="funnel",
        title="From requested to labelled",
        told="; ".join(f"{name}: {count(n)}" for name, n in steps) + ".",
        x=Axis(name="Packets", low=0.0),
        y=Axis(name="Where packets ended", kind=Kind.NAMES, names=tuple(f"{name}: {count(n)}" for name, n in steps)),
        marks=tuple(
            Bars(
                name="kept" if role is Role.MAIN else "lost on the way",
                starts=tuple(place - 0.35 for place in chosen),
                ends=tuple(place + 0.35 for place in chosen),
                heights=tuple(float(steps[int(place)][1]) for place in chosen),
                level=True,
                role=role,
            )
            for role, chosen in ((Role.MAIN, (places[0], places[-1])), (Role.CONTRAST, places[1:-1]))
            if chosen
        ),
        width=640,
        height=90 + 28 * len(steps),
    )
    table = Table(
        columns=("where it ended", "packets", "reasons"),
        rows=tuple(
            (_STAGES[stage], lost[stage].packets, ", ".join(f"{code} {count(n)}" for code, n in lost[stage].reasons))
            for stage in _STAGES
            if stage in lost
        ),
    )
    share = "none" if found.label_share is None else percent(found.label_share)
    early = (
        f"{of(found.labelled_early, 'label')} of packets that are not ripe"
        f" {'are left out' if view.only_ripe else 'are counted'}."
    )
    return Panel(
        name="funnel",
        title="Missing labels",
        said=(
            f"{count(found.requested)} requested, {count(found.scored)} scored, {count(found.labelled)} with a label"
            f" that counts: {share} of those old enough to have one.",
            *((early,) if found.labelled_early else ()),
        ),
        figures=(figure,),
        tables=(NamedTable(caption="What was lost on the way, and why", table=table),) if table.rows else (),
        notes=("Performance is measured on what is left at the end. Codes are explained in docs/glossary.md.",),
    )


def subgroups(view: View) -> Panel:
    """Show the main figure by group against everybody's, and which differences are more than chance."""
    name, title = "subgroups", "Subgroups"
    rows = labelled(view)
    if (why := refused(view, rows, name, title)) is not None:
        return why
    found, properties = _measured(view, rows)
    if found is None:
        return Panel(
            name=name,
            title=title,
            missing="The model looks at neither age, sex, race nor ethnicity, the EMR told neither language nor"
            " insurance, and no trial has strata, so the packets hold no groups. Declare them in the model's features,"
            " as the trial's strata, or with `read_insurance` in the deployment file, to have subgroups here.",
        )
    main = "mae" if view.target is Target.REGRESSION else "auroc"
    worse = _found(found)
    return Panel(
        name=name,
        title=title,
        said=(worse or "No group differs from everybody by more than chance, as far as these rows can tell.",),
        figures=tuple(_figure(table, found.everybody[main], main=main, unit=view.unit) for table in found.tables),
        tables=tuple(
            NamedTable(caption=f"By {' and '.join(table.properties)}", table=_table(table)) for table in found.tables
        ),
        notes=(
            f"{of(found.tests, 'difference')} from everybody were tested together, with Holm's correction. Groups that"
            " are too small get no figures: they would be noise, and could tell of a person.",
            *((_OF_STRATA,) if properties - set(PROPERTIES.values()) or STRATUM in properties else ()),
            *too_few(rows),
        ),
    )


def _measured(view: View, rows: Labelled) -> tuple[Subgroups | None, frozenset[str]]:
    """Measure the groups that there are, and name the properties; None where there are none."""
    if view.target is Target.BINARY:
        properties = groups_of(view, rows.rows)
        if not properties:
            return None, frozenset()
        found = binary_subgroups(
            rows.labels,
            rows.scores,
            rows.patients,
            properties,
            rng=view.rng(),
            crossed=_crossed(properties),
            threshold=threshold_of(view),
            resamples=view.resamples,
        )
        return found, frozenset(properties)
    every = answered(view)
    properties = groups_of(view, every.rows)
    if not properties:
        return None, frozenset()
    found = other_subgroups(
        every.outputs,
        every.labels,
        every.answers,
        every.patients,
        properties,
        rng=view.rng(),
        crossed=_crossed(properties),
        resamples=view.resamples,
    )
    return found, frozenset(properties)


def _crossed(properties: Mapping[str, Strings]) -> list[tuple[str, ...]]:
    return [("sex", "age")] if {"sex", "age"} <= properties.keys() else []


def groups_of(view: View, rows: NDArray[np.intp]) -> dict[str, Strings]:
    """Give the name of each row's group by property, of those that are known of any.

    A stratum's parts are properties of their own where the monitoring plan names them: ward, or whatever the channel
    tells of a unit.
    """
    known: dict[str, Strings] = {}
    for column, name in PROPERTIES.items():
        if not view.packets[column].notna().any():
            continue
        names = group_names(view.packets[column])[rows]
        planned = () if view.planned_trial is None else view.planned_trial.strata
        known |= _parts(names, planned) if name == STRATUM and planned else {name: names}
    return known


def _parts(strata: Strings, names: tuple[str, ...]) -> dict[str, Strings]:
    """Give each part of the strata under its name; not recorded where a stratum has not as many parts."""
    distinct, place = np.unique(strata, return_inverse=True)
    parts = [text.split(BETWEEN_STRATA) for text in distinct.tolist()]
    return {
        name: np.array([each[number] if len(each) == len(names) else "" for each in parts], dtype=str)[place]
        for number, name in enumerate(names)
    }


def group_names(column: pd.Series) -> Strings:
    """Give each packet's group as people call it, empty where the model does not look."""
    names, place = np.unique(words_of(column), return_inverse=True)
    found: Strings = np.array([group_name(name) for name in names], dtype=str)[place]
    return found


def group_name(category: str) -> str:
    """Give a category of packets as people call it: ``[18,40)`` is ``18 to 39``, ``unknown`` is not recorded."""
    if category == "unknown":
        return NOT_RECORDED
    band = _BAND.match(category)
    if band is None:
        return category
    return f"{band[1]} and over" if not band[2] else f"{band[1]} to {int(band[2]) - 1}"


def _figure(table: SubgroupTable, everybody: Measured, *, main: str, unit: str) -> Figure:
    name = " and ".join(table.properties)
    rows = [
        Row(
            name=f"{group.name}{'' if group.rows is None else f' ({count(group.rows)})'}",
            shown="too small"
            if isinstance(group.figures, TooSmall)
            else estimate(group.figures[main]) or "not measurable",
        )
        for group in table.groups
    ]
    told = "; ".join(f"{group.name}: {_cell(group, main)}" for group in table.groups)
    called, axis = _TITLES[main], None
    if main == "mae":
        ends = [row.shown.high for row in rows if isinstance(row.shown, Estimate)]
        axis = Axis(name=called.capitalize(), unit=unit, low=0.0, high=1.1 * max(ends, default=1.0))
    return estimates_figure(
        rows,
        title=f"{called[0].upper()}{called[1:]} by {name}",
        told=f"{told}. Everybody: {said(everybody)}.",
        name=f"{main}-by-{slug(name)}",
        measure=called,
        everybody=estimate(everybody),
        axis=axis,
        width=460,
    )


def _table(table: SubgroupTable) -> Table:
    keys = ("auroc", "calibration_in_the_large", "sensitivity", "ppv", "mae", "rmse", "bias")
    shown = [key for key in keys if _has(table, key)]
    return Table(
        columns=("group", "packets", "patients", *(_TITLES.get(key, key) for key in shown), "differs"),
        rows=tuple(
            (
                group.name,
                None if group.rows is None else group.rows,
                None if group.patients is None else group.patients,
                *(_cell(group, key) for key in shown),
                ", ".join(
                    f"{_TITLES.get(key, key)} (p = {found.p_corrected:.3f})"
                    for key, found in group.differences.items()
                    if found.is_found
                ),
            )
            for group in table.groups
        ),
    )


def _has(table: SubgroupTable, key: str) -> bool:
    return any(not isinstance(group.figures, TooSmall) and key in group.figures for group in table.groups)


def _cell(group: Subgroup, key: str) -> str:
    if isinstance(group.figures, TooSmall):
        return f"too small: {group.figures.why}"
    return said(group.figures.get(key, NotMeasured(why="not asked for")))


def _found(found: Subgroups) -> str:
    """Name the groups that differ from everybody by more than chance, and in what."""
    differ = {
        group.name: [_TITLES.get(key, key) for key, each in group.differences.items() if each.is_found]
        for table in found.tables
        for group in table.groups
    }
    named = [f"{group} ({', '.join(in_what)})" for group, in_what in differ.items() if in_what]
    return f"Different from everybody by more than chance: {'; '.join(named)}." if named else ""

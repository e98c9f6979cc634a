"""One packet: when what happened, which features were seen, and what moved the score."""

from __future__ import annotations

import numpy as np
import pandas as pd

from deployr_core.packet import Contribution, FetchRecord, InferencePacket, Scored
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.readings import SparseFeatures
from deployr_plots.figures import Axis, Bars, Figure, Kind, Level, Points, Role
from deployr_plots.tables import Table
from deployr_plots.words import number, of

_INSTANTS = {
    "as_of": "what is known ends here",
    "received_at": "received",
    "started_at": "the attempt that ended it began",
    "ended_at": "answered",
    "shown_at": "advisory shown",
    "response_at": "clinician answered",
    "label_at": "outcome happened",
    "label_known_at": "outcome could be known",
    "label_attached_at": "label attached",
    "label_ripe_at": "label ripe",
}
_OUTCOME = ("kind", "reason", "score", "value_unit", "answered_by", "mode", "advised", "why", "threshold", "band")
_REST = (
    *("trial_id", "arm", "p_arm", "wedge_cluster", "wedge_period", "p_shown", "response", "response_reason"),
    *("label_kind", "label_value", "label_class"),
)
_MOST = 15


def timeline(row: pd.Series) -> Panel:
    """Show in which order things happened."""
    told = sorted(
        ((row[name], words) for name, words in _INSTANTS.items() if not pd.isna(row[name])), key=lambda each: each[0]
    )
    facts = [(name.replace("_", " "), _shown(row[name])) for name in (*_OUTCOME, *_REST) if not pd.isna(row[name])]
    score = row["score"]
    sentence = f"{row['kind']}" + (f", with the score {number(float(score))}" if not pd.isna(score) else "")
    if not pd.isna(row["reason"]):
        sentence += f": {row['reason']}"
    return Panel(
        # Not "timeline": browsers' pages have a property of that name, and Streamlit strips ids that would hide it.
        name="packet-timeline",
        title="Timeline",
        said=(f"Model {row['model_id']}, version {row['version']}: {sentence}.",),
        tables=(
            NamedTable(
                caption="What happened when (UTC)",
                table=Table(
                    columns=("instant", "what"), rows=tuple((f"{at:%Y-%m-%d %H:%M:%S}", words) for at, words in told)
                ),
            ),
            NamedTable(caption="What came of it", table=Table(columns=("field", "value"), rows=tuple(facts))),
        ),
    )


def features(found: SparseFeatures | None, row: pd.Series) -> Panel:
    """Show the features that were not zero, by name where the bundle's declaration is at hand."""
    title = "Features"
    places = () if found is None else [place for place, own in enumerate(found.rows) if own == row["row"]]
    if found is None or not places:
        return Panel(
            name="features",
            title=title,
            missing="No features of this packet are in the extract: only those with a score have some.",
        )
    first, last = found.starts[places[0]], found.starts[places[0] + 1]
    columns, values = found.columns[first:last].tolist(), found.values[first:last].tolist()
    rows = tuple(
        (found.groups[column] if found.groups else "", found.names[column] if found.names else column, round(value, 6))
        for column, value in zip(columns, values, strict=True)
    )
    return Panel(
        name="features",
        title=title,
        said=(f"{of(len(rows), 'feature')} not zero.",),
        tables=(
            NamedTable(
                caption="Features as the model saw them", table=Table(columns=("group", "feature", "value"), rows=rows)
            ),
        ),
        notes=() if found.names else ("Names need the bundle: put it into DEPLOYR_BUNDLE_ARCHIVE and extract anew.",),
    )


def contributions(packet: InferencePacket) -> Panel:
    """Show which concepts raised the score and which lowered it, largest first."""
    name, title = "contributions", "Contributions"
    outcome = packet.outcome
    if not isinstance(outcome, Scored) or not outcome.contributions:
        return Panel(name=name, title=title, missing="The model cannot be taken apart, or the packet has no score.")
    shown = sorted(outcome.contributions, key=lambda each: -abs(each.value))[:_MOST]
    left = len(outcome.contributions) - len(shown)
    return Panel(
        name=name,
        title=title,
        said=(f"Most moved by {shown[0].concept}: {_signed(shown[0].value)}.",),
        figures=(_bars(shown),),
        notes=(f"{of(left, 'concept')} with smaller contributions are not drawn.",) if left else (),
    )


def calls(packet: InferencePacket, *, replayed: bool = False) -> Panel:
    """Show what was asked of the EMR, when, and how long each took; ``replayed``: while a replay moved the clock."""
    name, title = "emr-calls", "Calls to the EMR"
    began = [each for each in packet.fetches if each.started_at is not None]
    if not began:
        return Panel(name=name, title=title, missing="Nothing was asked of the EMR for this packet.")
    start = min(each.started_at for each in began if each.started_at is not None)
    starts = [(each.started_at - start).total_seconds() * 1000 if each.started_at else 0.0 for each in began]
    ends = [at + each.milliseconds for at, each in zip(starts, began, strict=True)]
    figure = Figure(
        name="emr-calls",
        title="Calls to the EMR, from the first on",
        told="; ".join(f"{_called(each)}: {number(each.milliseconds, digits=0)} ms" for each in began) + ".",
        x=Axis(name="Since the first call", unit="ms", low=0.0, high=max(ends) * 1.05 or 1.0),
        y=Axis(name="Call", kind=Kind.NAMES, names=tuple(_called(each) for each in began)),
        marks=(
            Bars(
                name="took",
                starts=tuple(place - 0.3 for place in range(len(began))),
                ends=tuple(place + 0.3 for place in range(len(began))),
                heights=tuple(each.milliseconds for each in began),
                bases=tuple(starts),
                level=True,
            ),
        ),
        width=620,
        height=80 + 26 * len(began),
    )
    return Panel(
        name=name,
        title=title,
        figures=() if replayed else (figure,),
        tables=(
            NamedTable(
                caption="What came back",
                table=Table(
                    columns=("call", "ms", "requests", "pages", "resources", "error"),
                    rows=tuple(
                        (
                            _called(each),
                            round(each.milliseconds, 1),
                            each.requests,
                            each.pages,
                            each.resources,
                            each.error,
                        )
                        for each in began
                    ),
                ),
            ),
        ),
        notes=("A replay moved the clock: when each call began cannot be told, how long it took can.",)
        if replayed
        else (),
    )


def _bars(shown: list[Contribution]) -> Figure:
    names = tuple(each.concept for each in shown)
    marks: list[Bars | Points | Level] = [Level(name="", at=0.0, upright=True)]
    for role, raises in ((Role.CONTRAST, True), (Role.MAIN, False)):
        places = [place for place, each in enumerate(shown) if (each.value > 0) is raises]
        if places:
            marks.append(
                Bars(
                    name="raises the score" if raises else "lowers the score",
                    starts=tuple(place - 0.3 for place in places),
                    ends=tuple(place + 0.3 for place in places),
                    heights=tuple(shown[place].value for place in places),
                    level=True,
                    role=role,
                )
            )
    return Figure(
        name="contributions",
        title="What moved the score",
        told="; ".join(f"{each.concept}: {_signed(each.value)}" for each in shown) + ".",
        x=Axis(name="Added to the score, on the model's own scale"),
        y=Axis(name="Concept", kind=Kind.NAMES, names=names),
        marks=tuple(marks),
        width=620,
        height=100 + 30 * len(shown),
    )


def _called(fetch: FetchRecord) -> str:
    return f"{fetch.name or fetch.resource} ({fetch.via})"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _shown(value: object) -> str | float:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return round(float(value), 4) if isinstance(value, float) else str(value)

"""Whether patients, requests, scores and labels are still those of before, ranked by what it does to scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.groups import Strings
from deployr_core.monitoring.drift import FALSE_DISCOVERIES, Drift, DriftReference, drifts
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.drift_kinds import names_drift, numbers_drift
from deployr_dash.loading import SparseFeatures
from deployr_dash.panels.panel import NamedTable, Panel, View, labelled, patients_of
from deployr_dash.panels.people import PROPERTIES, group_names
from deployr_plots.figures import Axis, Figure, Kind, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import number, of, percent

_FEWEST = 50
"""Scored packets in each period; under so many, every difference is chance."""
_MOST = 15
_NOTES = (
    "Held against the time before the window, as long as the window is. A diamond is what the index would be by chance"
    " alone with as many packets of as many patients; only what lies clearly to its right has changed.",
    f"Marked as found: at most {percent(FALSE_DISCOVERIES)} of such marks are false (Benjamini and Hochberg). Ranked by"
    " what the change does to the mean score, if scores went with it as before.",
)


def drift(view: View) -> Panel:
    """Show what has changed in scores, labels, patients and requests."""
    name, title = "drift", "Drift"
    then, now = (_scored(frame) for frame in (view.before, view.packets))
    if (missing := _too_little(then, now)) is not None:
        return Panel(name=name, title=title, missing=missing)
    people = (patients_of(then), patients_of(now))
    scores = then["score"].to_numpy(dtype=np.float64)
    values = [{"score": frame["score"].to_numpy(dtype=np.float64)} for frame in (then, now)]
    found = [
        *numbers_drift(*values, patients_before=people[0], patients_now=people[1], scores_before=scores).ranked(),
        *_of_labels(view),
    ]
    named = [_named(frame, _known(then, now)) for frame in (then, now)]
    found += names_drift(*named, patients_before=people[0], patients_now=people[1], scores_before=scores).ranked()
    return _panel(name, title, found, "of scores, labels, patients and requests")


def feature_drift(view: View) -> Panel:
    """Show which of the model's features have changed."""
    name, title = "feature-drift", "Drift of features"
    features = view.features
    if features is None or not features.rows.size:
        return Panel(name=name, title=title, missing="The extract holds no features of the version that answered last.")
    then, now = (_rows_of(features, frame) for frame in (view.before, view.packets))
    if min(then.size, now.size) < _FEWEST:
        return Panel(
            name=name,
            title=title,
            missing=f"The version that answered last has {of(then.size, 'scored packet')} before the window and"
            f" {now.size:,} in it; under {_FEWEST} in either every difference is chance. Move or narrow the window.",
        )
    size = len(features.names) or int(features.columns.max(initial=0)) + 1
    names = features.names or tuple(f"feature {place}" for place in range(size))
    before, here = _places(view.before, features.rows[then]), _places(view.packets, features.rows[now])
    reference = DriftReference.of(
        names,
        _sparse(features, then, size),
        patients_of(view.before)[before],
        scores=view.before["score"].to_numpy(dtype=np.float64)[before],
    )
    found = drifts(reference, _sparse(features, now, size), patients_of(view.packets)[here])
    return _panel(name, title, list(found.ranked(_MOST)), f"of {of(size, 'feature')}")


def _of_labels(view: View) -> tuple[Drift, ...]:
    """Hold labels that count against those of before; those that have yet to come are no change."""
    then, now = labelled(view, view.before), labelled(view)
    if min(then.labels.size, now.labels.size) < _FEWEST:
        return ()
    return numbers_drift(
        {"label": then.labels},
        {"label": now.labels},
        patients_before=then.patients,
        patients_now=now.patients,
        scores_before=then.scores,
    ).ranked()


def _panel(name: str, title: str, found: list[Drift], which: str) -> Panel:
    ranked = sorted(found, key=lambda each: (not each.is_found, -abs(np.nan_to_num(each.score_shift))))[:_MOST]
    marked = [each for each in ranked if each.is_found]
    said = (
        f"Changed by more than chance, {which}: {', '.join(each.name for each in marked)}."
        if marked
        else f"Nothing {which} has changed by more than chance can explain."
    )
    places = numbers(range(len(ranked)))
    far = max([0.1, *(max(each.psi, each.psi_by_chance) for each in ranked)])
    figure = Figure(
        name=name,
        title="How far it is from the time before",
        told="; ".join(
            f"{each.name}: {number(each.psi)} where chance gives {number(each.psi_by_chance)}" for each in ranked
        )
        + ".",
        x=Axis(name="Population stability index", low=0.0, high=1.1 * far),
        y=Axis(
            name="What",
            kind=Kind.NAMES,
            names=tuple(f"{each.name}{' – found' if each.is_found else ''}" for each in ranked),
        ),
        marks=(
            Points(name="by chance alone", x=numbers(e.psi_by_chance for e in ranked), y=places, role=Role.CONTRAST),
            Points(name="now", x=numbers(e.psi for e in ranked), y=places),
        ),
        width=620,
        height=110 + 28 * len(ranked),
    )
    table = Table(
        columns=(
            "what",
            "PSI",
            "by chance",
            "Jensen-Shannon (bits)",
            "moved by",
            "have it: before",
            "now",
            "mean score would move",
            "q",
        ),
        rows=tuple(
            (
                each.name,
                *(_rounded(value) for value in (each.psi, each.psi_by_chance, each.js, each.wasserstein)),
                percent(each.share_before),
                percent(each.share_now),
                _rounded(each.score_shift),
                _rounded(each.q),
            )
            for each in ranked
        ),
    )
    return Panel(
        name=name,
        title=title,
        said=(said,),
        figures=(figure,),
        tables=(NamedTable(caption="Ranked, what was found first", table=table),),
        notes=_NOTES,
    )


def _scored(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[frame["score"].notna()].reset_index(drop=True)


def _too_little(then: pd.DataFrame, now: pd.DataFrame) -> str | None:
    if min(len(then), len(now)) >= _FEWEST:
        return None
    return (
        f"There are {of(len(then), 'scored packet')} before the window and {len(now):,} in it; under {_FEWEST} in"
        " either every difference is chance. Move or narrow the window."
    )


def _known(*frames: pd.DataFrame) -> tuple[str, ...]:
    return tuple(column for column in PROPERTIES if all(frame[column].notna().any() for frame in frames))


def _named(frame: pd.DataFrame, columns: Iterable[str]) -> Mapping[str, Strings]:
    found = {PROPERTIES[column]: group_names(frame[column]) for column in columns}
    hours = frame["received_at"].dt.hour.to_numpy(dtype=np.int64)
    return {**found, "hour of the day, by thirds": np.array(["night", "day", "evening"])[hours // 8]}


def _rows_of(features: SparseFeatures, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Give the places of a frame's packets among the features."""
    found: NDArray[np.int64] = np.flatnonzero(np.isin(features.rows, frame["row"].to_numpy(dtype=np.int64)))
    return found


def _sparse(features: SparseFeatures, places: NDArray[np.int64], size: int) -> SparseRows:
    lengths = np.diff(features.starts)[places]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    entries = np.arange(starts[-1]) + np.repeat(features.starts[places] - starts[:-1], lengths)
    return SparseRows(
        size=size,
        starts=starts.astype(np.int64),
        indices=features.columns[entries].astype(np.int64),
        values=features.values[entries].astype(np.float64),
    )


def _places(frame: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give where in the frame these rows are."""
    own = frame["row"].to_numpy(dtype=np.int64)
    order = np.argsort(own)
    found: NDArray[np.int64] = order[np.searchsorted(own, rows, sorter=order)]
    return found


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)

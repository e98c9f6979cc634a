"""Whether patients, requests, scores and labels are still those of before, ranked by what it does to scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.groups import Strings
from deployr_core.monitoring.drift import FALSE_DISCOVERIES, Drift, DriftReference, drifts
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.drift_kinds import names_drift, numbers_drift, presence_drift
from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_core.monitoring.served_rows import DriftKind, ServedRows
from deployr_dash.panels.panel import NamedTable, Panel, View, labelled, patients_of
from deployr_dash.panels.people import PROPERTIES, group_names
from deployr_dash.panels.served import amounts_of, served_rows
from deployr_dash.readings import SparseFeatures
from deployr_plots.figures import Axis, Figure, Kind, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import number, of, percent

_FEWEST = 50
"""Scored packets in each period; under so many, every difference is chance."""
_MOST, _NAMED = 15, 5
"""Of what is ranked, how many are shown, and of those that have changed, how many are named in the sentence."""
_IS_SEARCH = "search: "
_BEFORE = "Held against the time before the window, as long as the window is."
_HALVES = "Before the window there is too little, so the second half of its time is held against the first."
_NOTES = (
    "A diamond is what the index would be by chance alone with as many packets of as many patients; only what lies"
    " clearly to its right has changed.",
    f"Marked as found: at most {percent(FALSE_DISCOVERIES)} of such marks are false (Benjamini and Hochberg). Ranked by"
    " what the change does to the mean score, if scores went with it as before.",
)


def drift(view: View) -> Panel:
    """Show what has changed in scores, labels, patients and requests."""
    name, title = "drift", "Drift"
    which = "of scores, labels, patients and requests"
    kinds = (DriftKind.SCORES, DriftKind.LABELS, DriftKind.PEOPLE, DriftKind.CALLS)
    if (held := _by_reference(view, *kinds)) is not None:
        return _panel(name, title, held[0], which, against=held[1])
    earlier, later, against = _periods(view)
    then, now = _scored(earlier), _scored(later)
    if (missing := _too_little(then, now)) is not None:
        return Panel(name=name, title=title, missing=missing)
    people = (patients_of(then), patients_of(now))
    scores = then["score"].to_numpy(dtype=np.float64)
    values = [{"score": frame["score"].to_numpy(dtype=np.float64)} for frame in (then, now)]
    found = [
        *numbers_drift(*values, patients_before=people[0], patients_now=people[1], scores_before=scores).ranked(),
        *_of_labels(view, earlier, later),
    ]
    named = [_named(frame, _known(then, now)) for frame in (then, now)]
    found += names_drift(*named, patients_before=people[0], patients_now=people[1], scores_before=scores).ranked()
    return _panel(name, title, found, which, against=against)


def presence(view: View) -> Panel:
    """Show whether as many packets as before had features of each group, and answers to each search."""
    name, title = "presence", "What there was to see"
    earlier, later, against = _periods(view)
    then, now = _scored(earlier), _scored(later)
    if (missing := _too_little(then, now)) is not None:
        return Panel(name=name, title=title, missing=missing)
    there = [_there(frame) for frame in (then, now)]
    # Groups of features that only one period knows of are another version's; a search that is gone is a finding.
    known = [each for each in {**there[0], **there[1]} if _IS_SEARCH in each or all(each in period for period in there)]
    if not known:
        return Panel(
            name=name,
            title=title,
            missing="No packet says what it saw: the bundles are not at hand, or another version looks at other things."
            " Put them into DEPLOYR_BUNDLE_ARCHIVE, and extract --anew.",
        )
    found = presence_drift(
        *(
            {each: period.get(each, np.zeros(len(frame), dtype=np.bool_)) for each in known}
            for period, frame in zip(there, (then, now), strict=True)
        ),
        patients_before=patients_of(then),
        patients_now=patients_of(now),
        scores_before=then["score"].to_numpy(dtype=np.float64),
    )
    which = "of the groups of features and of the searches"
    return _panel(name, title, list(found.ranked()), which, against=against)


def _there(frame: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Give whether each packet had any feature of each group, and an answer to each search."""
    found: dict[str, NDArray[np.bool_]] = {}
    for column, kind in (("features_present", "features: "), ("searches", _IS_SEARCH)):
        for group, amounts in amounts_of(frame[column]).items():
            found[f"{kind}{group}"] = np.isfinite(amounts) if kind == _IS_SEARCH else amounts > 0
    return found


def feature_drift(view: View) -> Panel:
    """Show which of the model's features have changed."""
    name, title = "feature-drift", "Drift of features"
    features = view.features
    if features is None or not features.rows.size:
        return Panel(name=name, title=title, missing="The extract holds no features of the version that answered last.")
    if (held := _by_reference(view, DriftKind.FEATURES)) is not None:
        which = f"of {of(len(features.names), 'feature')}"
        return _panel(name, title, held[0], which, against=held[1], called=_called(features))
    earlier, later, against = _periods(view)
    then, now = (_rows_of(features, frame) for frame in (earlier, later))
    if min(then.size, now.size) < _FEWEST:
        return Panel(
            name=name,
            title=title,
            missing=f"The version that answered last has {of(then.size, 'scored packet')} to hold {now.size:,} against;"
            f" under {_FEWEST} of either every difference is chance. Move or widen the window.",
        )
    size = len(features.names) or int(features.columns.max(initial=0)) + 1
    names = features.names or tuple(f"feature {place}" for place in range(size))
    before, here = _places(earlier, features.rows[then]), _places(later, features.rows[now])
    reference = DriftReference.of(
        names,
        _sparse(features, then, size),
        patients_of(earlier)[before],
        scores=earlier["score"].to_numpy(dtype=np.float64)[before],
    )
    found = drifts(reference, _sparse(features, now, size), patients_of(later)[here])
    which = f"of {of(size, 'feature')}"
    return _panel(name, title, list(found.ranked(_MOST)), which, against=against, called=_called(features))


def _by_reference(view: View, *kinds: DriftKind) -> tuple[list[Drift], str] | None:
    """Hold what came after the reference period against it, and say so; None where there is none, or too little."""
    reference = view.reference
    if reference is None or view.features is None or reference.until >= view.window.end:
        return None
    rows = _since(view, view.features, reference)
    found: list[Drift] = []
    for kind in kinds:
        now = rows.of_kind(kind)
        if now.rows.rows >= _FEWEST and (drifted := reference.drift(kind, now)) is not None:
            found += drifted.ranked(_MOST)
    if not found:
        return None
    last = reference.until - timedelta(microseconds=1)
    return found, (
        f"Held against the reference period of the version that answered last, {reference.since:%Y-%m-%d} to"
        f" {last:%Y-%m-%d}; of that version, and of what came after it."
    )


_rows_since: WeakKeyDictionary[View, ServedRows] = WeakKeyDictionary()
"""For as long as the view is looked at: two panels want them, and making them goes through every feature."""


def _since(view: View, features: SparseFeatures, reference: ReferencePeriod) -> ServedRows:
    """Give what the reference's version answered in the window after it."""
    if (held := _rows_since.get(view)) is None:
        served = served_rows(view, features, reference.version)
        held = _rows_since[view] = served.between(max(view.window.start, reference.until), view.window.end)
    return held


def _periods(view: View) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Give what is held against, what is held against it, and which these are."""
    if len(_scored(view.before)) >= _FEWEST or view.packets.empty:
        return view.before, view.packets, _BEFORE
    asked = view.packets["received_at"]
    is_late = (asked >= asked.min() + (asked.max() - asked.min()) / 2).to_numpy(dtype=bool)
    first, second = (view.packets.loc[some].reset_index(drop=True) for some in (~is_late, is_late))
    return first, second, _HALVES


def _of_labels(view: View, earlier: pd.DataFrame, later: pd.DataFrame) -> tuple[Drift, ...]:
    """Hold labels that count against those of before; those that have yet to come are no change."""
    then, now = labelled(view, earlier), labelled(view, later)
    if min(then.labels.size, now.labels.size) < _FEWEST:
        return ()
    return numbers_drift(
        {"label": then.labels},
        {"label": now.labels},
        patients_before=then.patients,
        patients_now=now.patients,
        scores_before=then.scores,
    ).ranked()


def _called(features: SparseFeatures) -> dict[str, str]:
    """Give what people call each feature: ``labs_14d/2951-2/mean`` is ``Sodium mean (labs_14d)``."""
    called = {}
    for name, group, concept in zip(features.names, features.groups, features.concepts, strict=False):
        last = name.rpartition("/")[2]
        called[name] = f"{concept}{'' if last in concept else f' {last}'} ({group})"
    return called


def _panel(
    name: str,
    title: str,
    found: list[Drift],
    which: str,
    *,
    against: str = _BEFORE,
    called: Mapping[str, str] | None = None,
) -> Panel:
    if called:
        found = [replace(each, name=called.get(each.name, each.name)) for each in found]
    ranked = sorted(found, key=lambda each: (not each.is_found, -abs(np.nan_to_num(each.score_shift))))[:_MOST]
    marked = [each for each in ranked if each.is_found]
    named = ", ".join(each.name for each in marked[:_NAMED])
    more = f" and {len(marked) - _NAMED} more" if len(marked) > _NAMED else ""
    said = (
        f"Changed by more than chance, {which}: {named}{more}."
        if marked
        else f"Nothing {which} has changed by more than chance can explain."
    )
    places = numbers(range(len(ranked)))
    kinds = (("now, as chance may have it", Role.MAIN, False), ("now, more than chance", Role.THIRD, True))
    far = max([0.1, *(max(each.psi, each.psi_by_chance) for each in ranked)])
    figure = Figure(
        name=name,
        title=f"{title}: how far it is from before",
        told="; ".join(
            f"{each.name}: {number(each.psi)} where chance gives {number(each.psi_by_chance)}" for each in ranked
        )
        + ".",
        x=Axis(name="Population stability index", low=0.0, high=1.1 * far),
        y=Axis(
            name="What",
            kind=Kind.NAMES,
            names=tuple(each.name for each in ranked),
        ),
        marks=(
            Points(name="by chance alone", x=numbers(e.psi_by_chance for e in ranked), y=places, role=Role.CONTRAST),
            *(
                Points(
                    name=kind,
                    x=numbers(each.psi for each in ranked if each.is_found == is_found),
                    y=numbers(place for place, each in enumerate(ranked) if each.is_found == is_found),
                    role=role,
                )
                for kind, role, is_found in kinds
                if any(each.is_found == is_found for each in ranked)
            ),
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
        tables=(NamedTable(caption=f"{title}: ranked, what was found first", table=table),),
        notes=(against, *_NOTES),
    )


def _scored(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[frame["score"].notna()].reset_index(drop=True)


def _too_little(then: pd.DataFrame, now: pd.DataFrame) -> str | None:
    if min(len(then), len(now)) >= _FEWEST:
        return None
    return (
        f"There are {of(len(then), 'scored packet')} to hold {len(now):,} against; under {_FEWEST} of either every"
        " difference is chance. Move or widen the window."
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

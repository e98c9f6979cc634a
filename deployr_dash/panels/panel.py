"""What a panel is, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Interval, NotMeasured, measure
from deployr_core.bundle import Manifest
from deployr_core.groups import FEW_PATIENTS, Strings
from deployr_core.metrics import Ranking
from deployr_core.monitoring.closed_form import clustered_auroc_interval
from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_core.outputs import Target
from deployr_dash.held_out import HeldOut
from deployr_dash.planned import PlannedTrial, PlannedUtilities
from deployr_dash.readings import SparseFeatures
from deployr_plots.common import Estimate
from deployr_plots.figures import Figure, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import number, of, percent

DAY = timedelta(days=1)
_RESAMPLES = ((5_000, 500), (20_000, 200))
"""Up to so many packets, so many resamples; of all more, 100."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The stretch of time that is looked at, of `received_at`: from ``start`` to before ``end``, aware UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError("expected a window that ends after it starts")

    @property
    def days(self) -> int:
        """Give how many days it reaches into, at least 1."""
        return max(1, -(-(self.end - self.start) // DAY))


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one model's panels are made from.

    ``packets``: rows of `deployr_dash.frames.PACKETS` in the window and the cohort that were chosen. ``before``: those
    of the same cohort before the window, as many days back as it is long: what drift is measured against.
    ``manifests``: of the bundles at hand, by version. ``features``: of the version that answered last, in both
    periods; None where nobody asks for them. ``only_ripe``: leave out labels of packets whose label window has not
    passed, because outcomes that come early are not like those that come late. ``now``: when the extract was made,
    aware UTC. ``resamples``: of each interval. ``planned_trial`` and ``utilities``: of the monitoring plan; None
    where it has none. ``held_out``: curves of training's reports at hand, by version. ``reference``: the reference
    period of the version that answered last, where one was made and nobody is left out.
    """

    model_id: str
    packets: pd.DataFrame
    before: pd.DataFrame
    window: Window
    now: datetime
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    features: SparseFeatures | None = None
    only_ripe: bool = True
    resamples: int = 500
    planned_trial: PlannedTrial | None = None
    utilities: PlannedUtilities | None = None
    held_out: Mapping[str, HeldOut] = field(default_factory=dict)
    reference: ReferencePeriod | None = None

    def rng(self) -> np.random.Generator:
        """Give where resampling comes from: the same view gives the same intervals."""
        return np.random.default_rng(0)

    @cached_property
    def manifest(self) -> Manifest | None:
        """Give the manifest of the version that answered last, if its bundle is at hand."""
        known = self.packets.loc[self.packets["version"].isin(list(self.manifests)), ["received_at", "version"]]
        if known.empty:
            return None
        return self.manifests[str(known.loc[known["received_at"].idxmax(), "version"])]

    @property
    def target(self) -> Target:
        """Give what is predicted: by the manifest, and without one by the packets."""
        if self.manifest is not None:
            return self.manifest.task.outputs.target
        return Target.REGRESSION if self.packets["value_unit"].notna().any() else Target.BINARY

    @property
    def days_so_far(self) -> int:
        """Give how many days of the window had begun when the extract was made; those to come are no quiet days."""
        begun = max(1, -(-(self.now - self.window.start) // DAY))
        with_packets = 0 if self.packets.empty else int(days_from_start(self, self.packets).max()) + 1
        return min(self.window.days, max(begun, with_packets))

    @property
    def is_replay(self) -> bool:
        """Say whether a replay moved the clock: then nobody can tell how long answers took, or nothing came."""
        scored = self.packets["kind"] == "scored"
        return bool(scored.any()) and not self.packets["latency_ms"].notna().any()

    @property
    def unit(self) -> str:
        """Give the unit of a number that is predicted; empty where probabilities are."""
        if self.target is not Target.REGRESSION:
            return ""
        stated = None if self.manifest is None else self.manifest.task.outputs.unit
        return stated or str(self.packets["value_unit"].dropna().iloc[0])

    @property
    def retrospective(self) -> HeldOut | None:
        """Give the curves of the version that answered last on held-out rows, if its report is at hand."""
        return None if self.manifest is None else self.held_out.get(self.manifest.version)


def resamples_for(packets: int) -> int:
    """Give on how many resamples intervals rest: fewer of many packets, so that a page stays bearable."""
    return next((resamples for most, resamples in _RESAMPLES if packets <= most), 100)


@dataclass(frozen=True, kw_only=True)
class NamedTable:
    """A table with its caption."""

    caption: str
    table: Table


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One thing that is looked at. ``name``: its anchor, unique among all panels; alerts link to it.

    ``said``: what is found, in sentences, the most important first. ``notes``: how it was measured, and what it does
    not say. ``missing``: why there is nothing to show and what to do about it; then there are no figures.
    """

    name: str
    title: str
    said: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[NamedTable, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str | None = None


MakesPanel = Callable[[View], Panel]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Scores of packets whose outcome is known, beside it; all shape (n_rows,).

    ``rows``: their places in the view's packets. ``patients``: whom each is about; where that is not known, each packet
    counts as a patient of its own.
    """

    rows: NDArray[np.intp]
    scores: Floats
    labels: Floats
    patients: NDArray[np.int64]

    @property
    def patient_count(self) -> int:
        """Give how many patients there are."""
        return int(np.unique(self.patients).size)

    def of(self, chosen: NDArray[np.bool_]) -> Labelled:
        """Give some of the rows."""
        return Labelled(
            rows=self.rows[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            patients=self.patients[chosen],
        )


def labelled(view: View, packets: pd.DataFrame | None = None) -> Labelled:
    """Give the scored packets with an outcome that count: of a class or a label, whether it was the headline's."""
    frame = view.packets if packets is None else packets
    labels = outcomes(view, frame)
    counts = (frame["kind"] == "scored") & frame["score"].notna() & np.isfinite(labels)
    if view.only_ripe:
        counts &= is_ripe(frame["label_ripe_at"], now=view.now)
    rows = np.flatnonzero(counts.to_numpy(dtype=bool))
    return Labelled(
        rows=rows,
        scores=frame["score"].to_numpy(dtype=np.float64)[rows],
        labels=labels[rows],
        patients=patients_of(frame)[rows],
    )


def is_ripe(ripe_at: pd.Series, *, now: datetime) -> NDArray[np.bool_]:
    """Tell which labels are ripe as of ``now``, its instant included; those of which nobody knows when are."""
    found: NDArray[np.bool_] = (ripe_at.isna() | (ripe_at <= pd.Timestamp(now))).to_numpy(dtype=bool)
    return found


def outcomes(view: View, frame: pd.DataFrame) -> Floats:
    """Give each packet's outcome as a number, NaN where it is not observed."""
    manifest = view.manifest
    observed = (frame["label_kind"] == "observed").to_numpy(dtype=bool)
    values = frame["label_value"].to_numpy(dtype=np.float64, na_value=np.nan)
    if manifest is not None and manifest.task.outputs.target is Target.MULTICLASS:
        headline = manifest.task.outputs.headline
        values = np.where(frame["label_class"].notna(), frame["label_class"] == headline, np.nan).astype(np.float64)
    elif manifest is not None and manifest.task.outputs.target is Target.MULTILABEL:
        headline = manifest.task.outputs.headline
        values = np.array(
            [dict(each).get(headline, np.nan) if each is not None else np.nan for each in frame["label_values"]]
        )
    found: Floats = np.where(observed, values, np.nan)
    return found


def patients_of(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Give whom each packet is about, as a number; packets without one get numbers below 0, each its own."""
    own = -1 - np.arange(len(frame), dtype=np.int64)
    codes = frame["patient_code"]
    found: NDArray[np.int64] = np.where(codes.notna(), codes.fillna(0).to_numpy(dtype=np.int64), own)
    return found


def words_of(column: pd.Series) -> Strings:
    """Give a column of words, empty where there is none."""
    found: Strings = column.astype("object").where(column.notna(), "").to_numpy(dtype=str)
    return found


def posix(instants: pd.Series) -> Floats:
    """Give instants as POSIX seconds, NaN where there is none."""
    seconds = (instants - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    found: Floats = seconds.to_numpy(dtype=np.float64, na_value=np.nan)
    return found


def days_from_start(view: View, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Give the day of each packet in the window, from 0."""
    passed = frame["received_at"] - pd.Timestamp(view.window.start)
    found: NDArray[np.int64] = (passed // pd.Timedelta(days=1)).to_numpy(dtype=np.int64)
    return found


def day_starts(view: View) -> Floats:
    """Give the POSIX seconds at which each day of the window starts, and at which the last ends."""
    found: Floats = view.window.start.timestamp() + 86_400.0 * np.arange(view.window.days + 1, dtype=np.float64)
    return found


def retrospective_figures(view: View) -> dict[str, Measured]:
    """Give what the newest bundle at hand says of its held-out rows, by the names of the core's figures."""
    if view.manifest is None:
        return {}
    return {
        name: Interval(value=stated.value, low=stated.low, high=stated.high, resamples=0)
        for name, stated in view.manifest.evaluation.figures.items()
    }


def auroc_name(view: View) -> str:
    """Give what the manifest calls the AUROC that `auroc_of` measures: of several classes or labels the headline's."""
    if view.manifest is None or view.target not in {Target.MULTICLASS, Target.MULTILABEL}:
        return "auroc"
    return f"auroc.{view.manifest.task.outputs.headline}"


def auroc_of(view: View, rows: Labelled) -> Measured:
    """Give the AUROC of some labelled rows; of many, by the closed form that knows of patients."""
    if rows.patient_count >= FEW_PATIENTS:
        return clustered_auroc_interval(rows.labels, rows.scores, rows.patients)
    if not rows.labels.size:
        return NotMeasured(why="expected at least one row with a label")
    ranking = Ranking.of(rows.labels, rows.scores)
    return measure([ranking], rows.patients, rng=view.rng(), resamples=view.resamples)["auroc"]


def threshold_of(view: View) -> float | None:
    """Give the threshold that was in force last in the window, None without one."""
    known = view.packets.loc[view.packets["threshold"].notna(), ["received_at", "threshold"]]
    return None if known.empty else float(known.loc[known["received_at"].idxmax(), "threshold"])


def estimate(figure: Measured | None) -> Estimate | None:
    """Give what a figure draws, None where it was not measured."""
    return Estimate(value=figure.value, low=figure.low, high=figure.high) if isinstance(figure, Interval) else None


def side_by_side(names: Sequence[str], series: Mapping[str, Mapping[str, Measured]]) -> tuple[Points, ...]:
    """Give a row a name with one estimate of each series, each a little below the one before it; two series at most.

    Args:
        names: of the rows, from the top.
        series: figures by the row's name, by what the series is called; a figure that is missing leaves a gap.
    """
    marks = []
    for (called, figures), role, shift in zip(
        series.items(), (Role.MAIN, Role.CONTRAST), (-0.13, 0.13) if len(series) > 1 else (0.0, 0.0), strict=False
    ):
        points = [
            (place + shift, shown)
            for place, name in enumerate(names)
            if name in figures and (shown := estimate(figures[name])) is not None
        ]
        if points:
            marks.append(
                Points(
                    name=called,
                    x=numbers(shown.value for _, shown in points),
                    y=numbers(place for place, _ in points),
                    low=numbers(shown.low for _, shown in points),
                    high=numbers(shown.high for _, shown in points),
                    level=True,
                    role=role,
                )
            )
    return tuple(marks)


def said(figure: Measured, *, as_percent: bool = False, digits: int = 3) -> str:
    """Write a figure with its interval, or why there is none."""
    match figure:
        case NotMeasured(why=why):
            return f"not measurable: {why}"
        case Interval(value=value, low=low, high=high):
            if as_percent:
                return f"{percent(value)} ({number(100 * low, digits=1)} to {percent(high)})"
            written = [number(each, digits=digits) for each in (value, low, high)]
            return f"{written[0]} ({written[1]} to {written[2]})"


def stated(figures: Mapping[str, Measured], name: str, *, digits: int = 3) -> str:
    """Write a figure of held-out rows, or that the bundle does not give it."""
    return said(figures[name], digits=digits) if name in figures else "not given"


def chance(p_value: float) -> str:
    """Write a p-value: ``p = 0.047``, or ``p < 0.001``."""
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def too_few(labelled_rows: Labelled) -> tuple[str, ...]:
    """Warn of intervals that rest on few patients."""
    if labelled_rows.patient_count >= FEW_PATIENTS:
        return ()
    return (
        f"These rows are of only {of(labelled_rows.patient_count, 'patient')}: the intervals are too narrow to be"
        f" trusted under about {FEW_PATIENTS}.",
    )


def refused(view: View, rows: Labelled, name: str, title: str, *, of_numbers: str | None = None) -> Panel | None:
    """Give the panel that says why nothing can be measured; None where it can.

    ``of_numbers``: why there is no such panel of a model that predicts a number; None where there is one.
    """
    if of_numbers is not None and view.target is Target.REGRESSION:
        return Panel(name=name, title=title, missing=of_numbers)
    return None if rows.labels.size else nothing_labelled(view, name, title)


def nothing_labelled(view: View, name: str, title: str) -> Panel:
    """Say why there are no outcomes to measure against, and what to do."""
    scored = int((view.packets["kind"] == "scored").sum())
    observed = int((view.packets["label_kind"] == "observed").sum())
    if not scored:
        why = "No packet in this window was scored. Widen the window, or look under System integrity for the reasons."
    elif not observed:
        why = (
            f"None of the {scored:,} scored packets has a label yet. Labels come once their window has passed: see the"
            " funnel. If they never come, look at `deployr labels`."
        )
    else:
        why = (
            f"{observed:,} packets have a label, none of them ripe: outcomes that come early are not like those that"
            " come late. Wait, or turn “Ripe labels only” off."
        )
    return Panel(name=name, title=title, missing=why)

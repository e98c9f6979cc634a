"""Two models on the same rows: every figure of both, and the difference with an interval, from the same resamples.

Both score the same rows, so that most of what makes one's figure uncertain makes the other's so, too, and falls out of
the difference. Two intervals that overlap say nothing; the interval of the difference does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import (
    RESAMPLES,
    Figure,
    Floats,
    NotMeasurable,
    NotMeasured,
    Ratios,
    Sampled,
    Statistic,
    Within,
    sampled,
    with_percentiles,
)
from deployr_core.calibration import Recalibration
from deployr_core.governance.performance import shown
from deployr_core.groups import Strings, in_order, named_rows, too_small
from deployr_core.metrics import Ranking, checked_patients, checked_probabilities, overall
from deployr_core.monitoring.closed_form import delong_difference
from deployr_core.monitoring.subgroups import withheld
from deployr_core.registry.comparison import Better, Compared, Comparison, Group, Grouping, Model, Rows

_SIDES = ("champion ", "challenger ")
"""What the names of each model's figures begin with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedRows:
    """Rows that both models scored, with what came of them.

    ``labels``: 0.0 or 1.0, shape (n_rows,), like the scores, which are probabilities of label 1. ``patients``: which
    patient each row belongs to, any integers. ``properties``: such as ``sex``: each row's group by name.
    """

    labels: Floats = field(repr=False)
    champion: Floats = field(repr=False)
    challenger: Floats = field(repr=False)
    patients: NDArray[np.int64] = field(repr=False)
    properties: Mapping[str, Strings] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measure:
    """A figure of one model: by which name it is sampled, what it is called, and from where on it is counted.

    ``ideal``: what it would be of a perfect model, where it can miss on either side; then the distance is compared.
    """

    sampled_as: str
    name: str
    better: Better
    ideal: float | None = None


def compare(
    rows: PairedRows,
    *,
    champion: Model,
    challenger: Model,
    rows_are: Rows,
    outcome: str,
    rng: np.random.Generator,
    threshold: float | None = None,
    excluded_patients: int = 0,
    unpaired_rows: int = 0,
    notes: tuple[str, ...] = (),
    resamples: int = RESAMPLES,
) -> Comparison:
    """Measure both models on the same rows, and how far apart they are.

    Args:
        rows: what both scored.
        champion: whose the first scores are.
        challenger: whose the second are.
        rows_are: where the rows come from.
        outcome: what is predicted, in words.
        rng: where the resampling of patients comes from; the same generator state gives the same record.
        threshold: in force for the champion: a probability above 0 and below 1; None measures no net benefit.
        excluded_patients: how many were left out before, because a model had been trained on them.
        unpaired_rows: how many were left out before, because only one of the two has a score.
        notes: see `Comparison`.
        resamples: of each interval.

    Raises:
        NotMeasurable: no rows.
        ValueError: an argument that cannot be; the message names it.
    """
    labels, first = checked_probabilities(rows.labels, rows.champion)
    _, second = checked_probabilities(rows.labels, rows.challenger)
    patients = checked_patients(rows.patients, labels)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row with a label that both models scored")
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise ValueError("expected a threshold above 0 and below 1")
    named = {name: named_rows(name, names, labels.shape) for name, names in rows.properties.items()}
    wanted: list[Statistic] = []
    for side, scores in zip(_SIDES, (first, second), strict=True):
        everybody = [*overall(labels, scores), Recalibration.of(labels, scores)]
        if threshold is not None:
            everybody.append(_net_benefit(labels, scores, threshold))
        wanted += (_Named(prefix=side, statistic=each) for each in everybody)
        wanted += (
            Within(prefix=side + _of(name, group), rows=inside, statistic=Ranking.of(labels[inside], scores[inside]))
            for name, group, inside in _cells(named)
            if too_small(patients[inside], labels=labels[inside]) is None
        )
    drawn = sampled(wanted, patients, rng=rng, resamples=resamples)
    delong = delong_difference(labels, first, second, patients)
    independent = np.unique(patients).size == patients.size
    return Comparison(
        rows_are=rows_are,
        champion=champion,
        challenger=challenger,
        outcome=outcome,
        rows=labels.size,
        patients=np.unique(patients).size,
        positives=int(labels.sum()),
        excluded_patients=excluded_patients,
        unpaired_rows=unpaired_rows,
        threshold=threshold,
        resamples=resamples,
        figures=tuple(_compared(drawn, each) for each in _measures(threshold)),
        delong=shown(delong) if independent else None,
        groupings=tuple(_grouping(drawn, name, names, labels, patients) for name, names in named.items()),
        notes=notes,
    )


def _measures(threshold: float | None) -> tuple[_Measure, ...]:
    at = (
        ()
        if threshold is None
        else (_Measure(sampled_as="net_benefit", name=f"net benefit at {threshold:g}", better=Better.HIGHER),)
    )
    return (
        _Measure(sampled_as="auroc", name="AUROC", better=Better.HIGHER),
        _Measure(sampled_as="average_precision", name="average precision", better=Better.HIGHER),
        _Measure(sampled_as="brier_score", name="Brier score", better=Better.LOWER),
        _Measure(sampled_as="log_loss", name="log loss", better=Better.LOWER),
        _Measure(
            sampled_as="calibration_in_the_large",
            name="error of calibration in the large",
            better=Better.LOWER,
            ideal=0.0,
        ),
        _Measure(sampled_as="calibration_slope", name="error of the calibration slope", better=Better.LOWER, ideal=1.0),
        *at,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Named:
    """The figures of all rows, each name after a prefix."""

    prefix: str
    statistic: Statistic

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}{name}" for name in self.statistic.names)

    @property
    def lacks(self) -> tuple[str, ...]:
        return self.statistic.lacks

    def measured(self, weights: Floats) -> Floats:
        return self.statistic.measured(weights)


def _net_benefit(labels: Floats, scores: Floats, threshold: float) -> Ratios:
    """Give the right alerts per row less the wrong ones times the threshold's odds.

    Source: Vickers and Elkin (2006), Medical Decision Making 26:565-574, doi:10.1177/0272989X06295361.
    """
    odds = threshold / (1.0 - threshold)
    worth: Floats = np.where(scores >= threshold, np.where(labels == 1.0, 1.0, -odds), 0.0)
    return Ratios(
        names=("net_benefit",),
        lacks=("at least one row",),
        numerators=worth[:, np.newaxis],
        denominators=np.ones((labels.size, 1)),
        shares=(False,),
    )


def _compared(drawn: Sampled, measure: _Measure, *, within: str = "") -> Compared:
    names = [side + within + measure.sampled_as for side in _SIDES]
    first, second = (drawn.column(name) for name in names)
    if measure.ideal is not None:
        first, second = ((abs(value - measure.ideal), abs(each - measure.ideal)) for value, each in (first, second))
    lacks = tuple(_why(drawn.figures[name]) for name in names)
    return _from_columns(measure.name, measure.better, first, second, lacks=lacks)


_Column = tuple[float, Floats]
"""A figure of all rows, and of each resample, shape (n_resamples,)."""


def _from_columns(name: str, better: Better, first: _Column, second: _Column, *, lacks: Sequence[str]) -> Compared:
    sides = [
        with_percentiles(value, samples, lacks=lacking, asked=samples.size)
        for (value, samples), lacking in zip((first, second), lacks, strict=True)
    ]
    return Compared(
        name=name,
        better=better,
        champion=shown(sides[0]),
        challenger=shown(sides[1]),
        difference=shown(_difference(first, second)),
    )


def _difference(first: _Column, second: _Column) -> Figure:
    apart = second[1] - first[1]
    measurable = apart[np.isfinite(apart)]
    if measurable.size and np.ptp(measurable) == 0.0:
        # An interval without width would pass for certainty.
        return NotMeasured(why="the two are the same in every resample of patients")
    return with_percentiles(second[0] - first[0], apart, lacks="a figure of both models", asked=apart.size)


def _why(figure: Figure) -> str:
    return figure.why.removeprefix("expected ") if isinstance(figure, NotMeasured) else ""


def _grouping(drawn: Sampled, name: str, names: Strings, labels: Floats, patients: NDArray[np.int64]) -> Grouping:
    cells = [(group, inside) for _, group, inside in _cells({name: names})]
    small = [too_small(patients[inside], labels=labels[inside]) for _, inside in cells]
    auroc = _Measure(sampled_as="auroc", name="AUROC", better=Better.HIGHER)
    groups = tuple(
        Group(
            name=group,
            rows=None if hide else inside.size,
            patients=None if hide else int(np.unique(patients[inside]).size),
            auroc=_compared(drawn, auroc, within=_of(name, group)) if why is None else _not_compared("AUROC", why),
        )
        for (group, inside), why, hide in zip(
            cells,
            small,
            withheld([inside.size for _, inside in cells], [why is not None for why in small]),
            strict=True,
        )
    )
    measured = [group for (group, _), why in zip(cells, small, strict=True) if why is None]
    if len(measured) < 2:
        gap = _not_compared(_gap_name(name), "fewer than two groups are large enough")
    else:
        first, second = (_gap(drawn, [side + _of(name, group) + "auroc" for group in measured]) for side in _SIDES)
        lacking = "an AUROC of every group"
        gap = _from_columns(_gap_name(name), Better.LOWER, first, second, lacks=(lacking, lacking))
    return Grouping(name=name, groups=groups, gap=gap)


def _gap(drawn: Sampled, names: Sequence[str]) -> _Column:
    """Give the highest group's figure less the lowest's; NaN where one of them could not be measured."""
    columns = [drawn.column(name) for name in names]
    values, samples = np.array([value for value, _ in columns]), np.array([each for _, each in columns])
    return float(np.ptp(values)), np.ptp(samples, axis=0)


def _gap_name(name: str) -> str:
    return f"gap in AUROC by {name}"


def _not_compared(name: str, why: str) -> Compared:
    better = Better.LOWER if name.startswith("gap") else Better.HIGHER
    return Compared(name=name, better=better, champion=why, challenger=why, difference=why)


def _cells(named: Mapping[str, Strings]) -> list[tuple[str, str, NDArray[np.int64]]]:
    return [(name, group, np.flatnonzero(names == group)) for name, names in named.items() for group in in_order(names)]


def _of(name: str, group: str) -> str:
    return f"[{name}: {group}] "

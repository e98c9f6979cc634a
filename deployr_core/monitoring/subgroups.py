"""Whether a model does as well for some people as for everybody: by property, and by properties crossed.

A group that is too small gets no figures. A difference from everybody is tested for every group at once, with Holm's
correction, because among thirty groups one looks bad by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import (
    RESAMPLES,
    Figure,
    Floats,
    Interval,
    NotMeasurable,
    Sampled,
    Statistic,
    Within,
    sampled,
    with_percentiles,
)
from deployr_core.groups import NOT_RECORDED, Strings, in_order, named_rows, too_small
from deployr_core.metrics import checked_patients, checked_probabilities, overall
from deployr_core.monitoring.closed_form import Z_95
from deployr_core.monitoring.corrected import holm
from deployr_core.outputs import Outputs, Target
from deployr_core.target_figures import headline_statistics
from deployr_core.thresholds import threshold_figures

BETWEEN = ", "
"""Stands between the names of crossed groups: ``female, 40 to 64``."""
_TESTED_BINARY = ("auroc", "calibration_in_the_large", "sensitivity", "specificity", "ppv")
_TESTED_NUMBER = ("mae", "bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A group's figure less everybody's, and how likely so large a one is by chance, corrected for all that is tested.

    ``p_corrected`` is NaN where nothing can be tested, such as where everybody is in the group.
    """

    difference: Interval
    p_corrected: float

    @property
    def is_found(self) -> bool:
        """Whether chance is an unlikely reason: at most 5 % for even one such finding among all groups."""
        return self.p_corrected <= 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class TooSmall:
    """In the place of figures: they would be noise, and could tell of a person; ``why`` is written to be shown."""

    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgroup:
    """Some of the rows. ``rows`` and ``patients`` are None where they would let a small group's be worked out.

    ``differences``: by figure, those that were tested; none of a group that is too small.
    """

    name: str
    rows: int | None
    patients: int | None
    figures: Mapping[str, Figure] | TooSmall
    differences: Mapping[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubgroupTable:
    """All rows in groups, by one property or by several crossed."""

    properties: tuple[str, ...]
    groups: tuple[Subgroup, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgroups:
    """``everybody``: the figures that groups are held against. ``tests``: how many differences were tested together."""

    everybody: Mapping[str, Figure]
    tables: tuple[SubgroupTable, ...]
    tests: int


def binary_subgroups(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    properties: Mapping[str, Strings],
    *,
    rng: np.random.Generator,
    crossed: Sequence[tuple[str, ...]] = (),
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> Subgroups:
    """Measure probabilities of one outcome by group.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        properties: such as ``sex``: the name of each row's group, shape (n_rows,); an empty name is not recorded. For
            ages see `deployr_core.groups.age_bands`.
        rng: where the resampling comes from.
        crossed: which properties are also taken together, such as ``("sex", "age")``.
        threshold: the deployment's; with it there are ``sensitivity``, ``specificity``, ``ppv``, ``npv`` and
            ``alert_rate``.
        resamples: of each interval.
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: no rows.
        ValueError: an argument that cannot be; the message names it.
    """
    labels, scores = checked_probabilities(labels, scores)
    patients = checked_patients(patients, labels)

    return _measured(
        lambda rows: group_statistics(labels[rows], scores[rows], threshold),
        lambda rows: too_small(patients[rows], labels=labels[rows]),
        patients,
        properties,
        crossed,
        tested=_TESTED_BINARY,
        rng=rng,
        resamples=resamples,
        weights=weights,
    )


def group_statistics(labels: Floats, scores: Floats, threshold: float | None) -> list[Statistic]:
    """Give what is measured of a group of checked rows, each figure at the threshold by its plain name."""
    found = overall(labels, scores)
    if threshold is not None:
        at = threshold_figures(labels, scores, [threshold])
        found.append(replace(at, names=tuple(name.partition("@")[0] for name in at.names)))
    return found


def other_subgroups(
    outputs: Outputs,
    labels: Floats,
    answers: Floats,
    patients: NDArray[np.int64],
    properties: Mapping[str, Strings],
    *,
    rng: np.random.Generator,
    crossed: Sequence[tuple[str, ...]] = (),
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> Subgroups:
    """Measure classes, labels or numbers by group: ``auroc`` of each and their mean; or ``mae``, ``rmse``, ``bias``.

    Args and Raises: as for `deployr_core.monitoring.more_outcomes.performance` and `binary_subgroups`.
    """
    patients = checked_patients(patients, np.empty(len(labels)))
    return _measured(
        lambda rows: headline_statistics(outputs, labels[rows], answers[rows]),
        lambda rows: too_small(patients[rows]),
        patients,
        properties,
        crossed,
        tested=_TESTED_NUMBER if outputs.target is Target.REGRESSION else ("auroc",),
        rng=rng,
        resamples=resamples,
        weights=weights,
    )


_Rows = NDArray[np.int64]


def _measured(
    statistics: Callable[[_Rows], list[Statistic]],
    why_small: Callable[[_Rows], str | None],
    patients: NDArray[np.int64],
    properties: Mapping[str, Strings],
    crossed: Sequence[tuple[str, ...]],
    *,
    tested: Sequence[str],
    rng: np.random.Generator,
    resamples: int,
    weights: Floats | None,
) -> Subgroups:
    if patients.size == 0:
        raise NotMeasurable("expected at least one row with a label")
    named: dict[tuple[str, ...], Strings] = {
        (name,): named_rows(name, names, patients.shape) for name, names in properties.items()
    }
    for together in crossed:
        if len(set(together)) < 2 or not {(name,) for name in together} <= set(named):
            raise ValueError("expected properties to cross that are among those given, at least two")
        named[together] = _crossed([named[name,] for name in together])
    cells = [(key, name, np.flatnonzero(names == name)) for key, names in named.items() for name in in_order(names)]
    small = {(key, name): why_small(rows) for key, name, rows in cells}
    wanted = [*statistics(np.arange(patients.size))]
    wanted += [
        Within(prefix=_prefix(key, name), rows=rows, statistic=statistic)
        for key, name, rows in cells
        if small[key, name] is None
        for statistic in statistics(rows)
    ]
    drawn = sampled(wanted, patients, rng=rng, resamples=resamples, weights=weights)
    everybody = {name: figure for name, figure in drawn.figures.items() if not name.startswith("[")}
    held = {(key, name): int(np.unique(patients[rows]).size) for key, name, rows in cells}
    tests = [
        (key, name, figure, *_difference(drawn, _prefix(key, name), figure, patients=held[key, name]))
        for key, name, _ in cells
        if small[key, name] is None
        for figure in tested
        if figure in everybody
    ]
    corrected = holm(np.array([p for *_, p in tests]))
    differences = {
        (key, name, figure): Difference(difference=difference, p_corrected=float(p))
        for (key, name, figure, difference, _), p in zip(tests, corrected, strict=True)
        if isinstance(difference, Interval)
    }
    tables = []
    for key in named:
        own = [(name, rows) for each, name, rows in cells if each == key]
        hidden = withheld([rows.size for _, rows in own], [small[key, name] is not None for name, _ in own])
        groups = []
        for (name, rows), hide in zip(own, hidden, strict=True):
            why, prefix = small[key, name], _prefix(key, name)
            groups.append(
                Subgroup(
                    name=name,
                    rows=None if hide else rows.size,
                    patients=None if hide else held[key, name],
                    figures=TooSmall(why=why) if why is not None else {f: drawn.figures[prefix + f] for f in everybody},
                    differences={f: differences[key, name, f] for f in tested if (key, name, f) in differences},
                )
            )
        tables.append(SubgroupTable(properties=key, groups=tuple(groups)))
    return Subgroups(everybody=everybody, tables=tuple(tables), tests=int(np.isfinite(corrected).sum()))


def _prefix(properties: tuple[str, ...], name: str) -> str:
    return f"[{'×'.join(properties)}: {name}] "


def _crossed(columns: Sequence[Strings]) -> Strings:
    """Name the crossed group of each row; it is not recorded where one of the properties is not."""
    names = columns[0].astype(object)
    for column in columns[1:]:
        names = names + BETWEEN + column.astype(object)
    unknown = np.any([column == NOT_RECORDED for column in columns], axis=0)
    return np.where(unknown, NOT_RECORDED, names.astype(str))


def _difference(drawn: Sampled, prefix: str, figure: str, *, patients: int) -> tuple[Figure, float]:
    """Give a group's figure less everybody's, and the p-value of no difference; NaN where nothing can be tested."""
    (value, samples), (whole, whole_samples) = drawn.column(prefix + figure), drawn.column(figure)
    apart = samples - whole_samples
    difference = with_percentiles(value - whole, apart, lacks="a group and everybody measured", asked=apart.size)
    if not isinstance(difference, Interval):
        return difference, math.nan
    measurable = apart[np.isfinite(apart)]
    error = float(measurable.std(ddof=1)) if measurable.size > 1 else 0.0
    own = drawn.figures[prefix + figure]
    if isinstance(own, Interval) and own.resamples == 0:
        # A share of exactly 0 or 1 is that in every resample too, which would pass for certainty.
        margin = max(own.high - own.value, own.value - own.low)
        error = math.hypot(error, margin / Z_95)
        difference = replace(
            difference, low=min(difference.low, own.low - whole), high=max(difference.high, own.high - whole)
        )
    if error <= 1e-12:
        return difference, math.nan
    # The error is itself estimated, from so many patients and from so many resamples.
    freedom = 1.0 / (1.0 / (patients - 1) + 1.0 / max(1, measurable.size - 1))
    error *= math.sqrt(patients / (patients - 1))
    return difference, _two_sided(abs(difference.value) / error, freedom)


def _two_sided(statistic: float, degrees: float) -> float:
    """Give the chance of so far a value of Student's t, either way: with few patients, far values are common."""
    from scipy.special import stdtr

    return float(2.0 * stdtr(degrees, -statistic))


def withheld(rows: Sequence[int], small: Sequence[bool]) -> list[bool]:
    """Say whose counts are not given: of small groups, and of a single one also of the next larger, lest it be told."""
    hidden = list(small)
    if sum(small) == 1 and len(rows) > 1:
        hidden[min((place for place, each in enumerate(small) if not each), key=lambda place: rows[place])] = True
    return hidden

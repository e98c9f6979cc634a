"""What one version of a model answered in a stretch of time, as arrays: what references are fitted on and held against.

The kinds of things that may drift, and which rows and variables each is told from, are defined here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.groups import Strings
from deployr_core.monitoring.drift_cells import SparseRows

_DAY_S = 86_400.0


class DriftKind(StrEnum):
    """What may drift."""

    FEATURES = "features"
    """Each of the model's features: how many rows have it at all, and its values."""
    COVERAGE = "coverage"
    """How many features of each group were there, none of them among it."""
    SCORES = "scores"
    LABELS = "labels"
    """Outcomes that count; those that have yet to come are no change."""
    PEOPLE = "people"
    """Who the patients are, as far as the model sees it."""
    CALLS = "calls"
    """When it is asked, over which channel, and what comes of it."""
    VOLUME = "volume"
    """How many requests come."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedRows:
    """Requests to one version of a model in ``[since, until)``, aware UTC; all arrays have shape (n_rows,).

    ``at``: when each was received, POSIX seconds. ``patients``: whom it is about, any integers. ``scores``: NaN where
    it has none. ``labels``: the outcome as a number, NaN where it is not known or too early to count. ``features``: a
    row a request, empty where there is no score; their ``names``. ``present``: by group, how many of its features are
    not zero. ``people`` and ``calls``: by property, its name; empty where there is none.

    Raises:
        ValueError: shapes that do not fit, or a period that ends before it starts.
    """

    since: datetime
    until: datetime
    at: Floats
    patients: NDArray[np.int64]
    scores: Floats
    labels: Floats
    features: SparseRows
    names: tuple[str, ...]
    present: Mapping[str, Floats] = field(default_factory=dict)
    people: Mapping[str, Strings] = field(default_factory=dict)
    calls: Mapping[str, Strings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.until <= self.since:
            raise ValueError("expected a period that ends after it starts")
        columns = (self.patients, self.scores, self.labels, *self.present.values(), *self.people.values())
        if any(each.shape != self.at.shape for each in (*columns, *self.calls.values())):
            raise ValueError("expected arrays of one shape, (n_rows,)")
        if self.features.rows != self.at.size or self.features.size != len(self.names):
            raise ValueError("expected a row of features for each request, and a name for each feature")

    @property
    def rows(self) -> int:
        """Count the requests."""
        return int(self.at.size)

    @property
    def days(self) -> int:
        """Count the whole days of the period, at least 1."""
        return max(1, round((self.until - self.since).total_seconds() / _DAY_S))

    def between(self, since: datetime, until: datetime) -> ServedRows:
        """Give the requests of ``[since, until)``."""
        chosen = (self.at >= since.timestamp()) & (self.at < until.timestamp())
        return replace(self.of(chosen), since=since, until=until)

    def daily(self) -> Floats:
        """Count the requests of each day from ``since`` on, shape (n_days,); days without any included."""
        day = np.floor((self.at - self.since.timestamp()) / _DAY_S).astype(np.int64)
        return np.bincount(np.clip(day, 0, self.days - 1), minlength=self.days).astype(np.float64)

    def of_kind(self, kind: DriftKind) -> KindRows:
        """Give the rows and variables that a kind is told from; volume has none.

        Raises:
            ValueError: volume was asked for.
        """
        scored = np.isfinite(self.scores)
        match kind:
            case DriftKind.FEATURES:
                some = self.of(scored)
                return KindRows(names=self.names, rows=some.features, patients=some.patients, scores=some.scores)
            case DriftKind.COVERAGE:
                return self._numbers(
                    scored, {name: np.where(each > 0, each, np.nan) for name, each in self.present.items()}
                )
            case DriftKind.SCORES:
                return self._numbers(scored, {"score": self.scores})
            case DriftKind.LABELS:
                return self._numbers(scored & np.isfinite(self.labels), {"label": self.labels})
            case DriftKind.PEOPLE:
                return self._names(scored, self.people)
            case DriftKind.CALLS:
                return replace(self._names(np.ones(self.rows, dtype=np.bool_), self.calls), scores=None)
            case DriftKind.VOLUME:
                raise ValueError("expected a kind that is told from rows; volume is counted by day")

    def _numbers(self, chosen: NDArray[np.bool_], columns: Mapping[str, Floats]) -> KindRows:
        values = np.column_stack([np.empty((int(chosen.sum()), 0)), *(each[chosen] for each in columns.values())])
        return KindRows(
            names=tuple(columns),
            rows=SparseRows.of_columns(values),
            patients=self.patients[chosen],
            scores=self.scores[chosen],
        )

    def _names(self, chosen: NDArray[np.bool_], columns: Mapping[str, Strings]) -> KindRows:
        coded: list[Floats] = [np.empty((int(chosen.sum()), 0))]
        levels: list[tuple[str, ...]] = []
        for each in columns.values():
            known, place = np.unique(each[chosen], return_inverse=True)
            codes = place.astype(np.float64)
            coded.append(np.where(known[place] == "", np.nan, codes)[:, np.newaxis])
            levels.append(tuple(known.tolist()))
        return KindRows(
            names=tuple(columns),
            rows=SparseRows.of_columns(np.concatenate(coded, axis=1)),
            patients=self.patients[chosen],
            scores=self.scores[chosen],
            levels=tuple(levels),
        )

    def of(self, chosen: NDArray[np.bool_]) -> ServedRows:
        """Give some of the requests, of the same period."""
        places = np.flatnonzero(chosen)
        return replace(
            self,
            at=self.at[places],
            patients=self.patients[places],
            scores=self.scores[places],
            labels=self.labels[places],
            features=self.features.taken(places),
            present={name: each[places] for name, each in self.present.items()},
            people={name: each[places] for name, each in self.people.items()},
            calls={name: each[places] for name, each in self.calls.items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class KindRows:
    """One kind's variables. ``levels``: by variable, the name that each value from 0 stands for; empty of numbers."""

    names: tuple[str, ...]
    rows: SparseRows
    patients: NDArray[np.int64]
    scores: Floats | None
    levels: tuple[tuple[str, ...], ...] = ()


def part_of_the_week(hour_of_week: NDArray[np.int64]) -> Strings:
    """Name the part of the week of each hour, 0 the first of Monday: six of them, so that a small ward fills each."""
    names = np.array([f"{day}, {part}" for day in ("weekday", "weekend") for part in ("night", "day", "evening")])
    found: Strings = names[3 * (hour_of_week // 24 >= 5) + hour_of_week % 24 // 8]
    return found

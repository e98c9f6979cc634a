"""Years of a ward for `benchmarks.drift_alarms`, made of orders of the synthetic hospital, block by block of patients.

Years of hospital for hundreds of repetitions would take days. So some hospitals of 60 weeks are made, one with all
knobs at rest and one for each knob, their FHIR resources are read as features exactly as in training, and seasons are
put together of them: whole patients with all their orders, drawn with replacement, each moved by whole weeks. So hours
of the week, stays, and how like themselves patients stay are the hospital's; that nothing drifts at rest is by
construction, because a patient's place in time is drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.coverage import features_present
from deployr_core.features import FeatureSpec
from deployr_core.groups import NOT_RECORDED, Strings
from deployr_core.layout import CategoryLayout, layout_of
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.served_rows import ServedRows, part_of_the_week
from deployr_dev.cohorts.cohort import cohort_rows
from deployr_dev.cohorts.rows import CohortRow
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.matrix import FeatureMatrix
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.shift import NO_SHIFT, InfrastructureShift

Indices = NDArray[np.int64]

BEGIN = datetime(2025, 1, 6, 5, tzinfo=UTC)
"""A Monday; seasons begin there."""
_WEEKS, _SETTLING = 60, 12
"""Orders of the first weeks, in which histories are still short, are left out."""
_TASK = "hematocrit"
_DAY_S, _STAY_GAP_DAYS = 86_400.0, 3.0
_TREES = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Orders:
    """Orders of one hospital, as a model meets them; all arrays have shape (n_orders,), by patient and time.

    ``at``: days since the settled time began. ``admitted``: when the stay began, by its first order. ``weeks``: how
    long the settled time is.
    """

    units: tuple[str, ...]
    patients: Indices
    at: Floats
    admitted: Floats
    scores: Floats
    labels: Floats
    features: SparseRows
    names: tuple[str, ...]
    present: Mapping[str, Floats]
    people: Mapping[str, Strings]
    weeks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What seasons are scored with: a forest of another hospital at rest, and the features it was fitted with."""

    spec: FeatureSpec
    forest: Any

    def scores_of(self, features: SparseRows) -> Floats:
        """Score rows of the model's features."""
        from scipy.sparse import csr_matrix

        rows = csr_matrix((features.values, features.indices, features.starts), shape=(features.rows, features.size))
        found: Floats = self.forest.predict_proba(rows)[:, 1]
        return found


def trained(*, patients: int, seed: int = 101) -> Model:
    """Train on a hospital of its own, over FHIR, at rest."""
    from sklearn.ensemble import RandomForestClassifier

    with _opened(_config(patients, NO_SHIFT, seed=seed)) as extract:
        rows = [row for row in cohort_rows(extract, shipped_task(_TASK)) if row.label is not None]
        engine = SetEngine(extract)
        spec = engine.fit(shipped_declaration(shipped_task(_TASK).declaration), rows)
        matrix = engine.matrix(spec, rows)
    forest = RandomForestClassifier(n_estimators=_TREES, min_samples_leaf=5, random_state=0, n_jobs=1)
    forest.fit(matrix.csr(), np.array([row.label for row in rows]))
    return Model(spec=spec, forest=forest)


def orders_of(model: Model, shift: InfrastructureShift, *, patients: int, seed: int = 7) -> Orders:
    """Make a hospital behind a shift, and give its orders after it has settled."""
    config = _config(patients, shift, seed=seed)
    with _opened(config) as extract:
        settled = config.start + timedelta(weeks=_SETTLING)
        rows = [row for row in cohort_rows(extract, shipped_task(_TASK)) if row.index_time >= settled]
        matrix = SetEngine(extract).matrix(model.spec, rows)
    return _as_orders(model, rows, matrix, settled)


def _config(patients: int, shift: InfrastructureShift, *, seed: int) -> PopulationConfig:
    return replace(HOSPITAL, patients=patients, weeks=_WEEKS, seed=seed, shift=shift)


@contextmanager
def _opened(config: PopulationConfig) -> Iterator[Extract]:
    """Write a hospital's FHIR resources, and open them as what training reads."""
    with tempfile.TemporaryDirectory(prefix="deployr-drift-") as folder:
        write_fhir(generate(config), Path(folder) / "fhir")
        with Extract.open(Path(folder) / "fhir") as extract:
            yield extract


def _as_orders(model: Model, rows: list[CohortRow], matrix: FeatureMatrix, settled: datetime) -> Orders:
    at = np.array([(row.index_time - settled).total_seconds() / _DAY_S for row in rows])
    _, patients = np.unique([row.person_id for row in rows], return_inverse=True)
    begins = np.r_[True, (np.diff(patients) > 0) | (np.diff(at) > _STAY_GAP_DAYS)]
    present = [features_present(vector, model.spec) for vector in matrix.vectors]
    layout = layout_of(model.spec)
    features = SparseRows(
        size=matrix.n_features, starts=matrix.starts, indices=matrix.features.astype(np.int64), values=matrix.values
    )
    return Orders(
        units=tuple(row.unit_id for row in rows),
        patients=patients.astype(np.int64),
        at=at,
        admitted=at[begins][np.cumsum(begins) - 1],
        scores=model.scores_of(features),
        labels=np.array([np.nan if row.label is None else row.label for row in rows], dtype=np.float64),
        features=features,
        names=layout.names,
        present={name: np.array([float(each.get(name, 0)) for each in present]) for name in present[0]},
        people={
            group.group.name: _categories(matrix, group, layout.names)
            for group in layout.groups
            if isinstance(group, CategoryLayout)
        },
        weeks=_WEEKS - _SETTLING,
    )


def _categories(matrix: FeatureMatrix, group: CategoryLayout, names: tuple[str, ...]) -> Strings:
    """Name each row's category; several count as the first."""
    size = sum(1 for name in layout_of(matrix.spec).groups_of if name == group.group.name)
    known = np.array([*names[group.first : group.first + size], NOT_RECORDED])
    place = np.full(matrix.n_rows, size)
    of_row = np.repeat(np.arange(matrix.n_rows), np.diff(matrix.starts))
    own = (matrix.features >= group.first) & (matrix.features < group.first + size)
    np.minimum.at(place, of_row[own], matrix.features[own] - group.first)
    found: Strings = known[place]
    return found


def season(
    rng: np.random.Generator, rest: Orders, shifted: Orders | None, *, a_day: float, days: int, onset: float
) -> ServedRows:
    """Put a season together: so many requests a day on average, over so many days, shifted from the onset on.

    Where both hospitals have the same orders, those from the onset on are as the shifted one shows them, histories and
    all, as when an interface is switched. Where the shift changes what happens, stays that begin after the onset are of
    the shifted hospital's patients.

    Args:
        rng: draws the patients, and by how many weeks each is moved.
        rest: the hospital at rest.
        shifted: the one behind a shift; None for a season at rest.
        a_day: requests on average.
        days: of the season.
        onset: the day of the season from which on things are shifted.
    """
    before = _drawn(rng, rest, a_day=a_day, days=days)
    if shifted is None:
        return _served(rest, before, days)
    if shifted.units == rest.units:
        late = before.at >= onset
        return joined(_served(rest, before.of(~late), days), _served(shifted, before.of(late), days))
    after = _drawn(rng, shifted, a_day=a_day * _pace(shifted) / _pace(rest), days=days)
    return joined(
        _served(rest, before.of(before.admitted < onset), days),
        _served(shifted, after.of(after.admitted >= onset), days, first_patient=10_000_000),
    )


def _pace(orders: Orders) -> float:
    return orders.at.size / orders.weeks


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Which orders a season has, whose, and when."""

    place: Indices
    patients: Indices
    at: Floats
    admitted: Floats

    def of(self, chosen: NDArray[np.bool_]) -> _Drawn:
        return _Drawn(
            place=self.place[chosen],
            patients=self.patients[chosen],
            at=self.at[chosen],
            admitted=self.admitted[chosen],
        )


def _drawn(rng: np.random.Generator, orders: Orders, *, a_day: float, days: int) -> _Drawn:
    length = 7 * orders.weeks
    count = int(orders.patients.max()) + 1
    first = np.searchsorted(orders.patients, np.arange(count + 1))
    found, whose, moved, of_chunk, patients = [], [], [], [], 0
    # A patient who came again a whole length later would be the same twice: each stretch has its own patients.
    for chunk in range(-(-days // length)):
        drawn = rng.integers(0, count, rng.poisson(a_day * length * count / orders.at.size))
        sizes = np.diff(first)[drawn]
        found.append(
            np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(first[drawn], sizes)
        )
        whose.append(np.repeat(np.arange(drawn.size) + patients, sizes))
        moved.append(np.repeat(7.0 * rng.integers(0, orders.weeks, drawn.size), sizes))
        of_chunk.append(np.full(int(sizes.sum()), float(chunk * length)))
        patients += drawn.size
    place, start = np.concatenate(found), np.concatenate(of_chunk)
    at = orders.at[place] + np.concatenate(moved)
    wrapped = at % length
    drawn_orders = _Drawn(
        place=place,
        patients=np.concatenate(whose),
        at=start + wrapped,
        admitted=start + wrapped - (orders.at - orders.admitted)[place],
    )
    inside = drawn_orders.of(drawn_orders.at < days)
    order = np.argsort(inside.at, kind="stable")
    return _Drawn(
        place=inside.place[order],
        patients=inside.patients[order],
        at=inside.at[order],
        admitted=inside.admitted[order],
    )


def _served(orders: Orders, drawn: _Drawn, days: int, *, first_patient: int = 0) -> ServedRows:
    at = drawn.at * _DAY_S
    hour = np.floor(drawn.at * 24.0 + BEGIN.hour).astype(np.int64) % 168
    return ServedRows(
        since=BEGIN,
        until=BEGIN + timedelta(days=days),
        at=at + BEGIN.timestamp(),
        patients=drawn.patients + first_patient,
        scores=orders.scores[drawn.place],
        labels=orders.labels[drawn.place],
        features=orders.features.taken(drawn.place),
        names=orders.names,
        present={name: each[drawn.place] for name, each in orders.present.items()},
        people={name: each[drawn.place] for name, each in orders.people.items()},
        calls={"part of the week": part_of_the_week(hour)},
    )


def joined(one: ServedRows, other: ServedRows) -> ServedRows:
    """Give the requests of both, in the period of the first."""

    def both(a: Any, b: Any) -> Any:
        return np.concatenate([a, b])

    return replace(
        one,
        at=both(one.at, other.at),
        patients=both(one.patients, other.patients),
        scores=both(one.scores, other.scores),
        labels=both(one.labels, other.labels),
        features=SparseRows(
            size=one.features.size,
            starts=both(one.features.starts, other.features.starts[1:] + one.features.starts[-1]),
            indices=both(one.features.indices, other.features.indices),
            values=both(one.features.values, other.features.values),
        ),
        present={name: both(each, other.present[name]) for name, each in one.present.items()},
        people={name: both(each, other.people[name]) for name, each in one.people.items()},
        calls={name: both(each, other.calls[name]) for name, each in one.calls.items()},
    )

"""The features of many rows as one sparse matrix, and who computes them: by default the reference engine."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deployr_core.facts import PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.cohorts.rows import CohortRow, IndexRow
from deployr_dev.fitting import fit

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class PatientSource(Protocol):
    """What the reference engine needs of an extract; `deployr_dev.sources` has it."""

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        """Give the facts of these persons, one person at a time, ascending by id."""


class Progress(Protocol):
    """Is told how far the work is: ``done`` of ``total`` steps, ``done`` ascending to ``total``."""

    def __call__(self, done: int, total: int, /) -> None:
        """Take note."""


class PatientsMissing(ValueError):
    """Rows name patients that the extract does not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatrix:
    """Row ``i`` belongs to row ``i`` of the cohort that was asked for; zeros are left out.

    ``starts``: int64, shape (n_rows + 1,), where each row's features start. ``features``: int32, shape (n_values,),
    ascending within a row. ``values``: float64, shape (n_values,).
    """

    spec: FeatureSpec
    starts: NDArray[np.int64]
    features: NDArray[np.int32] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.starts.size - 1

    @property
    def n_features(self) -> int:
        """How many features the declaration has."""
        return len(layout_of(self.spec).names)

    @property
    def vectors(self) -> tuple[FeatureVector, ...]:
        """The rows as vectors; what the engine could not use of the source is not known here."""
        return tuple(self.vector(place) for place in range(self.n_rows))

    def vector(self, place: int) -> FeatureVector:
        """Give one row as a vector."""
        start, end = self.starts[place], self.starts[place + 1]
        layout = layout_of(self.spec)
        return FeatureVector(
            spec_digest=layout.spec_digest,
            size=len(layout.names),
            indices=self.features[start:end],
            values=self.values[start:end],
            coverage={},
        )

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> FeatureMatrix:
        """Give these rows, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        lengths = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        cells = np.arange(starts[-1]) + np.repeat(self.starts[:-1][chosen] - starts[:-1], lengths)
        return FeatureMatrix(spec=self.spec, starts=starts, features=self.features[cells], values=self.values[cells])

    def add_to(self, digest: hashlib._Hash) -> None:
        """Add the rows to a digest, the same bytes on every machine; the declaration has a digest of its own."""
        for array, kind in ((self.starts, "<i8"), (self.features, "<i4"), (self.values, "<f8")):
            add_array(digest, array, kind)

    def csr(self) -> csr_matrix:
        """Give the rows as float64, shape (n_rows, n_features): what models are trained on and scored with."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.values, self.features, self.starts), shape=(self.n_rows, self.n_features))


class FeatureEngine(Protocol):
    """Fits declarations and computes features: the reference engine here, the set engine in the warehouse."""

    def fit(self, declaration: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None) -> FeatureSpec:
        """Learn from these rows what the declaration leaves open."""

    def matrix(self, spec: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None) -> FeatureMatrix:
        """Compute the features of each row as of its index time, in the order of the rows."""


@dataclass(frozen=True)
class ReferenceEngine:
    """Reads patient by patient and computes with `deployr_core.vectorize`: the definition, not the fast way."""

    extract: PatientSource

    def fit(
        self, declaration: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None = None
    ) -> FeatureSpec:
        """See `FeatureEngine.fit`."""
        return fit(declaration, patients_with_index_times(self.extract, rows, progress=progress))

    def matrix(self, spec: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None = None) -> FeatureMatrix:
        """See `FeatureEngine.matrix`."""
        return feature_matrix(self.extract, spec, rows, progress=progress)


def feature_matrix(
    extract: PatientSource,
    spec: FeatureSpec,
    rows: Sequence[IndexRow],
    *,
    progress: Progress | None = None,
) -> FeatureMatrix:
    """Compute the features of each row as of its index time; one patient's facts are held in memory at a time.

    Args:
        extract: where the patients' facts come from.
        spec: a fitted declaration.
        rows: in any order.
        progress: told after each patient.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
        PatientsMissing: a row names a patient whom the extract does not have.
    """
    layout_of(spec)
    positions = _positions_by_person(rows)
    found: dict[int, FeatureVector] = {}
    for done, facts in enumerate(extract.patients(tuple(positions)), start=1):
        for position in positions[int(facts.patient_id)]:
            found[position] = vectorize(facts, spec, rows[position].index_time)
        if progress is not None:
            progress(done, len(positions))
    if len(found) != len(rows):
        raise PatientsMissing(f"expected every row's patient in the extract; {len(rows) - len(found)} rows have none")
    vectors = [found[position] for position in range(len(rows))]
    return FeatureMatrix(
        spec=spec,
        starts=np.cumsum([0, *(vector.indices.size for vector in vectors)], dtype=np.int64),
        features=np.concatenate([np.zeros(0, dtype=np.int32), *(vector.indices for vector in vectors)]),
        values=np.concatenate([np.zeros(0), *(vector.values for vector in vectors)]),
    )


def patients_with_index_times(
    extract: PatientSource, rows: Sequence[IndexRow], *, progress: Progress | None = None
) -> Iterator[tuple[PatientFacts, tuple[datetime, ...]]]:
    """Give each patient of the rows once, with the index times of their rows, for `deployr_dev.fitting.fit`."""
    positions = _positions_by_person(rows)
    for done, facts in enumerate(extract.patients(tuple(positions)), start=1):
        yield facts, tuple(rows[position].index_time for position in positions[int(facts.patient_id)])
        if progress is not None:
            progress(done, len(positions))


def snapshot_sha256(rows: Sequence[CohortRow], matrix: FeatureMatrix) -> str:
    """Give the SHA-256 over the rows' ids, index times, labels and features, in hex: what exactly was trained on."""
    digest = hashlib.sha256(matrix.spec.digest().encode())
    for row in rows:
        digest.update(f"\n{row.person_id}|{row.unit_id}|{row.index_time.isoformat()}|{row.label}".encode())
    matrix.add_to(digest)
    return digest.hexdigest()


def add_array(digest: hashlib._Hash, array: NDArray[Any], kind: str) -> None:
    """Add an array to a digest: its size, then its values as ``kind``, so that no two arrays run together into one."""
    digest.update(f"\n{array.size}|".encode())
    digest.update(array.astype(kind).tobytes())


def _positions_by_person(rows: Sequence[IndexRow]) -> dict[int, list[int]]:
    positions: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault(row.person_id, []).append(position)
    return positions

"""The features of many rows by the reference engine, as one sparse matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deployr_core.facts import PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.cohorts.orders import CohortRow

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class PatientSource(Protocol):
    """What the features need of an extract; `deployr_dev.sources.omop.OmopExtract` has it."""

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
    """Row ``i`` belongs to row ``i`` of the cohort that was asked for."""

    spec: FeatureSpec
    vectors: tuple[FeatureVector, ...]

    def csr(self) -> csr_matrix:
        """Give the rows as float32, shape (n_rows, n_features): what trees are trained on and scored with."""
        from scipy.sparse import csr_matrix

        shape = (len(self.vectors), len(layout_of(self.spec).names))
        starts = np.cumsum([0, *(vector.indices.size for vector in self.vectors)])
        empty = np.zeros(0)
        indices = np.concatenate([empty.astype(np.int32), *(vector.indices for vector in self.vectors)])
        values = np.concatenate([empty, *(vector.values for vector in self.vectors)])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused in training
            return csr_matrix((values.astype(np.float32), indices, starts), shape=shape)


def feature_matrix(
    extract: PatientSource,
    spec: FeatureSpec,
    rows: Sequence[CohortRow],
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
    return FeatureMatrix(spec=spec, vectors=tuple(found[position] for position in range(len(rows))))


def patients_with_index_times(
    extract: PatientSource, rows: Sequence[CohortRow], *, progress: Progress | None = None
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
    for row, vector in zip(rows, matrix.vectors, strict=True):
        digest.update(f"\n{row.person_id}|{row.order_id}|{row.index_time.isoformat()}|{row.label}|".encode())
        digest.update(f"{vector.indices.size}|".encode())
        digest.update(vector.indices.astype("<i4").tobytes())
        digest.update(vector.values.astype("<f8").tobytes())
    return digest.hexdigest()


def _positions_by_person(rows: Sequence[CohortRow]) -> dict[int, list[int]]:
    positions: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault(row.person_id, []).append(position)
    return positions

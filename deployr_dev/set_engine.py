"""The set engine as training uses it: what has to be learned is read patient by patient, the matrix is one query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deployr_core.features import FeatureSpec
from deployr_dev.backends import Backend
from deployr_dev.cohorts.rows import IndexRow
from deployr_dev.feature_table import compute_features
from deployr_dev.lookups import Instant
from deployr_dev.matrix import FeatureMatrix, PatientSource, Progress, ReferenceEngine


class WarehouseSource(PatientSource, Protocol):
    """What the set engine needs of a source: its patients, and where its fact tables are."""

    @property
    def backend(self) -> Backend:
        """Where the fact tables of docs/fact-tables.md are, and the feature query runs."""

    def learned_from(self, declaration: FeatureSpec, rows: Sequence[IndexRow]) -> PatientSource:
        """Give where the facts come from that a declaration is fitted to: at least those that a row of these sees."""


class SetEngine:
    """See `deployr_dev.matrix.FeatureEngine`; gives the reference engine's matrix, to the bit, from one query."""

    def __init__(self, extract: WarehouseSource) -> None:
        self._extract = extract

    def fit(
        self, declaration: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None = None
    ) -> FeatureSpec:
        """Learn from the rows, as the reference engine does."""
        source = self._extract.learned_from(declaration, rows)
        return ReferenceEngine(source).fit(declaration, rows, progress=progress)

    def matrix(self, spec: FeatureSpec, rows: Sequence[IndexRow], *, progress: Progress | None = None) -> FeatureMatrix:
        """Compute the features of each row as of its index time, in the order of the rows."""
        cohort = [
            Instant(row_id=place, person_id=row.person_id, as_of=row.index_time) for place, row in enumerate(rows)
        ]
        return compute_features(self._extract.backend, spec, cohort, progress=progress).matrix

"""The rows of a run as they were: their digests, and the files that hold them where they are kept.

The files hold who was trained on, so that nobody is held out of one run who was trained on in another. They are
patients' data: they stay inside the hospital, for their owner alone, and nothing that is deployed needs them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deployr_core.features import FeatureSpec
from deployr_core.outputs import Target
from deployr_core.registry.run import DataSet, Sets, digest_of_rows
from deployr_dev.arrow import column, number_column, numbers_of
from deployr_dev.cohorts.rows import CohortRow
from deployr_dev.folds import CALIBRATION_FOLDS
from deployr_dev.matrix import FeatureMatrix
from deployr_dev.runs.config import ResolvedConfig
from deployr_dev.training import TrainingSets

TRAIN_FILE, TEST_FILE = "train.parquet", "test.parquet"
_INDEX_TIME = pa.timestamp("us")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SnapshotInvalid(ValueError):
    """A file of the snapshot is missing, or is not one; the message names it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SnapshotSet:
    """One set's rows with their features, in the order of the set.

    ``person_ids``: int64, shape (n_rows,). ``unit_ids``: of the orders or visits. ``index_times``: microseconds since
    1970, int64. ``labels``: each as JSON, whatever the target is. ``matrix``: see `FeatureMatrix`.
    """

    person_ids: NDArray[np.int64] = field(repr=False)
    unit_ids: tuple[str, ...] = field(repr=False)
    index_times: NDArray[np.int64] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    matrix: FeatureMatrix = field(repr=False)

    @classmethod
    def of(cls, rows: Sequence[CohortRow], matrix: FeatureMatrix) -> SnapshotSet:
        """Take rows as they were trained on."""
        return cls(
            person_ids=np.array([row.person_id for row in rows], dtype=np.int64),
            unit_ids=tuple(row.unit_id for row in rows),
            index_times=np.array([(row.index_time - _EPOCH) // _MICROSECOND for row in rows], dtype=np.int64),
            labels=tuple(msgspec.json.encode(row.label).decode() for row in rows),
            matrix=matrix,
        )

    @property
    def patients(self) -> frozenset[int]:
        """Whose the rows are."""
        return frozenset(self.person_ids.tolist())

    @property
    def keys(self) -> tuple[tuple[int, str, int], ...]:
        """Who, what and when each row is: what finds it in an extract."""
        return tuple(zip(self.person_ids.tolist(), self.unit_ids, self.index_times.tolist(), strict=True))

    def described(self, *, target: Target, folds: int | None = None) -> DataSet:
        """Give the set in figures and digests."""
        rows = [
            f"{person}|{unit}|{at}|{label}".encode()
            for (person, unit, at), label in zip(self.keys, self.labels, strict=True)
        ]
        starts, spec = self.matrix.starts, self.matrix.spec.digest().encode()
        cells = self.matrix.features.astype("<i4"), self.matrix.values.astype("<f8")
        featured = [
            b"|".join((spec, row, *(each[start:end].tobytes() for each in cells)))
            for row, start, end in zip(rows, starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        ]
        is_one_outcome = target is Target.BINARY
        return DataSet(
            rows=len(rows),
            patients=len(self.patients),
            positives=sum(label == "1.0" for label in self.labels) if is_one_outcome else None,
            rows_sha256=digest_of_rows(rows),
            features_sha256=digest_of_rows(featured),
            first=_instant(int(self.index_times.min())).date(),
            last=_instant(int(self.index_times.max())).date(),
            folds=folds,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Both sides of a run."""

    train: SnapshotSet
    test: SnapshotSet

    @classmethod
    def of(cls, sets: TrainingSets) -> Snapshot:
        """Take the sides as they were made."""
        return cls(
            train=SnapshotSet.of(sets.train_rows, sets.train_matrix),
            test=SnapshotSet.of(sets.test_rows, sets.test_matrix),
        )

    def described(self, config: ResolvedConfig) -> Sets:
        """Give what ``run.json`` says of the sets.

        Settings are chosen, and probabilities corrected, on folds of the training patients: each row is validated by a
        model that has not seen its patient, so that the validation set is the training set, in folds.
        """
        target = config.task.outputs.target
        search = config.config.search or config.task.search
        folds = search.folds if search is not None else None
        if folds is None and config.config.estimator.calibration is not None:
            folds = CALIBRATION_FOLDS
        train = self.train.described(target=target)
        return Sets(
            train=train,
            validation=None if folds is None else msgspec.structs.replace(train, folds=folds),
            test=self.test.described(target=target),
        )


def write_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write both sides as Parquet, for their owner alone: the folder is made with mode 700, the files with 600."""
    folder.mkdir(mode=0o700)
    for name, side in ((TRAIN_FILE, snapshot.train), (TEST_FILE, snapshot.test)):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            pq.write_table(_table(side), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


def read_snapshot(folder: Path, spec: FeatureSpec) -> Snapshot:
    """Read both sides.

    Args:
        folder: of the snapshot.
        spec: the bundle's declaration, whose features the columns are.

    Raises:
        SnapshotInvalid: a file is missing or not one.
    """
    return Snapshot(train=_read(folder / TRAIN_FILE, spec), test=_read(folder / TEST_FILE, spec))


_FEATURE, _VALUE = "feature", "value"
"""The columns that hold a list for each row: which features are not 0, ascending, and theirs."""


def _table(side: SnapshotSet) -> pa.Table:
    starts = number_column(side.matrix.starts.astype(np.int32), pa.int32())
    return pa.table(
        {
            "person_id": number_column(side.person_ids, pa.int64()),
            "unit_id": column(side.unit_ids, pa.string()),
            "index_time": number_column(side.index_times, _INDEX_TIME),
            "label": column(side.labels, pa.string()),
            _FEATURE: pa.ListArray.from_arrays(starts, number_column(side.matrix.features, pa.int32())),
            _VALUE: pa.ListArray.from_arrays(starts, number_column(side.matrix.values, pa.float64())),
        }
    )


def _read(file: Path, spec: FeatureSpec) -> SnapshotSet:
    try:
        table = pq.read_table(file).combine_chunks()
        features, values = _one(table, _FEATURE), _one(table, _VALUE)
        return SnapshotSet(
            person_ids=numbers_of(_one(table, "person_id")).astype(np.int64),
            unit_ids=tuple(table["unit_id"].to_pylist()),
            index_times=numbers_of(_one(table, "index_time")).astype(np.int64),
            labels=tuple(table["label"].to_pylist()),
            matrix=FeatureMatrix(
                spec=spec,
                starts=numbers_of(features.offsets).astype(np.int64),
                features=numbers_of(features.values).astype(np.int32),
                values=numbers_of(values.values).astype(np.float64),
            ),
        )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        # What Arrow says may repeat a value.
        raise SnapshotInvalid(f"{file}: expected a file of a snapshot, whole ({type(error).__name__})") from None


def _one(table: pa.Table, name: str) -> pa.Array:
    chunks = table[name].chunks
    return chunks[0] if chunks else pa.array([], type=table[name].type)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND

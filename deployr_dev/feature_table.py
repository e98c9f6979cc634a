"""What the set engine gives: the features of every row of a cohort, as one Parquet file with its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.layout import layout_of
from deployr_dev.arrow import number_column, numbers_of
from deployr_dev.backends import ANSWER, Backend
from deployr_dev.lookups import Instant
from deployr_dev.matrix import FeatureMatrix, Progress, add_array
from deployr_dev.warehouse import warehouse_query

_Number = TypeVar("_Number", np.int32, np.float64)
_FIRST_NUMBERS = 65_536
_METADATA = b"deployr.features"


class FeatureTableInvalid(ValueError):
    """The file is not a feature table, or not the one that it says it is; the message names the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureTable:
    """The features of a cohort; every row of it is there, also one without a feature.

    ``row_ids``: int64, shape (n_rows,), ascending; row ``i`` of ``matrix`` is that of ``row_ids[i]``.
    """

    row_ids: NDArray[np.int64]
    matrix: FeatureMatrix

    def digest(self) -> str:
        """Give the SHA-256 of what is in the table: the same for the same content, however it came in batches."""
        digest = hashlib.sha256(self.matrix.spec.digest().encode())
        add_array(digest, self.row_ids, "<i8")
        self.matrix.add_to(digest)
        return digest.hexdigest()


def compute_features(
    backend: Backend, spec: FeatureSpec, cohort: Sequence[Instant], *, progress: Progress | None = None
) -> FeatureTable:
    """Run the set engine.

    Args:
        backend: where the fact tables are.
        spec: a fitted declaration.
        cohort: each ``row_id`` once; the table has them in ascending order.
        progress: told how many rows have come in, of how many.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
        ValueError: a row id is there twice.
    """
    row_ids = np.sort(np.array([row.row_id for row in cohort], dtype=np.int64))
    if np.unique(row_ids).size != row_ids.size:
        raise ValueError("expected each row_id of the cohort once")
    query = warehouse_query(spec, cohort, dialect=backend.dialect)
    counts = np.zeros(row_ids.size, dtype=np.int64)
    features, values = _Growing(np.int32), _Growing(np.float64)
    for batch in backend.stream(query.sql, query.tables):
        if not batch.num_rows:
            continue
        ids = numbers_of(batch.column("row_id"))
        starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
        places = np.searchsorted(row_ids, ids[starts])
        counts[places] += np.diff(starts, append=ids.size)
        features.add(numbers_of(batch.column("feature")))
        values.add(numbers_of(batch.column("value")))
        if progress is not None:
            progress(int(places[-1]) + 1, row_ids.size)
    if progress is not None:
        progress(row_ids.size, row_ids.size)
    return FeatureTable(
        row_ids=row_ids,
        matrix=FeatureMatrix(
            spec=spec,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            features=features.whole(),
            values=values.whole(),
        ),
    )


class _Growing(Generic[_Number]):
    """A column that grows where it is: parts that are joined at the end would be in memory twice."""

    def __init__(self, kind: type[_Number]) -> None:
        self._numbers: NDArray[_Number] = np.empty(_FIRST_NUMBERS, dtype=kind)
        self._size = 0

    def add(self, numbers: NDArray[_Number]) -> None:
        end = self._size + numbers.size
        if end > self._numbers.size:
            # What is not written yet takes no memory, and the system moves large blocks without copying them.
            self._numbers.resize(max(end, 2 * self._numbers.size), refcheck=False)
        self._numbers[self._size : end] = numbers
        self._size = end

    def whole(self) -> NDArray[_Number]:
        self._numbers.resize(self._size, refcheck=False)
        return self._numbers


def write_feature_table(table: FeatureTable, file: Path) -> str:
    """Write the table as Parquet, with its declaration, and give its digest; the file appears whole or not at all."""
    digest, matrix = table.digest(), table.matrix
    described = {
        "declaration": matrix.spec.to_json().decode(),
        "names": layout_of(matrix.spec).names,
        "rows": table.row_ids.tolist(),
        "sha256": digest,
    }
    row_ids = np.repeat(table.row_ids, np.diff(matrix.starts))
    columns: tuple[NDArray[Any], ...] = (row_ids, matrix.features, matrix.values)
    content = pa.table(list(map(number_column, columns, ANSWER.types)), schema=ANSWER)
    content = content.replace_schema_metadata({_METADATA: json.dumps(described).encode()})
    import pyarrow.parquet as pq

    beside = file.with_name(f".{file.name}.new")
    pq.write_table(content, beside, compression="zstd")
    beside.replace(file)
    return digest


def read_feature_table(file: Path) -> FeatureTable:
    """Read a table that `write_feature_table` wrote, and check that it is whole.

    Raises:
        FeatureTableInvalid: not such a file, or its content is not what its digest names.
    """
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(file)
        described = json.loads((content.schema.metadata or {})[_METADATA])
        spec = parse_feature_spec(described["declaration"])
        row_ids = np.array(described["rows"], dtype=np.int64)
        counts = np.bincount(np.searchsorted(row_ids, content["row_id"].to_numpy()), minlength=row_ids.size)
        expected = described["sha256"]
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise FeatureTableInvalid(f"{file}: expected a feature table, written by deployr") from error
    table = FeatureTable(
        row_ids=row_ids,
        matrix=FeatureMatrix(
            spec=spec,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            features=content["feature"].to_numpy().astype(np.int32),
            values=content["value"].to_numpy().astype(np.float64),
        ),
    )
    if table.digest() != expected:
        raise FeatureTableInvalid(f"{file}: expected the content that its digest names; make it again")
    return table

"""One run of the featurizing benchmark, in a process of its own: prints seconds, peak memory and a digest."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.warehouse import LOOKBACK_DAYS, ORDERS, PERSONS, TESTS

_EDGES = (20.0, 40.0, 60.0, 80.0)
_START = datetime(2020, 1, 1, tzinfo=UTC)
_Cells = tuple[Any, Any, Any]
_Run = tuple[Callable[[], Any], Callable[[Any], _Cells]]
"""What is measured, and afterwards its answer as row, feature and count, by row and then by feature."""


def main(what: str, file: Path, rows: int) -> None:
    """Run one of make, ours, hand, pandas."""
    if what == "make":
        _make(file, rows)
        print(json.dumps({"seconds": 0.0}))
        return
    run, cells_of = {"ours": _ours, "hand": _by_hand, "pandas": _pandas}[what](file)
    started = time.perf_counter()
    matrix = run()
    seconds, megabytes = time.perf_counter() - started, _peak_megabytes()
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "matrix": _digest(*cells_of(matrix))}))


def _make(file: Path, rows: int) -> None:
    """Write lab results of four years, by person as a warehouse keeps them."""
    seconds = 4 * 365 * 86_400
    duckdb.connect().execute(f"""
        COPY (SELECT CAST(i * {PERSONS} // {rows} AS BIGINT) AS person_id, CAST(i AS VARCHAR) AS fact_id,
            'http://loinc.org' AS system, 'T' || (hash(i * 7 + 1) % {TESTS}) AS code,
            CAST(hash(i * 3 + 5) % 100000 AS DOUBLE) / 1000 AS value, 'mg/dL' AS unit,
            TIMESTAMP '2020-01-01' + to_seconds(CAST(hash(i * 11 + 3) % {seconds} AS BIGINT)) AS happened_at,
            happened_at + INTERVAL 40 MINUTE AS known_at
        FROM range({rows}) AS t(i)) TO '{file}' (FORMAT parquet)
    """)


def _cohort() -> tuple[list[int], list[datetime]]:
    rng = np.random.default_rng(0)
    persons = rng.integers(PERSONS, size=ORDERS).tolist()
    seconds = rng.integers(2 * 365 * 86_400, 4 * 365 * 86_400, size=ORDERS).tolist()
    return persons, [_START + timedelta(seconds=second) for second in seconds]


def _connect() -> Any:
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    return connection


def _ours(file: Path) -> _Run:
    from deployr_core.codes import LOINC
    from deployr_core.declared import Analyte, EdgeBins, Statistic
    from deployr_core.features import FeatureSpec, LabGroup
    from deployr_dev.backends import DuckDb
    from deployr_dev.feature_table import compute_features
    from deployr_dev.lookups import Instant

    bins = EdgeBins(edges=_EDGES)
    tests = tuple(Analyte(system=LOINC, code=f"T{i}", name=f"T{i}", unit="mg/dL", bins=bins) for i in range(TESTS))
    group = LabGroup(name="labs", analytes=tests, statistics=(Statistic.BINS,), lookback_days=LOOKBACK_DAYS)
    spec = FeatureSpec(schema_version=1, groups=(group,))
    cohort = [
        Instant(row_id=i, person_id=who, as_of=as_of) for i, (who, as_of) in enumerate(zip(*_cohort(), strict=True))
    ]
    connection = _connect()
    connection.execute(f"CREATE VIEW labs AS SELECT * FROM '{file}'")

    def cells_of(table: Any) -> _Cells:
        return np.repeat(table.row_ids, np.diff(table.matrix.starts)), table.matrix.features, table.matrix.values

    return lambda: compute_features(DuckDb(connection), spec, cohort), cells_of


def _by_hand(file: Path) -> _Run:
    import pyarrow as pa  # noqa: F401 DuckDB's answer comes in it, and imports are not timed

    persons, instants = _cohort()
    connection = _connect()
    as_of = np.array([instant.replace(tzinfo=None) for instant in instants], dtype="datetime64[us]")
    connection.register("cohort", {"row_id": np.arange(ORDERS), "person_id": np.array(persons), "as_of": as_of})
    connection.execute(
        f"CREATE TABLE tests AS SELECT 'T' || i AS code, CAST(i AS INTEGER) AS place FROM range({TESTS}) AS t(i)"
    )
    steps = " + ".join(f"CASE WHEN l.value >= {edge} THEN 1 ELSE 0 END" for edge in _EDGES)
    sql = f"""
        SELECT c.row_id, t.place * 5 + {steps} AS feature, COUNT(*) AS n
        FROM cohort AS c JOIN '{file}' AS l ON l.person_id = c.person_id
            AND l.happened_at >= c.as_of - INTERVAL {LOOKBACK_DAYS} DAY AND l.happened_at < c.as_of
            AND l.known_at < c.as_of
        JOIN tests AS t ON t.code = l.code
        GROUP BY 1, 2 ORDER BY 1, 2
    """
    return lambda: connection.sql(sql).to_arrow_table(), lambda table: tuple(column.to_numpy() for column in table)


def _pandas(file: Path) -> _Run:
    import pandas as pd

    persons, instants = _cohort()
    as_of = pd.to_datetime([instant.replace(tzinfo=None) for instant in instants])
    cohort = pd.DataFrame({"row_id": range(ORDERS), "person_id": persons, "as_of": as_of})

    def run() -> Any:
        labs = pd.read_parquet(file, columns=["person_id", "code", "value", "happened_at", "known_at"])
        merged = cohort.merge(labs, on="person_id")
        since = merged["as_of"] - pd.Timedelta(days=LOOKBACK_DAYS)
        seen = (merged["happened_at"] >= since) & (merged["happened_at"] < merged["as_of"])
        merged = merged[seen & (merged["known_at"] < merged["as_of"])]
        bins = np.searchsorted(np.array(_EDGES), merged["value"].to_numpy(), side="right")
        return merged.assign(bin=bins).groupby(["row_id", "code", "bin"], observed=True).size()

    def cells_of(counts: Any) -> _Cells:
        found = counts.reset_index(name="n")
        found["feature"] = found["code"].str.removeprefix("T").astype(int) * 5 + found["bin"]
        found = found.sort_values(["row_id", "feature"])
        return found["row_id"], found["feature"], found["n"]

    return run, cells_of


def _digest(rows: Any, features: Any, counts: Any) -> str:
    digest = hashlib.sha256()
    for cells in (rows, features, counts):
        digest.update(np.asarray(cells, dtype="<i8").tobytes())
    return digest.hexdigest()


def _peak_megabytes() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("expected a kernel that tells a process's peak memory in /proc")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

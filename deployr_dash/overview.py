"""Daily figures of all models, from a cache that each extract brings up to date: a million packets open at once.

The cache says of each part of the extract what it adds. What it has not seen yet is counted when it is asked for, so
that a cache which is missing or old is slow and never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deployr_core.packet import DeliveryState
from deployr_dash.frames import COUNT, NUMBER, WORD
from deployr_dash.parts import Index, Part, aside, on_current_parts
from deployr_dash.readings import Overview
from deployr_dash.sketches import GAMMA, SCORE_BINS, SHORTEST_MS

_FOLDER, _DAILY, _TALLIES = "overview", "daily.parquet", "tallies.parquet"
_PACKETS_AT_ONCE = 2_000_000

_BY = ("model_id", "version", "day", "mode", "arm")
"""What is counted by. ``day``: of ``received_at``, in UTC. ``mode`` and ``arm``: null where there was no decision."""

COUNTED = {
    "packets": "count(*)",
    **{
        each: f"count(*) FILTER (kind = '{each}')" for each in ("received", "scored", "abstained", "failed", "rejected")
    },
    "advised": "count(*) FILTER (advised)",
    "shown": "count(shown_at)",
    "answered": "count(response_at)",
    "observed": "count(*) FILTER (label_kind = 'observed')",
    "censored": "count(*) FILTER (label_kind = 'censored')",
    "positive": "count(*) FILTER (value_unit IS NULL AND label_value = 1)",
    "emr_calls": "coalesce(sum(emr_calls), 0)",
    **{f"deliveries_{state}": f"coalesce(sum(deliveries_{state}), 0)" for state in DeliveryState},
}
"""The columns of daily counts, and how each is counted; ``positive``: of the observed, those with label 1."""

WORDS = ("reason", "why", "channel", "label_reason", "response")
"""Columns of which it is counted how often each word stands there."""

_LATENCY = f"ceil(ln(greatest(latency_ms, {SHORTEST_MS})) / {math.log(GAMMA)!r})"
_SCORE = f"least(floor(score * {SCORE_BINS}), {SCORE_BINS - 1})"
_IS_SCORE = "score IS NOT NULL AND value_unit IS NULL"
BUCKETS = {
    "latency_ms": (_LATENCY, "latency_ms IS NOT NULL"),
    "score": (_SCORE, _IS_SCORE),
    "score_of_positive": (_SCORE, f"{_IS_SCORE} AND label_kind = 'observed' AND label_value = 1"),
    "score_of_negative": (_SCORE, f"{_IS_SCORE} AND label_kind = 'observed' AND label_value = 0"),
}
"""Distributions: the bucket of `deployr_dash.sketches`, and what is in it."""

_READ = (
    *("model_id", "version", "mode", "arm", "kind", "advised", "shown_at", "response_at", "label_kind", "label_value"),
    *("value_unit", "emr_calls", "latency_ms", "score", *WORDS, *(f"deliveries_{state}" for state in DeliveryState)),
)
_KEYS = [("part", WORD), ("model_id", WORD), ("version", WORD), ("day", pa.date32()), ("mode", WORD), ("arm", WORD)]
DAILY_SCHEMA = pa.schema(
    [
        *_KEYS,
        *((name, pa.int64()) for name in COUNTED),
        ("score_sum", NUMBER),
        ("last_at", pa.timestamp("us", tz="UTC")),
    ]
)
TALLIES_SCHEMA = pa.schema([*_KEYS, ("what", WORD), ("word", WORD), ("bucket", COUNT), ("n", pa.int64())])

_ENGINE: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "600MB",
    # Nothing is ever fetched: an extension that is not here is an error, not a download.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_TAKE = (
    # Whole days without a time zone's help, for which DuckDB would need an extension.
    f"CREATE TEMP TABLE packets AS SELECT filename AS part, {', '.join(_READ)}, epoch_us(received_at) AS received_us,"  # noqa: S608 names of ours, here and below
    " (epoch_us(received_at) // 86400000000)::INT AS day FROM read_parquet($files, filename = true)"
)
_GROUPS = f"part, {', '.join(_BY)}"
_COUNT = (
    f"SELECT {_GROUPS}, {', '.join(f'{how}::BIGINT AS {name}' for name, how in COUNTED.items())},"  # noqa: S608
    " sum(score) AS score_sum, max(received_us) AS last_at FROM packets GROUP BY ALL"
)
_TALLY = " UNION ALL ".join(
    (
        *(
            f"SELECT {_GROUPS}, '{name}' AS what, {name} AS word, NULL::INT AS bucket, count(*) AS n FROM packets"  # noqa: S608
            f" WHERE {name} IS NOT NULL GROUP BY ALL"
            for name in WORDS
        ),
        *(
            f"SELECT {_GROUPS}, '{name}' AS what, NULL AS word, {bucket}::INT AS bucket, count(*) AS n FROM packets"  # noqa: S608
            f" WHERE {which} GROUP BY ALL"
            for name, (bucket, which) in BUCKETS.items()
        ),
    )
)


def overview(
    folder: Path, *, model: str | None = None, since: date | None = None, until: date | None = None
) -> Overview:
    """Give the daily figures.

    Args:
        folder: the extract's.
        model: only this one; None gives all.
        since: the first day, in UTC.
        until: the day after the last one.

    Raises:
        ExtractMissing: there is no extract.
    """
    daily, tallies = on_current_parts(folder, lambda index: _whole(folder, index))
    return Overview(
        daily=_chosen(daily, model=model, since=since, until=until),
        tallies=_chosen(tallies, model=model, since=since, until=until),
    )


def write_overview(folder: Path) -> None:
    """Bring the cache up to date.

    Raises:
        ExtractMissing: there is no extract.
    """
    daily, tallies = on_current_parts(folder, lambda index: _whole(folder, index))
    (folder / _FOLDER).mkdir(mode=0o700, exist_ok=True)
    # In this order: a part that the counts name has its tallies, too.
    for name, table in ((_TALLIES, tallies), (_DAILY, daily)):
        with aside(folder / _FOLDER / name) as part:
            pq.write_table(table, part, compression="zstd")


def _whole(folder: Path, index: Index) -> tuple[pa.Table, pa.Table]:
    held = [_held(folder / _FOLDER / name, schema) for name, schema in _SCHEMAS]
    known = set(pc.unique(held[0]["part"].cast(pa.string())).to_pylist())
    missing = [part for part in index.packets if part.file not in known]
    current = pa.array(known & index.files, pa.string())
    kept = [table.filter(pc.is_in(table["part"].cast(pa.string()), current)) for table in held]
    daily, tallies = [kept[0]], [kept[1]]
    for some in _batches(missing):
        counted = _counted(folder, some)
        daily.append(counted[0])
        tallies.append(counted[1])
    return pa.concat_tables(daily).unify_dictionaries(), pa.concat_tables(tallies).unify_dictionaries()


_SCHEMAS = ((_DAILY, DAILY_SCHEMA), (_TALLIES, TALLIES_SCHEMA))


def _held(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        found = pq.read_table(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return schema.empty_table()
    return found if found.schema.equals(schema) else schema.empty_table()


def _batches(parts: Sequence[Part]) -> Iterator[list[Part]]:
    some: list[Part] = []
    for part in parts:
        some.append(part)
        if sum(each.rows for each in some) >= _PACKETS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _counted(folder: Path, parts: Sequence[Part]) -> tuple[pa.Table, pa.Table]:
    # A third of a second, which nobody waits for whose figures are in the cache.
    import duckdb

    files = {str(folder / part.file): part.file for part in parts}
    with duckdb.connect(config=_ENGINE) as db:
        # It would be printed on standard output.
        db.execute("SET enable_progress_bar = false")
        try:
            db.execute(_TAKE, {"files": list(files)})
        except duckdb.IOException as error:
            raise FileNotFoundError(str(folder)) from error
        daily, tallies = db.sql(_COUNT).to_arrow_table(), db.sql(_TALLY).to_arrow_table()
    return _typed(daily, files, DAILY_SCHEMA), _typed(tallies, files, TALLIES_SCHEMA)


def _typed(table: pa.Table, files: dict[str, str], schema: pa.Schema) -> pa.Table:
    parts = pa.array([files[each] for each in table["part"].to_pylist()], pa.string())
    table = table.set_column(0, "part", parts)
    return pa.table(
        [
            table[field.name].combine_chunks().dictionary_encode()
            if field.type == WORD
            else table[field.name].cast(field.type)
            for field in schema
        ],
        schema=schema,
    )


def _chosen(table: pa.Table, *, model: str | None, since: date | None, until: date | None) -> pd.DataFrame:
    if model is not None:
        table = table.filter(pc.equal(table["model_id"].cast(pa.string()), model))
    if since is not None:
        table = table.filter(pc.greater_equal(table["day"], pa.scalar(since)))
    if until is not None:
        table = table.filter(pc.less(table["day"], pa.scalar(until)))
    return table.drop_columns(["part"]).to_pandas(date_as_object=False)

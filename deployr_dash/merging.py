"""Brings packets that changed into the parts of an extract, each beside the one it replaces."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deployr_dash.frames import FEATURES_SCHEMA, PACKETS_SCHEMA
from deployr_dash.parts import FEATURES, PACKETS, Index, Part, PartWriter, tables_in, write_index

_MOST_PARTS = 16
"""Of the features of one model, version and month, before they are written together."""

CHANGED_SCHEMA = PACKETS_SCHEMA.remove(0).append(pa.field("month", pa.string()))
VECTORS_SCHEMA = FEATURES_SCHEMA.set(0, pa.field("packet_id", pa.string()))


@dataclass(kw_only=True, slots=True)
class Changes:
    """Packets as they are now. ``forgotten``: ids of those that were erased on demand, by model.

    ``packets``: as `CHANGED_SCHEMA`; ``month``, such as 2015-01, is of when the packet was asked for first.
    ``vectors``: as `VECTORS_SCHEMA`.
    """

    packets: list[pa.Table] = field(default_factory=list)
    vectors: list[pa.Table] = field(default_factory=list)
    forgotten: dict[str, set[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many packets there are."""
        return sum(int(each.num_rows) for each in self.packets) + sum(map(len, self.forgotten.values()))


class Merging:
    """One step from one state of the folder to the next; what `done` was not called for never was.

    Args:
        folder: the extract's.
        index: what counts now.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._packets = {(part.model_id, part.month): part for part in index.packets}
        self._features = list(index.features)
        self._next_row = index.next_row
        self._written = 0
        self._has_dropped = False

    def take(self, changes: Changes) -> None:
        """Add packets that are new, and put those that are there already in their place."""
        for model_id, ids in changes.forgotten.items():
            self.drop(_are_any_of(ids), model_id=model_id)
        if not changes.packets:
            return
        changed = _latest(pa.concat_tables(changes.packets).unify_dictionaries())
        vectors = pa.concat_tables(changes.vectors)
        keys = changed.select(["model_id", "month"]).cast(
            pa.schema([("model_id", pa.string()), ("month", pa.string())])
        )
        for key in keys.group_by(["model_id", "month"]).aggregate([]).to_pylist():
            is_of = pc.and_(pc.equal(keys["model_id"], key["model_id"]), pc.equal(keys["month"], key["month"]))
            self._merge(changed.filter(is_of), vectors, model_id=key["model_id"], month=key["month"])

    def drop(
        self, is_gone: Callable[[pa.Table], pa.ChunkedArray], *, model_id: str, before: datetime | None = None
    ) -> None:
        """Take packets of a model out, with their features.

        Args:
            is_gone: tells it of each row of a table.
            model_id: whose.
            before: only parts with packets from before then are looked at; None looks at all.
        """
        for (of_model, month), part in list(self._packets.items()):
            if of_model != model_id or (before is not None and part.first >= before):
                continue
            gone = pa.array(
                [
                    row
                    for table in tables_in(self._folder, part)
                    for row in table["row"].filter(is_gone(table)).to_pylist()
                ],
                pa.int64(),
            )
            if not len(gone):
                continue
            self._has_dropped = True
            kept = self._rewritten(PACKETS, PACKETS_SCHEMA, [part], without=gone)
            del self._packets[of_model, month]
            if kept is not None:
                self._packets[of_model, month] = kept
            for each in [each for each in self._features if (each.model_id, each.month) == (model_id, month)]:
                self._features.remove(each)
                rest = self._rewritten(FEATURES, FEATURES_SCHEMA, [each], without=gone)
                self._features += [] if rest is None else [rest]

    def done(self, *, cursor: str | None, now: datetime) -> Index:
        """Make it what counts."""
        index = msgspec.structs.replace(
            self._index,
            generation=self._index.generation + 1,
            cursor=cursor,
            next_row=self._next_row,
            extracted_at=now,
            drops=self._index.drops + self._has_dropped,
            packets=tuple(self._packets[key] for key in sorted(self._packets)),
            features=tuple(self._features),
        )
        write_index(self._folder, index)
        return index

    def _merge(self, changed: pa.Table, vectors: pa.Table, *, model_id: str, month: str) -> None:
        """Write a month of a model anew; a packet keeps its number, and its features, once it has them."""
        old = self._packets.get((model_id, month))
        rows, had_vector = self._rows_of(changed["packet_id"], old)
        numbered = changed.add_column(0, PACKETS_SCHEMA.field("row"), pa.array(rows))
        writer = PartWriter(self._folder, self._name(PACKETS), PACKETS_SCHEMA)
        with writer.open():
            for table in [] if old is None else tables_in(self._folder, old):
                writer.add(table.filter(pc.invert(pc.is_in(table["packet_id"], changed["packet_id"]))))
            writer.add(numbered)
        part = writer.part(model_id=model_id, month=month)
        if part is not None:
            self._packets[model_id, month] = part
        fresh = numbered.filter(pa.array(~had_vector)).select(["row", "packet_id", "version"])
        for version in pc.unique(fresh["version"].cast(pa.string())).to_pylist():
            self._add_vectors(fresh.filter(pc.equal(fresh["version"], version)), vectors, model_id, month, version)

    def _rows_of(self, packet_ids: pa.ChunkedArray, old: Part | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Give each packet's number, and whether its features are there."""
        rows = np.full(len(packet_ids), -1, dtype=np.int64)
        had_vector = np.zeros(len(packet_ids), dtype=np.bool_)
        if old is not None:
            held = pq.read_table(self._folder / old.file, columns=["row", "packet_id", "kind"])
            places = pc.index_in(packet_ids, value_set=held["packet_id"].combine_chunks())
            found = places.is_valid().to_numpy()
            at = places.drop_null().to_numpy()
            rows[found] = held["row"].to_numpy()[at]
            had_vector[found] = pc.equal(held["kind"], "scored").to_numpy()[at]
        new = rows < 0
        rows[new] = np.arange(self._next_row, self._next_row + new.sum())
        self._next_row += int(new.sum())
        return rows, had_vector

    def _add_vectors(self, fresh: pa.Table, vectors: pa.Table, model_id: str, month: str, version: str) -> None:
        places = pc.index_in(vectors["packet_id"], value_set=fresh["packet_id"].combine_chunks())
        found = vectors.filter(places.is_valid())
        numbered = found.set_column(0, FEATURES_SCHEMA.field("row"), fresh["row"].take(places.drop_null()))
        writer = PartWriter(self._folder, self._name(FEATURES), FEATURES_SCHEMA)
        if not numbered.num_rows:
            return
        with writer.open():
            writer.add(numbered)
        part = writer.part(model_id=model_id, month=month, version=version)
        self._features += [] if part is None else [part]
        alike = [p for p in self._features if (p.model_id, p.month, p.version) == (model_id, month, version)]
        if len(alike) > _MOST_PARTS:
            together = self._rewritten(FEATURES, FEATURES_SCHEMA, alike)
            self._features = [each for each in self._features if each not in alike]
            self._features += [] if together is None else [together]

    def _rewritten(
        self, kind: str, schema: pa.Schema, parts: Collection[Part], *, without: pa.Array | None = None
    ) -> Part | None:
        """Write parts of one model and month as one, without the rows of these numbers; None if nothing is left."""
        of = next(iter(parts))
        writer = PartWriter(self._folder, self._name(kind), schema)
        with writer.open():
            for table in (table for part in parts for table in tables_in(self._folder, part)):
                writer.add(table if without is None else table.filter(pc.invert(pc.is_in(table["row"], without))))
        return writer.part(model_id=of.model_id, month=of.month, version=of.version)

    def _name(self, kind: str) -> str:
        self._written += 1
        return f"{kind}/{self._index.generation + 1:08d}-{self._written:05d}.parquet"


def _are_any_of(packet_ids: Collection[str]) -> Callable[[pa.Table], pa.ChunkedArray]:
    wanted = pa.array(packet_ids, pa.string())
    return lambda table: pc.is_in(table["packet_id"], wanted)


def _latest(changed: pa.Table) -> pa.Table:
    """Give each packet once, as it was read last."""
    ids = changed["packet_id"].to_pylist()
    places = {packet_id: place for place, packet_id in enumerate(ids)}
    return changed if len(places) == len(ids) else changed.take(pa.array(sorted(places.values())))

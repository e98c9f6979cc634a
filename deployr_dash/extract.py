"""The extract: what monitoring reads, taken from the store bit by bit and brought up to date by each run.

What changed since the last run is read again whole, with all that belongs to it, and takes the place of what was there;
so labels, answers and deliveries that come later find their packet, whenever they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, parse_manifest
from deployr_core.features import parse_feature_spec
from deployr_core.forgetting import is_forgotten
from deployr_core.packet import InferencePacket, Scored
from deployr_dash.codes import CLINICIAN, PATIENT, UNIT, Codes, codes_of
from deployr_dash.merging import CHANGED_SCHEMA, VECTORS_SCHEMA, Changes, Merging
from deployr_dash.overview import write_overview
from deployr_dash.parts import MODELS, ExtractMissing, ExtractUnusable, Index, aside, read_index, sweep, tables_in
from deployr_dash.records import Row, Told, asked_at, packet_row, told_by, unit_hash_of
from deployr_serve.core.ports import Belongings, InferenceStore
from deployr_serve.core.retention import with_belongings

_PAGE = 500
_STEP = 50_000
"""Packets that are held in memory before they are written, and that a run which is killed has to read again."""
Tell = Callable[[int, int], None]
"""Is told how many packets were read, of how many that are known of."""


class Bundles(Protocol):
    """The bundles of a site, those of today and earlier ones."""

    def files(self, digest: str) -> Mapping[str, bytes] | None:
        """Give manifest and declarations, by file, of the bundle with this digest; None where it is not here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What a run came to. ``read``: packets that were new or changed. ``rows``: all that the extract holds now.

    ``without_bundle``: of those that were read with a score, how many had none of the bundles that are here.
    """

    read: int
    rows: int
    without_bundle: int


async def extract(
    store: InferenceStore,
    folder: Path,
    *,
    bundles: Bundles,
    now: datetime,
    kept_since: Mapping[str, datetime] | None = None,
    anew: bool = False,
    replayed: bool = False,
    tell: Tell = lambda _done, _of: None,
) -> Extracted:
    """Bring the extract in a folder up to date with the store.

    It may be killed at any time: what it had written in steps of 50,000 packets stands, and the next run goes on.

    Args:
        store: what is read.
        folder: made where it is not there, for its owner alone.
        bundles: tell what vectors mean, and when labels are ripe.
        now: when it is.
        kept_since: by kind of outcome, from when on packets are kept; earlier ones are dropped. The store purges by the
            same rule, and cannot tell afterwards what it purged.
        anew: read everything, whatever is there.
        replayed: a replay moved the app's clock, so that no two instants tell how long anything took.
        tell: is told of progress.

    Raises:
        StoreUnavailable: what was read until then stands.
        ExtractBusy: another process is at it.
    """
    with codes_of(folder) as codes:
        run = _Run(store, folder, _Models(bundles, folder), codes, now=now, replayed=replayed, tell=tell)
        index = await run.read_on(_begun(folder, anew=anew, drops=codes.drops))
        index = run.drop_what_is_not_kept(index, kept_since or {})
        if index.drops != codes.drops:
            codes.forget_all_but(_codes_in(folder, index), drops=index.drops)
    write_overview(folder)
    return Extracted(
        read=run.read, rows=sum(part.rows for part in index.packets), without_bundle=run.models.without_bundle
    )


def _begun(folder: Path, *, anew: bool, drops: int) -> Index:
    """Give what counts, and remove what a run that was killed left behind; what counted stays until there is more."""
    # Numbers of files go on: whoever reads the old ones, or counted them, must not find others under their names.
    try:
        index = read_index(folder)
    except ExtractUnusable as error:
        return Index(generation=error.generation, drops=drops + 1)
    except ExtractMissing:
        return Index(drops=drops + 1)
    sweep(folder, index)
    return Index(generation=index.generation, drops=drops + 1) if anew else index


class _Run:
    """One run."""

    def __init__(
        self,
        store: InferenceStore,
        folder: Path,
        models: _Models,
        codes: Codes,
        *,
        now: datetime,
        replayed: bool,
        tell: Tell,
    ) -> None:
        self._store = store
        self._folder = folder
        self.models = models
        self._codes = codes
        self._now = now
        self._untimed: Row = {"latency_ms": None, "emr_ms": None} if replayed else {}
        self._tell = tell
        self.read = 0

    async def read_on(self, index: Index) -> Index:
        """Read what changed, and merge it step by step."""
        cursor, is_all = index.cursor, False
        while not is_all:
            changes = Changes()
            while not is_all and changes.rows < _STEP:
                page = await self._store.changed(after=cursor, limit=_PAGE)
                cursor, is_all = page.cursor, page.is_all
                await self._take(page.packets, changes)
            # Before the rows that hold them: a number that no row has is harmless, one that is given twice is not.
            self._codes.keep()
            merging = Merging(self._folder, index)
            merging.take(changes)
            index = merging.done(cursor=cursor, now=self._now)
        return index

    async def _take(self, packets: tuple[InferencePacket, ...], changes: Changes) -> None:
        rows: list[Row] = []
        vectors: list[Row] = []
        async for packet, belongings in with_belongings(self._store, packets):
            if is_forgotten(packet):
                changes.forgotten.setdefault(packet.model.model_id, set()).add(packet.packet_id)
                continue
            rows.append(self._row(packet, belongings))
            if isinstance(packet.outcome, Scored):
                vectors.append(_vector_row(packet, packet.outcome))
        if rows:
            changes.packets.append(pa.Table.from_pylist(rows, schema=CHANGED_SCHEMA))
            changes.vectors.append(pa.Table.from_pylist(vectors, schema=VECTORS_SCHEMA))
        self.read += len(packets)
        self._tell(self.read, self.read)

    def _row(self, packet: InferencePacket, belongings: Belongings) -> Row:
        unit_hash, clinician = unit_hash_of(packet), packet.clinician_hash
        row = packet_row(
            packet,
            belongings,
            told=self.models.told(packet),
            patient_code=self._codes.code_of(PATIENT, packet.patient_hash) if packet.patient_hash else None,
            unit_code=None if unit_hash is None else self._codes.code_of(UNIT, unit_hash),
            clinician_code=None if clinician is None else self._codes.code_of(CLINICIAN, clinician),
        )
        return {**row, **self._untimed, "month": f"{asked_at(packet).astimezone(UTC):%Y-%m}"}

    def drop_what_is_not_kept(self, index: Index, kept_since: Mapping[str, datetime]) -> Index:
        """Take out packets of before the instant that their kind is kept from."""
        if not kept_since:
            return index

        def is_gone(table: pa.Table) -> pa.ChunkedArray:
            kinds, started = table["kind"].cast(pa.string()), table["started_at"]
            gone = pa.chunked_array([pa.array([False] * table.num_rows)])
            for kind, since in kept_since.items():
                gone = pc.or_(gone, pc.and_(pc.equal(kinds, kind), pc.less(started, pa.scalar(since, started.type))))
            return gone

        merging = Merging(self._folder, index)
        for model_id in {part.model_id for part in index.packets}:
            merging.drop(is_gone, model_id=model_id, before=max(kept_since.values()))
        return merging.done(cursor=index.cursor, now=self._now)


class _Models:
    """What the bundles tell, each read once; and copies of it, so that pages need no bundles."""

    def __init__(self, bundles: Bundles, folder: Path) -> None:
        self._bundles = bundles
        self._folder = folder / MODELS
        self._told: dict[str, Told | None] = {}
        self.without_bundle = 0

    def told(self, packet: InferencePacket) -> Told | None:
        """Give what the packet's bundle tells; None where it is not here, or too old to be read."""
        digest = packet.model.bundle_sha256
        if digest not in self._told:
            self._told[digest] = self._read(digest) if digest else None
        found = self._told[digest]
        self.without_bundle += found is None and isinstance(packet.outcome, Scored)
        return found

    def _read(self, digest: str) -> Told | None:
        files = self._bundles.files(digest)
        if files is None:
            return None
        try:
            told = told_by(parse_manifest(files[MANIFEST_FILE]), parse_feature_spec(files[FEATURES_FILE]))
        except ValueError:
            return None
        folder = self._folder / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            with aside(folder / name) as part:
                part.write_bytes(content)
        return told


def _vector_row(packet: InferencePacket, scored: Scored) -> dict[str, Any]:
    return {
        "packet_id": packet.packet_id,
        "received_at": packet.trigger.received_at,
        "index": scored.vector.indices,
        "value": scored.vector.values,
    }


def _codes_in(folder: Path, index: Index) -> Iterable[int]:
    for part in index.packets:
        for table in tables_in(folder, part):
            for name in ("patient_code", "unit_code", "clinician_code"):
                yield from pc.unique(table[name]).drop_null().to_pylist()

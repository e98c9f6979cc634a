"""Writes the store's tables as Parquet, page by page, so that no store is too large for the memory."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell, bar
from deployr_cli.store_tables import TABLES, Column, Mask, Row, rows_of
from deployr_cli.stores import with_store
from deployr_core.bundle import FEATURES_FILE
from deployr_core.documents import DOCUMENTS_FILE, column_names, parse_documents
from deployr_core.features import parse_feature_spec
from deployr_core.forgetting import derive_patient_hash, is_forgotten
from deployr_core.packet import InferencePacket, Scored
from deployr_serve.core.retention import with_belongings
from deployr_serve.settings import Settings
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_PAGE = 500
_ROWS_AT_ONCE = 100_000
"""Of one table, kept until they are written as a row group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What is asked for. ``since`` is included and ``until`` is not; both bound when packets were asked for."""

    out: Path
    key_file: Path | None
    since: datetime | None
    until: datetime | None
    identified: bool


def run_export(site: Settings, export: Export, *, console: Console) -> Mapping[str, int]:
    """Write the tables and their dictionary; give how many rows each has.

    They are written beside under a name that begins with a dot, and renamed when they are whole.

    Raises:
        CommandFailed: the folder is there already, or the key is too short, or pyarrow is not installed.
    """
    if export.out.exists():
        raise CommandFailed(f"{export.out}: expected a folder that is not there yet")
    mask = Mask(key=None if export.identified else _key(export.key_file))
    try:
        import pyarrow as pa  # noqa: F401 to find out before anything is read
    except ImportError:
        raise CommandFailed("expected pyarrow, which deployr[train] installs") from None
    part = export.out.with_name(f".{export.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    try:
        with bar(console, "writing packets") as tell:
            rows = with_store(site, lambda store: _written(store, site, export, mask, part, tell))
        _write_dictionary(part / "dictionary.json", export, rows)
        part.rename(export.out)
    except BaseException:
        # Half of a table is of no use to anybody, and may hold identities.
        shutil.rmtree(part, ignore_errors=True)
        raise
    return rows


async def _written(
    store: Store, site: Settings, export: Export, mask: Mask, folder: Path, tell: Tell
) -> Mapping[str, int]:
    names = _FeatureNames(tuple(each for each in (site.bundles, site.bundle_archive) if each is not None))
    packets = 0
    with ExitStack() as stack:
        tables = {
            name: stack.enter_context(
                _Table(folder / f"{name}.parquet", columns_of(name, identified=export.identified))
            )
            for name in TABLES
        }
        for model_id in await store.model_ids():
            after: str | None = None
            while page := await store.packets(
                model_id=model_id, after=after, limit=_PAGE, since=export.since, until=export.until
            ):
                after = page[-1].packet_id
                async for packet, belongings in with_belongings(store, page):
                    if is_forgotten(packet):
                        continue
                    patient_hash = packet.patient_hash or derive_patient_hash(site.id_key, packet.subject.patient_id)
                    for name, row in rows_of(
                        packet, belongings, patient_hash=patient_hash, mask=mask, names=names.of(packet)
                    ):
                        tables[name].add(row)
                    packets += 1
                tell(packets, packets)
    return {name: table.rows for name, table in tables.items()}


def columns_of(table: str, *, identified: bool) -> tuple[Column, ...]:
    """Give the columns that a table of an export has."""
    return tuple(column for column in TABLES[table] if identified or not column.identified)


class _Table:
    """One Parquet file that grows by row groups."""

    def __init__(self, file: Path, columns: tuple[Column, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {
            "string": pa.string(),
            "float64": pa.float64(),
            "int64": pa.int64(),
            "bool": pa.bool_(),
            "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"),
        }
        self._schema = pa.schema(
            [pa.field(each.name, kinds[each.kind], metadata={"meaning": each.meaning}) for each in columns]
        )
        self._writer: pq.ParquetWriter = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: dict[str, list[Any]] = {each.name: [] for each in columns}
        self.rows = self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: Row) -> None:
        """Add a row, or several at once; what has no column is left out: the schema says what leaves the store."""
        count = next((len(each) for each in row.values() if isinstance(each, tuple | list)), 1)
        for name, values in self._waiting.items():
            value = row.get(name)
            values.extend(value if isinstance(value, tuple | list) else [value] * count)
        self.rows += count
        if self.rows - self._written >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self.rows > self._written:
            self._writer.write_table(pa.table(self._waiting, schema=self._schema))
            self._waiting = {name: [] for name in self._waiting}
            self._written = self.rows


class _FeatureNames:
    """The names of columns by the digest of the declaration and their number, from the bundles of a site."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._names: dict[tuple[str, int], tuple[str, ...]] | None = None

    def of(self, packet: InferencePacket) -> tuple[str, ...] | None:
        """Give the names of the packet's features in order; None where no bundle here has its declaration."""
        if not isinstance(packet.outcome, Scored):
            return None
        if self._names is None:
            self._names = dict(self._read())
        return self._names.get((packet.outcome.vector.spec_sha256, packet.outcome.vector.size))

    def _read(self) -> list[tuple[tuple[str, int], tuple[str, ...]]]:
        found = []
        for folder in self._folders:
            for file in sorted(folder.rglob(FEATURES_FILE)):
                try:
                    spec, beside = parse_feature_spec(file.read_bytes()), file.with_name(DOCUMENTS_FILE)
                    names = column_names(spec, parse_documents(beside.read_bytes(), spec) if beside.exists() else None)
                except ValueError:
                    continue
                found.append(((spec.digest(), len(names)), names))
        return found


def _key(file: Path | None) -> bytes:
    if file is None:
        return secrets.token_bytes(32)
    key = file.read_bytes().strip()
    if len(key) < 16:
        raise CommandFailed(f"--key-file: {file}: expected a secret of 16 bytes or more")
    return key


def _write_dictionary(file: Path, export: Export, rows: Mapping[str, int]) -> None:
    if export.identified:
        about = "Identified: FHIR ids, clinicians' words and true instants. Handle it as the record itself."
    else:
        about = (
            "De-identified: ids are hashed under a key of this export's, and each patient's instants are shifted back"
            " by the same 1 to 52 whole weeks. Features and rare combinations may still single somebody out."
        )
    tables = {
        name: {
            "rows": rows[name],
            "columns": {
                column.name: {"type": column.kind, "meaning": column.meaning}
                for column in columns_of(name, identified=export.identified)
            },
        }
        for name in TABLES
    }
    file.write_text(json.dumps({"about": about, "tables": tables}, indent=2) + "\n", encoding="utf-8")

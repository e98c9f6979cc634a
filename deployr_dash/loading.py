"""Reads an extract: packets as pandas, features as sparse rows, and what the models' bundles say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, Manifest, parse_manifest
from deployr_core.concepts import concepts_of
from deployr_core.documents import DOCUMENTS_FILE, Documents, column_groups, column_names, parse_documents
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_dash.frames import FEATURES_SCHEMA, PACKETS_SCHEMA, expect_columns
from deployr_dash.parts import MODELS, Part, on_current_parts, read_index
from deployr_dash.readings import SparseFeatures

_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """What a bundle says of its model; packets name it by ``bundle_sha256``. ``documents``: None where it has none."""

    bundle_sha256: str
    manifest: Manifest
    spec: FeatureSpec
    documents: Documents | None = None


def load_frame(
    folder: Path,
    *,
    model: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Give packets, a row each; what does not apply is missing.

    Words are categoricals; whole numbers and truths are of pandas' types that know what is missing, whether or not
    anything is; instants are in UTC.

    Args:
        folder: the extract's.
        model: only this one; None gives all.
        since: packets that were received from here on.
        until: and before this instant.
        columns: which of `deployr_dash.frames.PACKETS`, in this order; None gives all. What is not asked for is not
            read: ask for little.

    Raises:
        ExtractMissing: there is no extract.
        ValueError: a column that there is not.
    """
    wanted = PACKETS_SCHEMA.names if columns is None else list(expect_columns(columns))
    schema = pa.schema([PACKETS_SCHEMA.field(name) for name in wanted])

    def read(parts: Sequence[Part]) -> pa.Table:
        return _read(folder, parts, schema, since=since, until=until)

    table = on_current_parts(folder, lambda index: read([p for p in index.packets if model in {None, p.model_id}]))
    return table.to_pandas(types_mapper=_PANDAS.get, self_destruct=True, split_blocks=True)


def load_features(
    folder: Path, *, model: str, version: str, since: datetime | None = None, until: datetime | None = None
) -> SparseFeatures:
    """Give the features that one version of a model scored, of packets received in ``[since, until)``.

    Raises:
        ExtractMissing: there is no extract.
    """

    def read(parts: Sequence[Part]) -> pa.Table:
        return _read(folder, parts, FEATURES_SCHEMA, since=since, until=until)

    table = on_current_parts(
        folder,
        lambda index: read([p for p in index.features if (p.model_id, p.version) == (model, version)]),
    ).combine_chunks()
    index, value = (_one(table[name]) for name in ("index", "value"))
    starts = np.concatenate(([0], np.cumsum(pc.list_value_length(index).to_numpy(zero_copy_only=False))))
    # A shadow goes by its run's id; its bundle is its model's.
    known = [each for each in load_models(folder) if each.manifest.version == version]
    of = next((each for each in known if each.manifest.model_id == model), known[0] if known else None)
    return SparseFeatures(
        rows=table["row"].to_numpy(),
        received_at=table["received_at"].to_numpy(),
        starts=starts.astype(np.int64),
        columns=index.flatten().to_numpy(),
        values=value.flatten().to_numpy(),
        names=() if of is None else column_names(of.spec, of.documents),
        groups=() if of is None else column_groups(of.spec, of.documents),
        concepts=() if of is None else concepts_of(of.spec, of.documents).of_feature,
    )


def load_models(folder: Path) -> tuple[ModelFiles, ...]:
    """Give what the bundles say that had packets when they were extracted, in order of model, then of version."""
    found = []
    for place in sorted((folder / MODELS).glob("*")):
        try:
            manifest = parse_manifest((place / MANIFEST_FILE).read_bytes())
            spec = parse_feature_spec((place / FEATURES_FILE).read_bytes())
            takes_any = DOCUMENTS_FILE in manifest.parts
            documents = parse_documents((place / DOCUMENTS_FILE).read_bytes(), spec) if takes_any else None
        except FileNotFoundError:
            continue
        found.append(ModelFiles(bundle_sha256=place.name, manifest=manifest, spec=spec, documents=documents))
    return tuple(sorted(found, key=lambda each: (each.manifest.model_id, each.manifest.version)))


def extracted_at(folder: Path, packets: pd.DataFrame) -> datetime:
    """Give when the extract was made: labels that were not ripe by then do not count.

    Where no run has been through yet, when the newest of these packets, at least one, was received.

    Raises:
        ExtractMissing: there is no extract.
    """
    made = read_index(folder).extracted_at
    if made is not None:
        return made
    newest: datetime = packets["received_at"].max().to_pydatetime()
    return newest


def _read(
    folder: Path, parts: Sequence[Part], schema: pa.Schema, *, since: datetime | None, until: datetime | None
) -> pa.Table:
    tables = [schema.empty_table()]
    for part in parts:
        if (since is not None and part.last < since) or (until is not None and part.first >= until):
            continue
        cuts = (since is not None and part.first < since) or (until is not None and part.last >= until)
        names = [*schema.names, *(["received_at"] if cuts and "received_at" not in schema.names else [])]
        table = pq.read_table(folder / part.file, columns=names)
        if cuts:
            table = table.filter(_is_within(table["received_at"], since=since, until=until))
        tables.append(table.select(schema.names))
    return pa.concat_tables(tables).unify_dictionaries()


def _is_within(instants: pa.ChunkedArray, *, since: datetime | None, until: datetime | None) -> pa.ChunkedArray:
    after = pc.is_valid(instants) if since is None else pc.greater_equal(instants, pa.scalar(since, instants.type))
    return after if until is None else pc.and_(after, pc.less(instants, pa.scalar(until, instants.type)))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)

"""The settings of batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deployr_serve.auth_settings import Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSettings:
    """``folder``: the declarations. ``queue``: where chunks wait, as the host's queue trigger is told.

    ``database``: of SQL reports, ``MODULE:DSN``.
    """

    folder: Path | None
    queue: str | None = field(repr=False)
    database: str | None = field(repr=False)


def read_batch_settings(reader: Reader) -> BatchSettings:
    """Read them; what is wrong is complained of by the reader."""
    queue = reader.read("AzureWebJobsStorage", str, default=None)
    # Without a key in the settings, the app's own identity is let in at this address.
    address = reader.read("AzureWebJobsStorage__queueServiceUri", str, default=None)
    return BatchSettings(
        folder=reader.read("DEPLOYR_BATCHES", Path, default=None),
        queue=queue or address,
        database=reader.read("DEPLOYR_BATCH_DATABASE", str, default=None),
    )

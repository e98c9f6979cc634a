"""A way out into a folder, for a job of the site's that files scores by itself."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Mapping
from pathlib import Path

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import EmrUnreachable
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Budget
from deployr_serve.outputs.declared import FileFormat
from deployr_serve.outputs.event_record import event_record
from deployr_serve.outputs.file_drop import render_csv


class FileDrop:
    """Leaves one file for each delivery.

    It is written beside under a name that begins with a dot, forced to the disk, and renamed: whoever lists the folder
    sees a whole file or none. Its name is the delivery's id, a keyed hash; what is in it is about a patient, so that
    only our own user may read it unless the folder says otherwise.
    """

    name = "file-drop"

    def __init__(self, folder: Path, *, policies: Policies, file_format: FileFormat) -> None:
        """Write into a folder.

        Raises:
            ImportError: Parquet is asked for, and pyarrow is not installed.
        """
        self._folder = folder
        self._policies = policies
        self._format = file_format
        if file_format is FileFormat.PARQUET:
            import pyarrow.parquet  # noqa: F401 to find out at the start and not at the first score

    async def send(
        self,
        packet: InferencePacket,
        bundle: Bundle,
        *,
        delivery_id: str,
        budget: Budget | None = None,  # noqa: ARG002 the port's
    ) -> None:
        """Write one file; see `deployr_serve.core.ports.Output`. A repeat replaces it by the same bytes."""
        policy = self._policies.of(packet.model.model_id)
        if self._format is FileFormat.CSV:
            content = render_csv(packet, bundle.manifest, policy=policy, delivery_id=delivery_id)
        else:
            content = _parquet(event_record(packet, bundle.manifest, policy=policy, delivery_id=delivery_id))
        try:
            await asyncio.to_thread(_replace, self._folder / f"{delivery_id}.{self._format}", content)
        except OSError as error:
            raise EmrUnreachable(f"expected the folder to take the file, got {error.strerror}") from None


def _parquet(record: Mapping[str, str | int | float | None]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {"version": pa.int32(), "score": pa.float64()}
    # Spelt out, because a column without any value in it would get a type of its own.
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in record])
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(record)], schema=schema), content)
    return content.getvalue()


def _replace(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)

"""The settings of the spool: where packets wait while the store is down, and who may be shown what before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import plain_url

CHANNELS = ("json", "bpa")
"""Where somebody waits for an answer that can be given without the store. CDS Hooks is not among them: whether a
caller's token was used before, only the store knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolSettings:
    """``where``: a file, or the connection string or address of a storage account's queues.

    ``shows``: the channels that are answered in full while the packet is in the spool only.
    """

    where: Path | str = field(repr=False)
    shows: frozenset[str]


def read_spool(reader: Reader) -> SpoolSettings | None:
    """Read them; None where nothing is kept while the store is down."""
    where = reader.read("DEPLOYR_SPOOL", _where, default=None)
    shows: frozenset[str] = reader.read("DEPLOYR_SHOW_WITHOUT_STORED_PACKET", _channels, default=frozenset())
    if where is None:
        if shows:
            reader.problems.setdefault("DEPLOYR_SPOOL", "expected where packets wait that are shown without a store")
        return None
    return SpoolSettings(where=where, shows=shows)


def _where(text: str) -> Path | str:
    kind, _, path = text.partition(":")
    if kind == "sqlite" and path:
        return Path(path)
    if "AccountKey=" in text or text.rstrip(";").lower() == "usedevelopmentstorage=true":
        return text
    if text.startswith("https://") and ".queue." in text:
        return plain_url(text).rstrip("/")
    raise ValueError(
        "expected sqlite: and the path of a file, a storage connection string, or the https address of its queues"
    )


def _channels(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(","))
    if not names <= set(CHANNELS):
        raise ValueError(f"expected some of {', '.join(CHANNELS)}, with commas between")
    return names

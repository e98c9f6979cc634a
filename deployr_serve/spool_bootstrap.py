"""Opens the spool that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock
from deployr_serve.core.spool import Spool
from deployr_serve.core.without_store import Spooling
from deployr_serve.spool_settings import SpoolSettings


class OpenSpool(Spool, Protocol):
    """A spool that can be let go of."""

    async def aclose(self) -> None:
        """Close files and connections."""


def open_spool(settings: SpoolSettings | None) -> OpenSpool | None:
    """Give the spool; nothing is opened or connected to before it is used.

    Raises:
        SettingsInvalid: the packages that it needs are not installed.
    """
    if settings is None:
        return None
    if isinstance(settings.where, Path):
        from deployr_serve.adapters.spool_sqlite import SqliteSpool

        return SqliteSpool(settings.where)
    try:
        from deployr_serve.adapters.spool_queue import open_queue_spool
    except ImportError:
        expected = "expected the packages of deployr[azure] for a spool in an Azure Storage queue"
        raise SettingsInvalid(f"settings: DEPLOYR_SPOOL: {expected}") from None
    try:
        return open_queue_spool(settings.where)
    except ValueError:
        # Its message may repeat the account's key.
        raise SettingsInvalid("settings: DEPLOYR_SPOOL: expected a storage connection string") from None


def spooling_of(spool: Spool | None, settings: SpoolSettings | None, *, clock: Clock) -> Spooling | None:
    """Give the spool as requests use it."""
    if spool is None or settings is None:
        return None
    return Spooling(spool=spool, clock=clock, shows=settings.shows)

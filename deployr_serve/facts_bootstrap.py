"""Opens the facts vault that the settings name."""

from __future__ import annotations

from typing import Protocol

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.facts_kept import FactsVault
from deployr_serve.facts_settings import FactsSettings

_OF_DEADLINE = 0.3
"""Which share of a request's deadline one call may take."""


class Vault(FactsVault, Protocol):
    """A vault, and how to let go of it."""

    async def aclose(self) -> None:
        """Close files and connections."""


def open_vault(settings: FactsSettings, *, deadline_s: float) -> Vault:
    """Give the vault; nothing is opened or connected to before it is used.

    Args:
        settings: where it is.
        deadline_s: the whole of a request.

    Raises:
        SettingsInvalid: the packages that it needs are not installed.
    """
    if settings.file is not None:
        from deployr_serve.adapters.facts_vault_sqlite import SqliteFactsVault

        return SqliteFactsVault(settings.file, keys=settings.keys)
    where = settings.blobs or ""
    try:
        from azure.identity.aio import DefaultAzureCredential

        from deployr_serve.adapters.blob_bodies import blob_container
        from deployr_serve.adapters.facts_vault_blob import CONTAINER, BlobFactsVault
    except ImportError:
        expected = "expected the packages of deployr[azure] for a vault in Azure Storage"
        raise SettingsInvalid(f"settings: DEPLOYR_FACTS_VAULT: {expected}") from None
    options = {} if settings.identity is None else {"managed_identity_client_id": settings.identity}
    credential = None if ";" in where else DefaultAzureCredential(**options)
    container = blob_container(where, credential=credential, within_s=_OF_DEADLINE * deadline_s, container=CONTAINER)
    return BlobFactsVault(container, keys=settings.keys, credential=credential)

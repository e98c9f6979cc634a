"""A private key that lives in Azure Key Vault, and may be rotated there while we run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from deployr_serve.adapters.client_keys import ClientKey, KeyUnusable, published
from deployr_serve.adapters.jwks import PublishedKey
from deployr_serve.adapters.token_cache import Flights
from deployr_serve.core.ports import Clock

if TYPE_CHECKING:
    from azure.keyvault.secrets import KeyVaultSecret

REREAD_S = 900.0
_AT_LEAST_BETWEEN_S = 30.0
_log = logging.getLogger(__name__)


class VaultUnavailable(Exception):
    """The secret could not be read now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A secret as the vault gives it; ``expires_on`` is aware, None where it has no end."""

    value: str = field(repr=False)
    expires_on: datetime | None


class SecretReader(Protocol):
    """The one method of ``azure.keyvault.secrets.SecretClient`` that is used."""

    def get_secret(self, name: str, version: str | None = None, **options: Any) -> KeyVaultSecret:
        """Read a secret; None is its newest version."""


def secret_client(url: str) -> SecretReader:
    """Give the client of the vault that a secret's URL names. Identity is the environment's: a managed one in Azure.

    Raises:
        ImportError: the packages of the extra ``azure`` are not installed.
    """
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.secrets import SecretClient

    parts = urlsplit(url)
    return SecretClient(
        f"{parts.scheme}://{parts.netloc}",
        DefaultAzureCredential(),
        connection_timeout=3,
        read_timeout=5,
        retry_total=1,
    )


def read_secret(url: str, client: SecretReader) -> Secret:
    """Read the secret at ``https://VAULT/secrets/NAME``, or the one version of it that a further part names.

    Raises:
        VaultUnavailable: it could not be read; nothing of the answer is repeated.
    """
    from azure.core.exceptions import AzureError

    name, _, version = urlsplit(url).path.removeprefix("/secrets/").strip("/").partition("/")
    try:
        secret = client.get_secret(name, version or None)
    except AzureError as error:
        raise VaultUnavailable(f"expected to read the secret from the vault, got {type(error).__name__}") from None
    return Secret(value=secret.value or "", expires_on=secret.properties.expires_on)


class VaultKey:
    """The newest version of a secret, read again every quarter of an hour, when it expires, and when it is refused.

    A vault that is down, or a new version that is no key, costs nothing but a log line: the key that is held goes on.
    Keys that were held before stay published.

    Args:
        read: reads the secret; it may block, and runs in a thread.
        parse: makes the key of a secret's text, and raises KeyUnusable.
        clock: says when to read again.
        old: public keys of earlier processes.

    Raises:
        VaultUnavailable, KeyUnusable: there is no key to start with.
    """

    def __init__(
        self,
        read: Callable[[], Secret],
        *,
        parse: Callable[[str], ClientKey],
        clock: Clock,
        old: tuple[PublishedKey, ...] = (),
    ) -> None:
        self._read = read
        self._parse = parse
        self._clock = clock
        self._flights = Flights()
        secret = read()
        self._key = parse(secret.value)
        self._published = (published(self._key), *old)
        self._read_at = clock.monotonic()
        self._due_at = self._next_read(secret)

    def current(self) -> ClientKey:
        """Give the key that is held; where it is time, read the vault in the background."""
        if self._clock.monotonic() >= self._due_at:
            self._flights.start("vault", self._reread)
        return self._key

    async def reread(self) -> ClientKey:
        """Give the key after reading the vault, which is not done more often than twice a minute."""
        if self._clock.monotonic() >= self._read_at + _AT_LEAST_BETWEEN_S:
            await self._flights.join("vault", self._reread)
        return self._key

    def published(self) -> tuple[PublishedKey, ...]:
        """Give every key that was held, the newest first, and the old ones."""
        return self._published

    async def _reread(self) -> None:
        self._read_at = self._clock.monotonic()
        self._due_at = self._read_at + REREAD_S
        try:
            secret = await asyncio.to_thread(self._read)
            key = self._parse(secret.value)
        except (VaultUnavailable, KeyUnusable) as error:
            _log.error("key vault: the key that is held goes on: %s", error)
            return
        self._due_at = self._next_read(secret)
        if key.key_id != self._key.key_id:
            self._key = key
            self._published = (published(key), *self._published)
            _log.warning("key vault: the key was rotated, its id is now %s", key.key_id)

    def _next_read(self, secret: Secret) -> float:
        left_s = REREAD_S
        if secret.expires_on is not None:
            ahead_s = (secret.expires_on - self._clock.now()).total_seconds()
            # A secret that has expired and was not replaced is no reason to ask on every request.
            left_s = min(REREAD_S, ahead_s) if ahead_s > 0 else REREAD_S
        return self._clock.monotonic() + left_s

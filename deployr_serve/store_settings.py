"""The settings of the store: where packets, deliveries, labels and shared records are kept."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import plain_url


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """Nothing survives the process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InFile:
    """One SQLite file, shared by the processes of one machine."""

    file: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class InCosmos:
    """A database of an Azure Cosmos DB account (API for NoSQL), and a blob container for what is too large for it.

    ``key``: of the account; None lets the app's own identity in. ``blobs``: a storage connection string, or the
    address of a storage account, where the app's own identity is let in. ``identity``: the client id of a
    user-assigned identity; None takes the system-assigned one, or whoever is logged in on a developer's machine.
    """

    address: str
    database: str
    key: str | None = field(repr=False)
    blobs: str = field(repr=False)
    identity: str | None


StoreSettings = InMemory | InFile | InCosmos


def read_store(reader: Reader) -> StoreSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    unset: StoreSettings = InMemory()
    where = reader.read("DEPLOYR_STORE", _store, default=unset)
    database = reader.read("DEPLOYR_STORE_DATABASE", _database, default="deployr")
    key = reader.read("DEPLOYR_STORE_KEY", _account_key, default=None)
    identity = reader.read("DEPLOYR_STORE_IDENTITY", str, default=None)
    if not isinstance(where, InCosmos):
        reader.read("DEPLOYR_STORE_BLOBS", _blobs, default=None)
        return where
    blobs = reader.read("DEPLOYR_STORE_BLOBS", _blobs)
    return InCosmos(address=where.address, database=database, key=key, blobs=blobs, identity=identity)


def store_too_weak_for_production(settings: StoreSettings) -> dict[str, str]:
    """Give what the prod profile does not take, by the setting's name."""
    match settings:
        case InMemory():
            return {"DEPLOYR_STORE": "expected a durable store in the prod profile"}
        case InCosmos(address=address) if not address.startswith("https://"):
            return {"DEPLOYR_STORE": "expected https in the prod profile"}
        case InCosmos(blobs=blobs) if blobs and ("http://" in blobs or "protocol=http;" in blobs.lower()):
            return {"DEPLOYR_STORE_BLOBS": "expected https in the prod profile"}
    return {}


def _store(text: str) -> StoreSettings:
    if text == "memory":
        return InMemory()
    kind, _, place = text.partition(":")
    if kind == "sqlite" and place:
        return InFile(file=Path(place))
    if kind == "cosmos" and place:
        return InCosmos(address=plain_url(place).rstrip("/"), database="", key=None, blobs="", identity=None)
    raise ValueError("expected memory, sqlite: and the path of a file, or cosmos: and the address of an account")


def _database(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 60:
        raise ValueError("expected the database's name: up to 60 letters, digits, hyphens or underscores")
    return text


def _account_key(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected the account's key, in base64") from None
    return text


def _blobs(text: str) -> str:
    expected = "expected a storage connection string, or the blob address of a storage account"
    parts = dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
    if "AccountKey" in parts and ("AccountName" in parts) and ({"EndpointSuffix", "BlobEndpoint"} & set(parts)):
        return text
    try:
        return plain_url(text).rstrip("/")
    except ValueError:
        raise ValueError(expected) from None

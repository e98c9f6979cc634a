"""The settings of CDS Hooks: who may call, and the address at which they call us."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from deployr_serve.auth_settings import Reader
from deployr_serve.core.caller import CdsClient
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.setting_values import plain_url

SANDBOX_ISSUER = "https://sandbox.cds-hooks.org"
"""Whose keys anybody can use. Source: https://sandbox.cds-hooks.org [secondary]."""


class _Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: str
    tenant: str | None = None
    jwks_url: str | None = None
    jwks_file: str | None = None


class _Clients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    clients: tuple[_Client, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsSettings:
    """``clients``: None lets anybody call, which the prod profile does not: there the routes do not exist without any.

    ``public_base``: what clients call us, without a slash at its end, behind whatever gateways there are.
    """

    clients: tuple[CdsClient, ...] | None
    public_base: str | None


def read_cds(reader: Reader) -> CdsSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    settings = CdsSettings(
        clients=reader.read("DEPLOYR_CDS_CLIENTS", _clients, default=None),
        public_base=reader.read("DEPLOYR_PUBLIC_BASE", _base, default=None),
    )
    if settings.clients is not None and not reader.has("DEPLOYR_PUBLIC_BASE"):
        expected = "expected the address that CDS clients call us by, which their tokens must name"
        reader.problems.setdefault("DEPLOYR_PUBLIC_BASE", expected)
    return settings


def cds_too_weak_for_production(cds: CdsSettings) -> dict[str, str]:
    """Say by the setting's name what is only good enough for trying out."""
    problems = {}
    clients = cds.clients or ()
    if any(client.issuer.rstrip("/").lower() == SANDBOX_ISSUER for client in clients):
        problems["DEPLOYR_CDS_CLIENTS"] = "the public sandbox has no place in the prod profile"
    elif any(client.jwks_url is not None and not client.jwks_url.startswith("https://") for client in clients):
        problems["DEPLOYR_CDS_CLIENTS"] = "expected each jwks_url to be https in the prod profile"
    if clients and not (cds.public_base or "https://").startswith("https://"):
        problems["DEPLOYR_PUBLIC_BASE"] = "expected https in the prod profile"
    return problems


def _clients(text: str) -> tuple[CdsClient, ...]:
    file = Path(text)
    try:
        # Read strictly first: a client that is written twice over must not lose its pinned keys.
        read = msgspec.convert(parse_object(file.read_bytes()), _Clients)
    except OSError:
        raise ValueError("expected a JSON file that can be read") from None
    except (NotOneObject, msgspec.ValidationError) as error:
        raise ValueError(
            f'expected a file such as {{"clients": [{{"issuer": ..., "jwks_url": ...}}]}}: {error}'
        ) from None
    clients = tuple(_client(client, folder=file.parent) for client in read.clients)
    if not clients:
        raise ValueError("expected at least one client")
    if len({(client.issuer, client.tenant) for client in clients}) != len(clients):
        raise ValueError("expected each issuer and tenant once")
    return clients


def _client(written: _Client, *, folder: Path) -> CdsClient:
    client = CdsClient(
        issuer=written.issuer, tenant=written.tenant, jwks_url=written.jwks_url, jwks_file=written.jwks_file
    )
    if not client.issuer or client.tenant == "":
        raise ValueError("expected each client's issuer, and a tenant that is not empty where there is one")
    if (client.jwks_url is None) == (client.jwks_file is None):
        raise ValueError("expected each client's jwks_url or its jwks_file")
    if client.jwks_url is not None:
        plain_url(client.jwks_url)
        return client
    pinned = folder / (client.jwks_file or "")
    if not pinned.is_file():
        raise ValueError("expected each jwks_file beside the clients' file, and readable")
    return replace(client, jwks_file=str(pinned))


def _base(text: str) -> str:
    return plain_url(text).rstrip("/")

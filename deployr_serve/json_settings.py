"""The settings of the JSON routes: who may call them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from deployr_core.bundle import MODEL_ID
from deployr_serve.auth_settings import Reader
from deployr_serve.core.caller import CdsClient
from deployr_serve.core.json_caller import ALL_MODELS, CERTIFICATE_HEADER, EntraTenant, Gateway, JsonCaller
from deployr_serve.core.strict_json import NotOneObject, parse_object

SHORTEST_SECRET = 16
CALLER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_THUMBPRINT = re.compile(r"[0-9a-f]{64}\Z")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_TAKEN_HEADERS = {"authorization", CERTIFICATE_HEADER.lower()}


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Caller(_Written, frozen=True, kw_only=True):
    name: str
    models: tuple[str, ...]
    password: str | None = None
    tenant: str | None = None
    application: str | None = None
    role: str | None = None
    certificate_sha256: str | None = None


class WrittenTenant(_Written, frozen=True, kw_only=True):
    """A tenant of Entra ID as a file of callers names it."""

    tenant: str
    audience: str
    jwks_file: str | None = None


class _Gateway(_Written, frozen=True, kw_only=True):
    header: str
    secret: str


class _Callers(_Written, frozen=True, kw_only=True):
    callers: tuple[_Caller, ...]
    tenants: tuple[WrittenTenant, ...] = ()
    gateway: _Gateway | None = None
    per_second: float = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonSettings:
    """``per_s``: how many requests a second each caller may make."""

    callers: tuple[JsonCaller, ...]
    tenants: tuple[EntraTenant, ...]
    gateway: Gateway | None = field(repr=False)
    per_s: float


def read_json_callers(reader: Reader) -> JsonSettings | None:
    """Read them; None where nobody is listed: then anybody may call, which the prod profile does not allow.

    What is wrong stands in the reader's problems afterwards.
    """
    return reader.read("DEPLOYR_JSON_CALLERS", _callers, default=None)


def json_too_weak_for_production(json: JsonSettings | None) -> dict[str, str]:
    """Say by the setting's name what is only good enough for trying out."""
    return {} if json else {"DEPLOYR_JSON_CALLERS": "expected a file of who may call, in the prod profile"}


def read_tenant(written: WrittenTenant, *, folder: Path) -> EntraTenant:
    """Give a tenant, its key set beside the file that names it or where Entra ID publishes it.

    Raises:
        ValueError: no tenant, or no such key set.
    """
    if not GUID.match(written.tenant) or not written.audience:
        raise ValueError("expected each tenant as a lower-case GUID, and the audience that its tokens name")
    login = f"https://login.microsoftonline.com/{written.tenant}"
    pinned = None if written.jwks_file is None else folder / written.jwks_file
    if pinned is not None and not pinned.is_file():
        raise ValueError("expected each jwks_file beside the callers' file, and readable")
    keys = CdsClient(
        issuer=f"{login}/v2.0",
        jwks_url=f"{login}/discovery/v2.0/keys" if pinned is None else None,
        jwks_file=None if pinned is None else str(pinned),
    )
    return EntraTenant(tenant=written.tenant, audience=written.audience, keys=keys)


def _callers(text: str) -> JsonSettings | None:
    file = Path(text)
    try:
        read = msgspec.convert(parse_object(file.read_bytes()), _Callers)
    except OSError:
        raise ValueError("expected a JSON file that can be read") from None
    except (NotOneObject, msgspec.ValidationError) as error:
        raise ValueError(
            f'expected a file such as {{"callers": [{{"name": ..., "models": [...]}}]}}: {error}'
        ) from None
    tenants = tuple(read_tenant(tenant, folder=file.parent) for tenant in read.tenants)
    callers = tuple(
        _caller(caller, tenants={each.tenant for each in tenants}, gateway=read.gateway) for caller in read.callers
    )
    if not callers:
        raise ValueError("expected at least one caller")
    if len({caller.name for caller in callers}) != len(callers):
        raise ValueError("expected each caller's name once")
    if len({tenant.tenant for tenant in tenants}) != len(tenants):
        raise ValueError("expected each tenant once")
    proofs = [
        (caller.tenant, caller.application, caller.certificate_sha256) for caller in callers if not caller.password
    ]
    if len(set(proofs)) != len(proofs):
        raise ValueError("expected each application and each certificate once")
    if not 0.01 <= read.per_second <= 10_000:
        raise ValueError("per_second: expected 0.01 to 10000")
    gateway = None if read.gateway is None else _gateway(read.gateway)
    return JsonSettings(callers=callers, tenants=tenants, gateway=gateway, per_s=read.per_second)


def _caller(written: _Caller, *, tenants: set[str], gateway: _Gateway | None) -> JsonCaller:
    if not CALLER_NAME.match(written.name):
        raise ValueError("expected each caller's name in up to 64 letters, digits, dots, hyphens or underscores")
    of = f"caller {written.name}"
    if not written.models or not all(model == ALL_MODELS or MODEL_ID.match(model) for model in written.models):
        raise ValueError(f'{of}: expected the ids of its models, or ["*"] for all')
    if sum(proof is not None for proof in (written.password, written.application, written.certificate_sha256)) != 1:
        raise ValueError(f"{of}: expected one of password, application and certificate_sha256")
    if written.password is not None and len(written.password) < SHORTEST_SECRET:
        raise ValueError(f"{of}: expected a password of at least {SHORTEST_SECRET} characters")
    if (written.application is None) != (written.tenant is None) or (written.role and not written.application):
        raise ValueError(f"{of}: expected tenant with application, and role only with them")
    if written.application is not None and (not GUID.match(written.application) or written.tenant not in tenants):
        raise ValueError(f"{of}: expected application as a lower-case GUID, and its tenant among the tenants")
    if written.role == "":
        raise ValueError(f"{of}: expected a role that is not empty where there is one")
    if written.certificate_sha256 is not None and (
        gateway is None or not _THUMBPRINT.match(written.certificate_sha256)
    ):
        raise ValueError(f"{of}: expected certificate_sha256 as 64 lower-case hex digits, and a gateway")
    return JsonCaller(
        name=written.name,
        models=frozenset(written.models),
        password=written.password,
        tenant=written.tenant,
        application=written.application,
        role=written.role,
        certificate_sha256=written.certificate_sha256,
    )


def _gateway(written: _Gateway) -> Gateway:
    if not _HEADER.match(written.header) or written.header.lower() in _TAKEN_HEADERS:
        raise ValueError("gateway: expected the name of a header of its own")
    if len(written.secret) < SHORTEST_SECRET:
        raise ValueError(f"gateway: expected a secret of at least {SHORTEST_SECRET} characters")
    return Gateway(header=written.header, secret=written.secret)

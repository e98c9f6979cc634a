"""The settings of the registry: whether what is shown goes by it, and whom it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from deployr_core.bundle import MODEL_ID
from deployr_core.registry.journal import JournalKeys
from deployr_core.registry.roles import Role
from deployr_core.signing import KeyUnusable, SigningKey, TrustedKey, signing_key, trusted_key
from deployr_serve.auth_settings import Reader
from deployr_serve.core.json_caller import EntraTenant
from deployr_serve.core.registry_people import ListedPerson
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.json_settings import CALLER_NAME, GUID, SHORTEST_SECRET, WrittenTenant, read_tenant
from deployr_serve.setting_values import existing_file, lines_of_pem

_PEM = "-----BEGIN"


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Person(_Written, frozen=True, kw_only=True):
    name: str
    roles: tuple[Role, ...] = ()
    login: str | None = None
    password: str | None = None
    tenant: str | None = None
    object_id: str | None = None
    only: dict[Role, tuple[str, ...]] = {}


class _File(_Written, frozen=True, kw_only=True):
    people: tuple[_Person, ...]
    tenants: tuple[WrittenTenant, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """Whom the registry knows, and the tenants whose tokens it takes."""

    people: tuple[ListedPerson, ...]
    tenants: tuple[EntraTenant, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrySettings:
    """``is_required``: only what the registry let go live is shown. ``people``: None where nobody is listed.

    ``journal_keys``: what entries of journals are signed with, and whose signatures count.
    """

    is_required: bool
    people: People | None
    journal_keys: JournalKeys


def read_registry(reader: Reader, *, is_prod: bool) -> RegistrySettings:
    """Read them; what is wrong stands in the reader's problems afterwards.

    In the prod profile what is shown goes by the registry, if the site does not say otherwise.
    """
    signing: SigningKey | None = reader.read("DEPLOYR_JOURNAL_KEY", _signing_key, default=None)
    trusted: tuple[TrustedKey, ...] = reader.read("DEPLOYR_JOURNAL_TRUSTED_KEYS", _trusted_keys, default=())
    own = () if signing is None else (signing.public,)
    return RegistrySettings(
        is_required=reader.read("DEPLOYR_REGISTRY", _is_required, default=is_prod),
        people=reader.read("DEPLOYR_REGISTRY_PEOPLE", _people, default=None),
        journal_keys=JournalKeys(signing=signing, trusted=(*own, *trusted)),
    )


def _is_required(text: str) -> bool:
    if text not in {"required", "off"}:
        raise ValueError("expected required or off")
    return text == "required"


def _signing_key(text: str) -> SigningKey:
    """Read the key from the text itself, as a vault gives it, or from the file that the text names."""
    pem = lines_of_pem(text).encode() if _PEM in text else existing_file(text).read_bytes()
    try:
        return signing_key(pem)
    except KeyUnusable as error:
        raise ValueError(f"{error}, or the path of its file; `deployr bundle keygen` makes one") from None


def _trusted_keys(text: str) -> tuple[TrustedKey, ...]:
    try:
        return tuple(trusted_key(existing_file(part.strip()).read_bytes()) for part in text.split(","))
    except KeyUnusable as error:
        raise ValueError(f"{error}, in each of these files") from None


def _people(text: str) -> People:
    file = Path(text)
    try:
        read = msgspec.convert(parse_object(file.read_bytes()), _File, strict=False)
    except OSError:
        raise ValueError("expected a JSON file that can be read") from None
    except (NotOneObject, msgspec.ValidationError) as error:
        raise ValueError(
            f'expected a file such as {{"people": [{{"name": ..., "roles": ["developer"]}}]}}: {error}'
        ) from None
    tenants = tuple(read_tenant(tenant, folder=file.parent) for tenant in read.tenants)
    people = tuple(_person(person, tenants={tenant.tenant for tenant in tenants}) for person in read.people)
    if not people:
        raise ValueError("expected at least one person")
    for what, found in (
        ("name", [person.name.casefold() for person in people]),
        ("login", [person.login for person in people if person.login is not None]),
        ("object_id", [(person.tenant, person.object_id) for person in people if person.object_id is not None]),
    ):
        if len(set(found)) != len(found):
            raise ValueError(f"expected each {what} once: one person has one name")
    return People(people=people, tenants=tenants)


def _person(written: _Person, *, tenants: set[str]) -> ListedPerson:
    if not CALLER_NAME.match(written.name):
        raise ValueError("expected each person's name in up to 64 letters, digits, dots, hyphens or underscores")
    of = f"person {written.name}"
    if (written.tenant is None) != (written.object_id is None):
        raise ValueError(f"{of}: expected tenant with object_id")
    if written.object_id is not None and (not GUID.match(written.object_id) or written.tenant not in tenants):
        raise ValueError(f"{of}: expected object_id as a lower-case GUID, and its tenant among the tenants")
    has_no_token = written.login is not None or written.password is not None
    if has_no_token != bool(written.roles):
        raise ValueError(f"{of}: expected roles with a login or a password, and only there: a token names its own")
    if not has_no_token and written.object_id is None:
        raise ValueError(f"{of}: expected a login, a password or an object_id")
    if not all(models and all(map(MODEL_ID.match, models)) for models in written.only.values()):
        raise ValueError(f'{of}: expected only as the models\' ids by role, such as {{"approver": ["hematocrit"]}}')
    if written.roles and not written.only.keys() <= set(written.roles):
        raise ValueError(f"{of}: expected only with roles that {written.name} has")
    if written.password is not None and len(written.password) < SHORTEST_SECRET:
        raise ValueError(f"{of}: expected a password of at least {SHORTEST_SECRET} characters")
    return ListedPerson(
        name=written.name,
        roles=frozenset(written.roles),
        login=written.login,
        password=written.password,
        tenant=written.tenant,
        object_id=written.object_id,
        only={role: frozenset(models) for role, models in written.only.items()},
    )

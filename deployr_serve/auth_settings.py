"""The settings by which this app proves to the EMR who it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from deployr_serve.setting_values import existing_file, lines_of_pem

_T = TypeVar("_T")


class Reader(Protocol):
    """Reads one setting at a time and collects what is wrong, by the setting's name."""

    problems: dict[str, str]

    def has(self, name: str) -> bool:
        """Tell whether the setting is given."""

    def read(self, name: str, parse: Callable[[str], _T], **default: _T) -> _T:
        """Give the setting, or its default; without one it must be given."""


class AuthKind(StrEnum):
    """``smart``: SMART Backend Services. ``basic``: user and password. ``none``: for a server that asks for neither."""

    NONE = "none"
    SMART = "smart"
    BASIC = "basic"


@dataclass(frozen=True, kw_only=True, slots=True)
class SmartSettings:
    """Our client at the EMR and its key: one of ``key_file``, ``key_pem`` and ``key_vault``.

    ``key_id``: None is the key's thumbprint. ``old_keys``: public keys that stay in our JWK Set, each with its id or
    None. ``scope``: None asks for what the deployed models need. ``token_origins``: where the token endpoint may be
    beside the FHIR base's own origin.
    """

    client_id: str
    key_file: Path | None
    key_pem: str | None = field(repr=False)
    key_vault: str | None
    key_password: str | None = field(repr=False)
    key_id: str | None
    algorithm: str
    old_keys: tuple[tuple[str | None, Path], ...]
    scope: str | None
    token_origins: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BasicSettings:
    """A user of the EMR; ``client_id`` is sent as ``Epic-Client-ID``, None sends none."""

    user: str
    password: str = field(repr=False)
    client_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthSettings:
    """How we prove who we are: to the FHIR base, and to the vendor's."""

    fhir: AuthKind
    vendor: AuthKind
    smart: SmartSettings | None
    basic: BasicSettings | None


def read_auth(reader: Reader) -> AuthSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    given = AuthKind.SMART if reader.has("DEPLOYR_EMR_CLIENT_ID") else AuthKind.NONE
    fhir = reader.read("DEPLOYR_EMR_AUTH", _kind, default=given)
    vendor = reader.read("DEPLOYR_EMR_VENDOR_AUTH", _kind, default=fhir)
    used = {fhir, vendor}
    smart, basic = _smart(reader, used=AuthKind.SMART in used), _basic(reader, used=AuthKind.BASIC in used)
    return AuthSettings(
        fhir=fhir,
        vendor=vendor,
        smart=smart if AuthKind.SMART in used else None,
        basic=basic if AuthKind.BASIC in used else None,
    )


def auth_too_weak_for_production(auth: AuthSettings, *, has_vendor_base: bool) -> dict[str, str]:
    """Say by the setting's name what is only good enough for trying out."""
    problems = {}
    if auth.fhir is AuthKind.NONE:
        problems["DEPLOYR_EMR_AUTH"] = "expected credentials for the EMR in the prod profile: smart or basic"
    elif has_vendor_base and auth.vendor is AuthKind.NONE:
        problems["DEPLOYR_EMR_VENDOR_AUTH"] = "expected credentials for the EMR in the prod profile: smart or basic"
    if auth.smart is not None and not all(each.startswith("https://") for each in auth.smart.token_origins):
        problems |= {"DEPLOYR_EMR_TOKEN_ORIGINS": "expected https in the prod profile"}
    return problems


def _smart(reader: Reader, *, used: bool) -> SmartSettings:
    keys = {name: reader.has(f"DEPLOYR_EMR_{name}") for name in ("KEY_FILE", "KEY", "KEY_VAULT")}
    settings = SmartSettings(
        client_id=reader.read("DEPLOYR_EMR_CLIENT_ID", _header_text, **({} if used else {"default": ""})),
        key_file=reader.read("DEPLOYR_EMR_KEY_FILE", existing_file, default=None),
        key_pem=reader.read("DEPLOYR_EMR_KEY", _pem, default=None),
        key_vault=reader.read("DEPLOYR_EMR_KEY_VAULT", _secret_url, default=None),
        key_password=reader.read("DEPLOYR_EMR_KEY_PASSWORD", str, default=None),
        key_id=reader.read("DEPLOYR_EMR_KEY_ID", str, default=None),
        algorithm=reader.read("DEPLOYR_EMR_KEY_ALGORITHM", _algorithm, default="RS384"),
        old_keys=reader.read("DEPLOYR_EMR_OLD_KEY_FILES", _old_keys, default=()),
        scope=reader.read("DEPLOYR_EMR_SCOPE", str, default=None),
        token_origins=reader.read("DEPLOYR_EMR_TOKEN_ORIGINS", _origins, default=()),
    )
    if used and not any(keys.values()):
        reader.problems["DEPLOYR_EMR_KEY_FILE"] = (
            "the setting is missing; DEPLOYR_EMR_KEY or DEPLOYR_EMR_KEY_VAULT may stand in for it"
        )
    if used and sum(keys.values()) > 1:
        several = " and ".join(f"DEPLOYR_EMR_{name}" for name, has in keys.items() if has)
        reader.problems["DEPLOYR_EMR_KEY_FILE"] = f"expected one place to take the key from, got {several}"
    if used and keys["KEY_VAULT"] and settings.key_id is not None:
        # Rotated in the vault, another key would go by the same id.
        reader.problems["DEPLOYR_EMR_KEY_ID"] = "expected none with DEPLOYR_EMR_KEY_VAULT: its keys go by thumbprint"
    return settings


def _basic(reader: Reader, *, used: bool) -> BasicSettings:
    unless_used = {} if used else {"default": ""}
    return BasicSettings(
        user=reader.read("DEPLOYR_EMR_BASIC_USER", _user, **unless_used),
        password=reader.read("DEPLOYR_EMR_BASIC_PASSWORD", str, **unless_used),
        client_id=reader.read("DEPLOYR_EMR_CLIENT_ID", _header_text, default=None),
    )


def _kind(text: str) -> AuthKind:
    if text not in set(AuthKind):
        raise ValueError("expected none, smart or basic")
    return AuthKind(text)


def _header_text(text: str) -> str:
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("expected printable ASCII without spaces")
    return text


def _user(text: str) -> str:
    if ":" in text:
        raise ValueError("expected a user name without a colon")
    return text


def _pem(text: str) -> str:
    pem = lines_of_pem(text)
    if "-----BEGIN" not in pem:
        raise ValueError("expected a private key in PEM")
    return pem


def _secret_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        words = parts.path.strip("/").split("/")
        is_secret = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_secret, words = False, []
    if not is_secret or "?" in text or "#" in text or len(words) not in {2, 3} or words[0] != "secrets" or "" in words:
        raise ValueError("expected https://VAULT/secrets/NAME, and perhaps a version")
    return text


def _algorithm(text: str) -> str:
    if text not in {"RS384", "ES384"}:
        raise ValueError("expected RS384 or ES384")
    return text


def _old_keys(text: str) -> tuple[tuple[str | None, Path], ...]:
    found = []
    for part in text.split(","):
        key_id, named, path = part.strip().rpartition("=")
        found.append((key_id if named else None, existing_file(path)))
    return tuple(found)


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part.strip()) for part in text.split(","))


def _origin(text: str) -> str:
    expected = "expected origins such as https://login.emr.example:444, with commas between them"
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not whole or "@" in parts.netloc or parts.path.strip("/") or "?" in text or "#" in text:
        raise ValueError(expected)
    return text.rstrip("/")

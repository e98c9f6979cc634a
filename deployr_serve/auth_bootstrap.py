"""Puts the credentials together: settings to keys, tokens, and the JWK Set that is published of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from deployr_serve.adapters.auth import Credentials, NoCredentials, Origin
from deployr_serve.adapters.auth_basic import Basic
from deployr_serve.adapters.auth_smart import SmartBackend, SmartClient
from deployr_serve.adapters.client_keys import (
    ClientKey,
    FixedKey,
    KeySource,
    KeyUnusable,
    read_client_key,
    read_public_key,
)
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import Transport, origin
from deployr_serve.adapters.jwks import PublishedKey, key_set
from deployr_serve.adapters.scopes import Scopes, label_scopes, missing_scopes, scopes_of
from deployr_serve.adapters.token_cache import TokenCache
from deployr_serve.auth_settings import AuthKind, AuthSettings, BasicSettings, SmartSettings
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Models


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What lets us in: to the FHIR base and to the vendor's base.

    ``jwks`` gives our public keys as JSON. ``missing_scopes`` gives, for each deployed model, what it needs and the
    last token did not grant; it asks nobody.
    """

    fhir: Credentials
    vendor: Credentials
    jwks: Callable[[], bytes]
    missing_scopes: Callable[[], Mapping[str, tuple[str, ...]]]


def access(
    auth: AuthSettings,
    *,
    fhir_base: str,
    vendor_base: str | None,
    models: Models,
    transport: Transport,
    elsewhere: Collection[str] = (),
    beside: Scopes = frozenset(),
) -> Access:
    """Put the credentials together. Keys are read and tried here; tokens are fetched on first use.

    ``elsewhere`` names the searches that are not made over FHIR, see `scopes.needed_scopes`. ``beside``: what is asked
    for with them, such as writing; a server that does not grant it is still read from.

    Raises:
        SettingsInvalid: a key cannot be read or cannot sign; the message names the setting and repeats no secret.
    """
    at: dict[AuthKind, set[Origin]] = {kind: set() for kind in AuthKind}
    at[auth.fhir].add(origin(fhir_base))
    if vendor_base is not None:
        at[auth.vendor].add(origin(vendor_base))
    bundles = {name: models.bundle(name) for name, reason in models.deployed().items() if not reason}
    needs = {name: scopes_of(bundle, elsewhere=frozenset(elsewhere)) for name, bundle in bundles.items()}
    of_labels = label_scopes(bundle.manifest.task.rule for bundle in bundles.values())
    held: dict[AuthKind, Credentials] = {AuthKind.NONE: NoCredentials()}
    if auth.basic is not None:
        held[AuthKind.BASIC] = _basic(auth.basic, frozenset(at[AuthKind.BASIC]))
    if auth.smart is None:
        return Access(fhir=held[auth.fhir], vendor=held[auth.vendor], jwks=lambda: key_set(()), missing_scopes=dict)
    keys = _keys(auth.smart)
    smart = SmartBackend(
        SmartClient(
            fhir_base=fhir_base,
            client_id=auth.smart.client_id,
            origins=frozenset(at[AuthKind.SMART]),
            token_origins=frozenset(origin(each) for each in auth.smart.token_origins),
            scope=auth.smart.scope,
            needed=of_labels.union(beside, *needs.values()),
        ),
        keys=keys,
        cache=TokenCache(clock=SystemClock()),
        transport=transport,
        clock=SystemClock(),
    )
    held[AuthKind.SMART] = smart
    reads_with_smart = auth.fhir is AuthKind.SMART
    return Access(
        fhir=held[auth.fhir],
        vendor=held[auth.vendor],
        jwks=lambda: key_set(keys.published()),
        missing_scopes=lambda: _missing(needs, smart.last_granted) if reads_with_smart else {},
    )


def _missing(needs: Mapping[str, Scopes], granted: Scopes | None) -> dict[str, tuple[str, ...]]:
    found = {model: missing_scopes(granted, needed) for model, needed in needs.items()}
    return {model: missing for model, missing in found.items() if missing}


def _basic(settings: BasicSettings, origins: frozenset[Origin]) -> Basic:
    return Basic(user=settings.user, password=settings.password, client_id=settings.client_id, origins=origins)


def _keys(smart: SmartSettings) -> KeySource:
    old = tuple(_old_key(key_id, file) for key_id, file in smart.old_keys)
    if smart.key_vault is not None:
        return _vault_keys(smart, smart.key_vault, old)
    if smart.key_file is not None:
        return FixedKey(_key(smart, _bytes_of(smart.key_file), name="DEPLOYR_EMR_KEY_FILE"), old=old)
    return FixedKey(_key(smart, (smart.key_pem or "").encode(), name="DEPLOYR_EMR_KEY"), old=old)


def _key(smart: SmartSettings, pem: bytes, *, name: str) -> ClientKey:
    try:
        return _parsed(smart, pem)
    except KeyUnusable as error:
        raise _refusal(name, error) from None


def _parsed(smart: SmartSettings, pem: bytes) -> ClientKey:
    return read_client_key(pem, password=smart.key_password, algorithm=smart.algorithm, key_id=smart.key_id)


def _vault_keys(smart: SmartSettings, url: str, old: tuple[PublishedKey, ...]) -> KeySource:
    from deployr_serve.adapters.key_vault import VaultKey, VaultUnavailable, read_secret, secret_client

    name = "DEPLOYR_EMR_KEY_VAULT"
    try:
        client = secret_client(url)
    except ImportError:
        raise SettingsInvalid(f"settings: {name}: expected the packages of the extra azure to be installed") from None
    try:
        return VaultKey(
            lambda: read_secret(url, client),
            parse=lambda text: _parsed(smart, text.encode()),
            clock=SystemClock(),
            old=old,
        )
    except (VaultUnavailable, KeyUnusable) as error:
        raise _refusal(name, error) from None


def _old_key(key_id: str | None, file: Path) -> PublishedKey:
    try:
        return read_public_key(_bytes_of(file, name="DEPLOYR_EMR_OLD_KEY_FILES"), key_id=key_id)
    except KeyUnusable as error:
        raise _refusal("DEPLOYR_EMR_OLD_KEY_FILES", error) from None


def _bytes_of(file: Path, *, name: str = "DEPLOYR_EMR_KEY_FILE") -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"settings: {name}: expected a file that can be read, got {error.strerror}") from None


def _refusal(name: str, error: Exception) -> SettingsInvalid:
    return SettingsInvalid(f"settings: {name}: {error}")

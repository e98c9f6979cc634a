"""What no two sites of one app may have in common: places, secrets, and whom a proof is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from deployr_serve.settings import Settings
from deployr_serve.store_settings import InCosmos, InFile

_ACCOUNT = re.compile(r"([a-z0-9]+)\.(?:blob|queue|table)\.")
_Held = tuple[str, str, str | bytes | tuple[str, ...]]
"""The setting; what kind of thing it is, since only things of a kind are compared; and the thing."""


def in_common(sites: Mapping[str, Settings]) -> dict[str, dict[str, str]]:
    """Give the problems of each site that has something in common with another, by setting. No secret is repeated."""
    problems: dict[str, dict[str, str]] = {}
    things = {name: list(_things(settings)) for name, settings in sites.items()}
    places = {
        name: [(setting, path.resolve().parts) for setting, path in _places(settings)]
        for name, settings in sites.items()
    }
    for one, other in combinations(sites, 2):
        for setting, kind, thing in things[one]:
            for others, of_kind, what in things[other]:
                if (kind, thing) == (of_kind, what):
                    problems.setdefault(one, {})[setting] = f"expected {kind} of its own, not that of {other}"
                    problems.setdefault(other, {})[others] = f"expected {kind} of its own, not that of {one}"
        for setting, path in places[one]:
            for others, there in places[other]:
                # One is the other, or lies in it.
                if all(part == other_part for part, other_part in zip(path, there, strict=False)):
                    problems.setdefault(one, {})[setting] = f"expected a place apart from that of {other}"
                    problems.setdefault(other, {})[others] = f"expected a place apart from that of {one}"
    return problems


def _places(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Give the files and folders of a site; neither may lie in one of another's."""
    store, spool, facts = settings.store, settings.spool, settings.facts
    smart = settings.auth.smart
    named: tuple[tuple[str, Path | None], ...] = (
        ("DEPLOYR_BUNDLES", settings.bundles),
        ("DEPLOYR_BUNDLE_ARCHIVE", settings.bundle_archive),
        ("DEPLOYR_MODEL_PROOFS", settings.model_proofs),
        ("DEPLOYR_DEPLOYMENTS", settings.deployments),
        ("DEPLOYR_BATCHES", settings.batch.folder),
        ("DEPLOYR_OUTPUTS_FILE", settings.outputs.file),
        ("DEPLOYR_ALERT_RULES", settings.alerts.rules),
        ("DEPLOYR_STORE", store.file if isinstance(store, InFile) else None),
        ("DEPLOYR_SPOOL", spool.where if spool is not None and isinstance(spool.where, Path) else None),
        ("DEPLOYR_FACTS_VAULT", facts.file if facts is not None else None),
        ("DEPLOYR_AUDIT", settings.audit.folder),
        ("DEPLOYR_EMR_KEY_FILE", smart.key_file if smart is not None else None),
    )
    yield from ((setting, path) for setting, path in named if path is not None)


def _things(settings: Settings) -> Iterator[_Held]:
    yield "DEPLOYR_SITE", "a name", settings.site.casefold()
    if settings.cds.public_base is not None:
        yield "DEPLOYR_PUBLIC_BASE", "an address", settings.cds.public_base.casefold()
    # The site's own is among them: who may sign at one, is believed at no other.
    yield from (("DEPLOYR_JOURNAL_KEY", "a key", each.key_id) for each in settings.registry.journal_keys.trusted)
    yield from _stores(settings)
    yield from _proofs(settings)
    yield from ((setting, "a secret", _bytes(secret)) for setting, secret in _secrets(settings) if secret)


def _stores(settings: Settings) -> Iterator[_Held]:
    store, spool, facts = settings.store, settings.spool, settings.facts
    account = "a storage account"
    if isinstance(store, InCosmos):
        database = (store.address.casefold().rstrip("/"), store.database.casefold())
        yield "DEPLOYR_STORE_DATABASE", "a database", database
        yield "DEPLOYR_STORE_BLOBS", account, _account(store.blobs)
        if store.identity is not None:
            yield "DEPLOYR_STORE_IDENTITY", "an identity", store.identity.casefold()
    if spool is not None and isinstance(spool.where, str):
        yield "DEPLOYR_SPOOL", account, _account(spool.where)
    if facts is not None and facts.blobs is not None:
        yield "DEPLOYR_FACTS_VAULT", account, _account(facts.blobs)


def _proofs(settings: Settings) -> Iterator[_Held]:
    """Give whom tokens and certificates must be for: one that is for two sites would open both."""
    for setting, tenants in (
        ("DEPLOYR_JSON_CALLERS", settings.json.tenants if settings.json is not None else ()),
        ("DEPLOYR_REGISTRY_PEOPLE", settings.registry.people.tenants if settings.registry.people is not None else ()),
    ):
        yield from ((setting, "an audience in each tenant", (each.tenant, each.audience)) for each in tenants)
    for caller in settings.json.callers if settings.json is not None else ():
        if caller.certificate_sha256 is not None:
            yield "DEPLOYR_JSON_CALLERS", "a certificate", caller.certificate_sha256


def _secrets(settings: Settings) -> Iterator[tuple[str, str | bytes | None]]:
    store, facts, auth, json = settings.store, settings.facts, settings.auth, settings.json
    yield "DEPLOYR_ID_KEY", settings.id_key
    yield "DEPLOYR_STORE_KEY", store.key if isinstance(store, InCosmos) else None
    yield from (("DEPLOYR_FACTS_KEYS", key) for key in (facts.keys.keys.values() if facts is not None else ()))
    if auth.smart is not None:
        yield "DEPLOYR_EMR_KEY", auth.smart.key_pem
        yield "DEPLOYR_EMR_KEY_FILE", _content(auth.smart.key_file)
        yield "DEPLOYR_EMR_KEY_VAULT", auth.smart.key_vault
    yield "DEPLOYR_EMR_BASIC_PASSWORD", auth.basic.password if auth.basic is not None else None
    if json is not None:
        yield from (("DEPLOYR_JSON_CALLERS", caller.password) for caller in json.callers)
        yield "DEPLOYR_JSON_CALLERS", json.gateway.secret if json.gateway is not None else None
    yield from (("DEPLOYR_BPA_CALLERS", each) for each in (settings.bpa.callers.values() if settings.bpa else ()))
    people = settings.registry.people.people if settings.registry.people is not None else ()
    yield from (("DEPLOYR_REGISTRY_PEOPLE", person.password) for person in people)
    yield "DEPLOYR_WEBHOOK_KEY", settings.outputs.webhook_key
    yield "DEPLOYR_ALERT_WEBHOOK_KEY", settings.alerts.webhook_key
    yield "DEPLOYR_AUDIT_FHIR_TOKEN", settings.audit.token
    yield from (("DEPLOYR_PREDICTOR_TOKENS", token) for token in settings.predictors.tokens.values())


def _content(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        # Said where the key is needed.
        return None


def _bytes(secret: str | bytes) -> bytes:
    """Give what is compared: a key is the same whether a file of it ends with a line's end, and with which."""
    return b" ".join((secret.encode() if isinstance(secret, str) else secret).split())


def _account(where: str) -> str:
    """Give the name of a storage account, by its address or its connection string, or what stands for one."""
    parts = dict(part.strip().partition("=")[::2] for part in where.split(";") if part.strip()) if ";" in where else {}
    named = {name.casefold(): value for name, value in parts.items()}
    if "accountname" in named:
        return named["accountname"].casefold()
    address = named.get("blobendpoint") or named.get("queueendpoint") or where
    found = _ACCOUNT.match(urlsplit(address).netloc.casefold())
    return found[1] if found is not None else address.casefold().rstrip("/")

"""The app's settings: one frozen object from one mapping, complaining of everything that is wrong at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from deployr_core.instants import parse_zone
from deployr_serve.alert_settings import AlertSettings, alerts_too_weak_for_production, read_alerts
from deployr_serve.audit_settings import AuditSettings, audit_too_weak_for_production, read_audit
from deployr_serve.auth_settings import AuthSettings, auth_too_weak_for_production, read_auth
from deployr_serve.batch_settings import BatchSettings, read_batch_settings
from deployr_serve.bpa_settings import BpaSettings, bpa_too_weak_for_production, read_bpa
from deployr_serve.cds_settings import CdsSettings, cds_too_weak_for_production, read_cds
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.facts_settings import FactsSettings, read_facts
from deployr_serve.json_settings import JsonSettings, json_too_weak_for_production, read_json_callers
from deployr_serve.label_settings import LabelSettings, read_labels
from deployr_serve.outputs_settings import OutputSettings, read_outputs
from deployr_serve.predictor_settings import PredictorSettings, predictors_too_weak_for_production, read_predictors
from deployr_serve.registry_settings import RegistrySettings, read_registry
from deployr_serve.setting_values import existing_file, plain_url, yes_or_no
from deployr_serve.spool_settings import SpoolSettings, read_spool
from deployr_serve.store_settings import InCosmos, StoreSettings, read_store, store_too_weak_for_production
from deployr_serve.telemetry_settings import TelemetrySettings, read_telemetry, telemetry_too_weak_for_production
from deployr_serve.vendor_settings import VendorSettings, read_vendor

_T = TypeVar("_T")
_UTC: tzinfo = UTC
_ELSEWHERE = ("DEPLOYR_HOST_", "DEPLOYR_WRITE_SNAPSHOTS")
"""What begins the names of settings that are not the app's own, but of the local host and of the tests."""
_DEV_ID_KEY = "deployr-development-only"
_UNRESOLVED = "@Microsoft.KeyVault("
"""How a reference to a key vault stands in the environment where the host could not resolve it. It is long enough to
pass for a key, and everybody could read it."""


class Profile(StrEnum):
    """``dev``: this machine, embedded defaults. ``prod``: nothing that is only good enough for trying out."""

    DEV = "dev"
    PROD = "prod"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """See local.settings.example.json for what each is called and means.

    ``allow_pickle`` loads models that run code; with ``trusted_keys`` (public Ed25519 keys, PEM) only bundles signed by
    one of them are loaded. ``bundle_archive``: where runs and earlier versions lie, for the registry and for replays;
    ``model_proofs``: where it is noted which models were tried out, so that this is not done at every start.
    ``facts``: None keeps no facts.
    ``vendor_base``: None writes no scores back. ``telemetry``: None sends none. ``clock_file``: a replay's clock, else
    None. ``at``: under which name the site is served beside others; None where it is alone.
    """

    profile: Profile
    site: str
    at: str | None
    environment: str
    bundles: Path
    bundle_archive: Path | None
    model_proofs: Path
    deployments: Path | None
    allow_pickle: bool
    trusted_keys: tuple[Path, ...]
    predictors: PredictorSettings
    store: StoreSettings
    spool: SpoolSettings | None
    facts: FactsSettings | None
    audit: AuditSettings
    alerts: AlertSettings
    id_key: bytes = field(repr=False)
    fhir_base: str
    vendor_base: str | None
    auth: AuthSettings
    vendor: VendorSettings
    outputs: OutputSettings
    cds: CdsSettings
    bpa: BpaSettings | None
    json: JsonSettings | None
    registry: RegistrySettings
    batch: BatchSettings
    search_by_get: bool
    typed_patients: bool
    fhir_version: str
    connections: int
    batch_connections: int
    ca_file: Path | None
    csn_system: str | None
    score_namespace: str
    zone: tzinfo
    deadline_s: float
    labels: LabelSettings
    relay_schedule: str
    telemetry: TelemetrySettings | None
    clock_file: Path | None

    @property
    def site_apart(self) -> str | None:
        """Which site this is, where several are served: what is its own says so. None where it is alone."""
        return None if self.at is None else self.site

    @property
    def serves_cds(self) -> bool:
        """True where CDS clients are listed; a site that is alone in the dev profile serves it to anybody."""
        return self.cds.clients is not None or (self.profile is Profile.DEV and self.at is None)


def read_settings(source: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        SettingsInvalid: the message lists every setting that is missing or wrong, and what was expected; no value of a
            secret is repeated.
    """
    reader = _Reader(source)
    profile = reader.read("DEPLOYR_PROFILE", _profile, default=Profile.DEV)
    settings = Settings(
        profile=profile,
        site=reader.read("DEPLOYR_SITE", _word, default="local"),
        at=reader.read("DEPLOYR_AT", _word, default=None),
        environment=reader.read("DEPLOYR_ENVIRONMENT", _word, default="DEV"),
        bundles=reader.read("DEPLOYR_BUNDLES", Path),
        bundle_archive=reader.read("DEPLOYR_BUNDLE_ARCHIVE", Path, default=None),
        model_proofs=reader.read("DEPLOYR_MODEL_PROOFS", Path, default=None)
        or Path(source.get("DEPLOYR_BUNDLES", ""), ".proofs.json"),
        deployments=reader.read("DEPLOYR_DEPLOYMENTS", Path, default=None),
        allow_pickle=reader.read("DEPLOYR_ALLOW_PICKLE", yes_or_no, default=False),
        trusted_keys=reader.read("DEPLOYR_TRUSTED_KEYS", _existing_files, default=()),
        predictors=read_predictors(reader),
        store=read_store(reader),
        spool=read_spool(reader),
        facts=read_facts(reader),
        audit=read_audit(reader),
        alerts=read_alerts(reader),
        id_key=reader.read("DEPLOYR_ID_KEY", _id_key, default=_DEV_ID_KEY.encode()),
        fhir_base=reader.read("DEPLOYR_EMR_FHIR_BASE", _base_url),
        vendor_base=reader.read("DEPLOYR_EMR_VENDOR_BASE", _base_url, default=None),
        auth=read_auth(reader),
        vendor=read_vendor(reader),
        outputs=read_outputs(reader),
        cds=read_cds(reader),
        bpa=read_bpa(reader),
        json=read_json_callers(reader),
        registry=read_registry(reader, is_prod=profile is Profile.PROD),
        batch=read_batch_settings(reader),
        search_by_get=reader.read("DEPLOYR_EMR_SEARCH", _search_method, default=False),
        typed_patients=reader.read("DEPLOYR_EMR_PATIENT_REFERENCE", _typed_patients, default=False),
        fhir_version=reader.read("DEPLOYR_EMR_FHIR_VERSION", _fhir_version, default="R4"),
        connections=reader.read("DEPLOYR_EMR_CONNECTIONS", _connections, default=64),
        batch_connections=reader.read("DEPLOYR_EMR_BATCH_CONNECTIONS", _connections, default=16),
        ca_file=reader.read("DEPLOYR_EMR_CA_FILE", existing_file, default=None),
        csn_system=reader.read("DEPLOYR_EMR_CSN_SYSTEM", str, default=None),
        score_namespace=reader.read("DEPLOYR_SCORE_NAMESPACE", _word, default="DEPLOYR"),
        zone=reader.read("DEPLOYR_TIME_ZONE", parse_zone, default=_UTC),
        deadline_s=reader.read("DEPLOYR_DEADLINE_S", _deadline, default=8.0),
        labels=read_labels(reader),
        relay_schedule=reader.read("DEPLOYR_RELAY_SCHEDULE", str, default="*/30 * * * * *"),
        telemetry=read_telemetry(reader),
        clock_file=reader.read("DEPLOYR_CLOCK_FILE", Path, default=None),
    )
    if profile is Profile.PROD:
        for name, problem in _too_weak_for_production(settings).items():
            reader.problems.setdefault(name, problem)
    if reader.has("DEPLOYR_SITES") != (settings.at is not None):
        reader.problems.setdefault("DEPLOYR_AT", "expected it with DEPLOYR_SITES: which of several sites is meant")
    if settings.at is not None:
        for name, problem in _too_open_beside_others(settings).items():
            reader.problems.setdefault(name, problem)
    if settings.batch_connections >= settings.connections:
        expected = "expected fewer than DEPLOYR_EMR_CONNECTIONS, so that some are left for clicks"
        reader.problems.setdefault("DEPLOYR_EMR_BATCH_CONNECTIONS", expected)
    reader.refuse_unknown()
    if reader.problems:
        raise SettingsInvalid("settings: " + "; ".join(f"{name}: {text}" for name, text in reader.problems.items()))
    return settings


class _Reader:
    def __init__(self, source: Mapping[str, str]) -> None:
        self._source = source
        self._known: set[str] = set()
        self.problems: dict[str, str] = {}

    def has(self, name: str) -> bool:
        self._known.add(name)
        return bool(self._source.get(name))

    def refuse_unknown(self) -> None:
        """Complain of settings that nobody read: a misspelt one would leave a safeguard at its default."""
        for name in self._source:
            if name.startswith("DEPLOYR_") and name not in self._known and not name.startswith(_ELSEWHERE):
                near = difflib.get_close_matches(name, sorted(self._known), n=1)
                self.problems[name] = "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")

    def read(self, name: str, parse: Callable[[str], _T], **default: _T) -> _T:
        self._known.add(name)
        text = self._source.get(name, "")
        if not text:
            if not default:
                self.problems[name] = "the setting is missing"
            return default.get("default")  # type: ignore[return-value]
        try:
            if text.startswith(_UNRESOLVED):
                raise ValueError("expected the secret; the key vault did not give it: its name, the role, the network")
            return parse(text)
        except ValueError as error:
            self.problems[name] = str(error)
            return default.get("default")  # type: ignore[return-value]


def _too_weak_for_production(settings: Settings) -> dict[str, str]:
    problems = {}
    # What is missing or cannot be read is complained of already, and stands here as its default.
    if not (settings.fhir_base or "").startswith("https://"):
        problems["DEPLOYR_EMR_FHIR_BASE"] = "expected https in the prod profile"
    if settings.vendor_base is not None and not settings.vendor_base.startswith("https://"):
        problems["DEPLOYR_EMR_VENDOR_BASE"] = "expected https in the prod profile"
    problems |= auth_too_weak_for_production(settings.auth, has_vendor_base=settings.vendor_base is not None)
    problems |= cds_too_weak_for_production(settings.cds)
    problems |= bpa_too_weak_for_production(settings.bpa)
    problems |= json_too_weak_for_production(settings.json)
    problems |= store_too_weak_for_production(settings.store)
    problems |= audit_too_weak_for_production(settings.audit)
    problems |= alerts_too_weak_for_production(settings.alerts)
    problems |= telemetry_too_weak_for_production(settings.telemetry)
    problems |= predictors_too_weak_for_production(settings.predictors)
    if settings.id_key == _DEV_ID_KEY.encode():
        problems["DEPLOYR_ID_KEY"] = "expected a secret of the site's own in the prod profile"
    if settings.clock_file is not None:
        problems["DEPLOYR_CLOCK_FILE"] = "a replay's clock has no place in the prod profile"
    return problems


def _too_open_beside_others(settings: Settings) -> dict[str, str]:
    """Give where anybody would be let in who has the app's key, which opens every site."""
    expected = "expected at least one caller, where several sites are served"
    problems = {}
    if settings.json is None:
        problems["DEPLOYR_JSON_CALLERS"] = expected
    if settings.bpa is not None and not settings.bpa.callers:
        problems["DEPLOYR_BPA_CALLERS"] = expected
    match settings.store:
        case InCosmos(key=None, identity=None):
            problems["DEPLOYR_STORE_IDENTITY"] = "expected an identity of the site's own, or DEPLOYR_STORE_KEY"
    return problems


def _profile(text: str) -> Profile:
    if text not in set(Profile):
        raise ValueError("expected dev or prod")
    return Profile(text)


def _word(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 40:
        raise ValueError("expected up to 40 letters, digits, hyphens or underscores")
    return text


def _id_key(text: str) -> bytes:
    if len(text.encode()) < 16:
        raise ValueError("expected a secret of at least 16 bytes")
    return text.encode()


def _base_url(text: str) -> str:
    return plain_url(text).rstrip("/")


def _search_method(text: str) -> bool:
    if text not in {"post", "get"}:
        raise ValueError("expected post or get")
    return text == "get"


def _typed_patients(text: str) -> bool:
    if text not in {"id", "typed"}:
        raise ValueError("expected id or typed")
    return text == "typed"


def _fhir_version(text: str) -> str:
    if text not in {"R4", "STU3"}:
        raise ValueError("expected R4 or STU3")
    return text


def _deadline(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 230:
        raise ValueError("expected 0.1 to 230 seconds, the longest that the Functions front end waits")
    return seconds


def _connections(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0):
        raise ValueError("expected a number of connections from 1 to 9999")
    return int(text)


def _existing_files(text: str) -> tuple[Path, ...]:
    return tuple(existing_file(part.strip()) for part in text.split(","))

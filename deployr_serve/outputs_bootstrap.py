"""Puts the ways out together: settings and the site's file to outputs, each behind the guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from deployr_core.packet import InferencePacket
from deployr_core.strict_yaml import YamlInvalid, parse_yaml
from deployr_serve.adapters.auth import Credentials
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.adapters.http import Transport
from deployr_serve.adapters.identity import Encounters, PatientIndex
from deployr_serve.adapters.outputs_fhir import FhirOutput, FhirWriter, FirstOffered
from deployr_serve.adapters.outputs_file_drop import FileDrop
from deployr_serve.adapters.outputs_vendor import Flowsheet, InBasket, SmartData, VendorTargets
from deployr_serve.adapters.outputs_webhook import Webhook
from deployr_serve.adapters.scopes import Scope, Scopes
from deployr_serve.adapters.vendor_write import VendorWriter
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.guarded_output import GuardedOutput
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.core.ports import Clock, Output, Records
from deployr_serve.outputs.communication import render_communication
from deployr_serve.outputs.declared import NO_OUTPUTS, CommunicationOutput, Outputs
from deployr_serve.outputs.document_reference import render_document_reference
from deployr_serve.outputs.flag import render_flag
from deployr_serve.outputs.observation import render_observation
from deployr_serve.outputs.risk_assessment import render_risk_assessment
from deployr_serve.outputs.vendor_target import VendorUser
from deployr_serve.outputs_settings import FHIR_KINDS, OutputSettings

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """What the ways out reach the world through. ``environment``: of the EMR that is written to.

    ``policies``: which words and how many decimals people see.
    """

    environment: str
    policies: Policies
    id_key: bytes = field(repr=False)
    score_namespace: str
    fhir_base: str
    vendor_base: str | None
    search_by_get: bool
    user: VendorUser
    transport: Transport
    fhir: Credentials
    vendor: Credentials
    patients: PatientIndex
    encounters: Encounters
    records: Records
    clock: Clock
    insist_on_https: bool


def write_scopes(settings: OutputSettings, *, alerts: bool = False) -> Scopes:
    """Give what writing FHIR resources must be allowed: to create them, and to look for one that is there already.

    ``alerts``: whether alerts are written as Communications, too.
    """
    names = (settings.names | ({"communication"} if alerts else set())) & set(FHIR_KINDS)
    return frozenset(
        Scope(level="system", resource_type=FHIR_KINDS[name], interactions=frozenset("cs")) for name in names
    )


def chosen_of(settings: OutputSettings, *, vendor_base: str | None) -> tuple[tuple[str, ...], ...]:
    """Give each way out that is configured with its alternatives: the score column where nothing is said."""
    if settings.chosen is not None:
        return settings.chosen
    return () if vendor_base is None else (("score-column",),)


def names_of(settings: OutputSettings, *, vendor_base: str | None) -> tuple[str, ...]:
    """Give what the ways out are called in deployment files: of alternatives, the first."""
    return tuple(first for first, *_ in chosen_of(settings, vendor_base=vendor_base))


def outputs_of(settings: OutputSettings, reach: Reach) -> tuple[Output, ...]:
    """Give the ways out in the configured order; nothing is sent.

    Raises:
        SettingsInvalid: the site's file is not what it must be, or lacks what an output needs.
    """
    declared = _declared(settings.file)
    make = _makers(settings, declared, reach)
    outputs = []
    for names in chosen_of(settings, vendor_base=reach.vendor_base):
        made = tuple(make[name]() for name in names)
        outputs.append(
            GuardedOutput(
                made[0] if len(made) == 1 else FirstOffered(made),
                records=reach.records,
                clock=reach.clock,
                environment=reach.environment,
                id_key=reach.id_key,
                expires_after=settings.expires_after,
            )
        )
    return tuple(outputs)


def _makers(settings: OutputSettings, declared: Outputs, reach: Reach) -> dict[str, Callable[[], Output]]:
    fhir = FhirWriter(
        base=reach.fhir_base, transport=reach.transport, credentials=reach.fhir, search_by_get=reach.search_by_get
    )
    targets = VendorTargets(reach.patients, reach.encounters, patient_id_type=settings.patient_id_type)

    def writer() -> VendorWriter:
        base = _needed(reach.vendor_base, "DEPLOYR_EMR_VENDOR_BASE")
        return VendorWriter(base=base, transport=reach.transport, credentials=reach.vendor)

    def reader() -> VendorClient:
        base = _needed(reach.vendor_base, "DEPLOYR_EMR_VENDOR_BASE")
        return VendorClient(base=base, transport=reach.transport, credentials=reach.vendor, clock=reach.clock)

    def policy(packet: InferencePacket) -> Policy:
        return reach.policies.of(packet.model.model_id)

    def observation() -> Output:
        rows = _entry(declared.observation, "observation")
        return FhirOutput(
            "observation",
            fhir,
            lambda packet, manifest, it: render_observation(
                packet, manifest, policy=policy(packet), declared=rows, delivery_id=it
            ),
        )

    def communication() -> Output:
        to = declared.communication or CommunicationOutput()
        return FhirOutput(
            "communication",
            fhir,
            lambda packet, manifest, it: render_communication(
                packet, manifest, policy=policy(packet), declared=to, delivery_id=it
            ),
        )

    return {
        "score-column": lambda: ScoreColumn(writer(), policies=reach.policies, namespace=reach.score_namespace),
        "flowsheet": lambda: Flowsheet(
            writer(),
            reader(),
            targets=targets,
            policies=reach.policies,
            declared=_entry(declared.flowsheet, "flowsheet"),
            user=reach.user,
        ),
        "smart-data": lambda: SmartData(
            writer(),
            targets=targets,
            policies=reach.policies,
            declared=_entry(declared.smart_data, "smart-data"),
            user=reach.user,
        ),
        "in-basket": lambda: InBasket(
            writer(),
            targets=targets,
            policies=reach.policies,
            declared=_entry(declared.in_basket, "in-basket"),
            records=reach.records,
            clock=reach.clock,
            remembered=settings.expires_after,
        ),
        "observation": observation,
        "communication": communication,
        "risk-assessment": lambda: FhirOutput(
            "risk-assessment",
            fhir,
            lambda packet, manifest, it: render_risk_assessment(
                packet, manifest, policy=policy(packet), delivery_id=it
            ),
        ),
        "flag": lambda: FhirOutput(
            "flag",
            fhir,
            lambda packet, manifest, it: render_flag(packet, manifest, policy=policy(packet), delivery_id=it),
        ),
        "document-reference": lambda: FhirOutput(
            "document-reference",
            fhir,
            lambda packet, manifest, it: render_document_reference(
                packet, manifest, policy=policy(packet), delivery_id=it
            ),
        ),
        "file-drop": lambda: _file_drop(declared, reach.policies),
        "webhook": lambda: _webhook(settings, declared, reach),
    }


def _file_drop(declared: Outputs, policies: Policies) -> Output:
    entry = _entry(declared.file_drop, "file-drop")
    folder = Path(entry.folder)
    if not folder.is_dir():
        raise SettingsInvalid("settings: DEPLOYR_OUTPUTS_FILE: file-drop: expected folder to be one that exists")
    try:
        return FileDrop(folder, policies=policies, file_format=entry.format)
    except ImportError:
        raise SettingsInvalid(
            "settings: DEPLOYR_OUTPUTS_FILE: file-drop: expected pyarrow to be installed for parquet, or format: csv"
        ) from None


def _webhook(settings: OutputSettings, declared: Outputs, reach: Reach) -> Output:
    url = _entry(declared.webhook, "webhook").url
    parts = urlsplit(url)
    schemes = {"https"} if reach.insist_on_https else {"https", "http"}
    if parts.scheme not in schemes or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsInvalid(
            "settings: DEPLOYR_OUTPUTS_FILE: webhook: expected url to be one of "
            f"{' or '.join(sorted(schemes))}, without user name, query or fragment"
        )
    key = _needed(settings.webhook_key, "DEPLOYR_WEBHOOK_KEY")
    return Webhook(url=url, key=key, transport=reach.transport, policies=reach.policies, clock=reach.clock)


def _declared(file: Path | None) -> Outputs:
    if file is None:
        return NO_OUTPUTS
    try:
        return parse_yaml(file.read_bytes(), Outputs)
    except OSError as error:
        raise SettingsInvalid(f"settings: DEPLOYR_OUTPUTS_FILE: cannot be read ({error.strerror})") from None
    except YamlInvalid as error:
        raise SettingsInvalid(f"settings: DEPLOYR_OUTPUTS_FILE: {error}") from None


def _entry(entry: _T | None, name: str) -> _T:
    return _needed(entry, f"DEPLOYR_OUTPUTS_FILE: {name}")


def _needed(value: _T | None, setting: str) -> _T:
    if value is None:
        raise SettingsInvalid(f"settings: {setting}: expected what an output of DEPLOYR_OUTPUTS needs")
    return value

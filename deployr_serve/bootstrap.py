"""Puts the app together: settings to adapters to services. The only module that names adapters."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.adapters.fetch_once import FetchOnce
from deployr_serve.adapters.fhir_coverage import FhirCoverages
from deployr_serve.adapters.fhir_documents import FhirDocuments
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport, Transport
from deployr_serve.adapters.ids import new_correlation_id
from deployr_serve.adapters.json_callers import JsonCallers
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.policies import read_policies
from deployr_serve.adapters.resilience import ResilientTransport
from deployr_serve.adapters.scopes import COVERAGE
from deployr_serve.adapters.store_circuit import in_circuit
from deployr_serve.adapters.threads import DaemonThreads
from deployr_serve.adapters.watched import WatchedOutput, WatchedSource
from deployr_serve.audit_bootstrap import Audit, audit_of
from deployr_serve.auth_bootstrap import Access, access
from deployr_serve.bundle_bootstrap import needs, shelf_of, taking_of
from deployr_serve.cds_bootstrap import CdsAccess, cds_access
from deployr_serve.core.audit import NotAudited
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import Services, Site
from deployr_serve.core.outcome_source import OutcomeSource
from deployr_serve.core.ports import Clock, FactSource
from deployr_serve.core.registry import Registry
from deployr_serve.core.registry_showing import Approvals
from deployr_serve.core.switches import Switches
from deployr_serve.core.watch import NOT_WATCHED, Watch
from deployr_serve.json_bootstrap import json_callers
from deployr_serve.outputs.vendor_target import VendorUser
from deployr_serve.outputs_bootstrap import Reach, names_of, outputs_of, write_scopes
from deployr_serve.predictor_bootstrap import reach_of
from deployr_serve.settings import Profile, Settings
from deployr_serve.shadow_bootstrap import shadowed
from deployr_serve.spool_bootstrap import OpenSpool, open_spool, spooling_of
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.vendor_bootstrap import VendorAccess, epic_site, vendor_access

if TYPE_CHECKING:
    from deployr_serve.core.batch_start import Batches
    from deployr_serve.facts_bootstrap import Vault
    from deployr_serve.registry_bootstrap import RegistryAccess
    from deployr_serve.telemetry_bootstrap import Telemetry

_OF_DEADLINE, _LEAST_S = 0.2, 1.0
"""Which share of a request's deadline it waits for one call of the store; under a second a cut would tell nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """The services, what the label extractors need, and how to let go of it all.

    ``transport``: to the EMR, with repeats and circuits; ``network``: without, to whatever else a site names.
    ``open_circuits`` names the servers that did not answer lately and are left alone. ``jwks`` gives our public keys.
    ``missing_scopes`` gives for each model what it needs and the EMR's last token did not grant. ``vendor`` resolves
    identifiers and reads by the vendor's services. ``access`` and ``fhir`` are what `deployr doctor` examines. ``cds``
    is None where CDS Hooks is not served: in the prod profile without clients that may call. ``json_callers``: None
    lets anybody call the JSON routes, which only the dev profile does. ``audit``: None keeps none. ``registry``: None
    where nobody is listed who may ask it. ``telemetry``: None sends none.
    """

    services: Services
    store: Store
    spool: OpenSpool | None
    outcomes: OutcomeSource
    new_correlation_id: Callable[[], str]
    network: AiohttpTransport
    transport: Transport
    open_circuits: Callable[[], tuple[str, ...]]
    jwks: Callable[[], bytes]
    missing_scopes: Callable[[], Mapping[str, tuple[str, ...]]]
    vendor: VendorAccess
    access: Access
    fhir: FhirClient
    cds: CdsAccess | None
    json_callers: JsonCallers | None
    audit: Audit | None
    batches: Batches | None
    vault: Vault | None
    registry: RegistryAccess | None
    telemetry: Telemetry | None

    async def aclose(self) -> None:
        """Close connections and files; the real worker never calls this, tests and command lines do."""
        if self.services.shadows is not None:
            await self.services.shadows.aclose()
        await self.network.aclose()
        await self.store.aclose()
        if self.spool is not None:
            await self.spool.aclose()
        if self.audit is not None:
            self.audit.folder.close()
        if self.vault is not None:
            await self.vault.aclose()
        if self.telemetry is not None:
            self.telemetry.close()


def build(settings: Settings, *, over: Callable[[Transport], Transport] | None = None) -> Application:
    """Put the app together; models are loaded and verified here, connections are made on first use.

    Args:
        settings: the site's.
        over: takes the network and gives what everything is sent by, in place of repeats and circuits.
    """
    clock = ReplayClock(settings.clock_file) if settings.clock_file else SystemClock()
    network = _network(settings, clock)
    resilient = ResilientTransport(
        network,
        clock=clock,
        timeout_s=settings.deadline_s,
        connections=settings.connections,
        batch_connections=settings.batch_connections,
    )
    transport: Transport = resilient if over is None else over(network)
    site = epic_site(settings.vendor, zone=settings.zone)
    taking = taking_of(settings)
    reach = reach_of(settings.predictors, clock=clock)
    models = BundleFolder(
        settings.bundles,
        allow_pickle=taking.allow_pickle,
        trusted_keys=taking.trusted_keys,
        unfetchable=taking.unfetchable,
        refused=taking.prover.refused,
        reach=reach,
        needs=needs,
        clock=clock,
    )
    names = names_of(settings.outputs, vendor_base=settings.vendor_base)
    telemetry = _telemetry(settings, clock=clock, models=models, outputs=names)
    watch: Watch = NOT_WATCHED
    if telemetry is not None:
        watch = telemetry.watch
        transport = _naming(transport, watch)
    vault = _vault(settings)
    policies = read_policies(
        settings.deployments,
        models=models,
        has_vault=vault is not None,
        outputs=names,
        all_declared=settings.profile is Profile.PROD,
    )
    asks_who_pays = any(policy.read_insurance for policy in policies.declared.values())
    let_in = access(
        settings.auth,
        fhir_base=settings.fhir_base,
        vendor_base=settings.vendor_base,
        models=models,
        transport=transport,
        elsewhere=settings.vendor.reads,
        beside=write_scopes(settings.outputs, alerts=bool(settings.alerts.fhir_recipients)).union(
            COVERAGE if asks_who_pays else ()
        ),
    )
    client = FhirClient(
        base=settings.fhir_base,
        transport=transport,
        credentials=let_in.fhir,
        clock=clock,
        search_by_get=settings.search_by_get,
        fhir_version=settings.fhir_version,
        typed_patients=settings.typed_patients,
    )
    vendor = vendor_access(
        settings.vendor,
        site=site,
        vendor_base=settings.vendor_base,
        csn_system=settings.csn_system,
        fhir=client,
        transport=transport,
        credentials=let_in.vendor,
        clock=clock,
    )
    source: FactSource = FhirSource(
        client,
        clock=clock,
        zone=settings.zone,
        csn_system=settings.csn_system,
        credentials=let_in.fhir,
        group_reads=vendor.reads,
    )
    store = in_circuit(
        open_store(settings.store, clock=clock, deadline_s=settings.deadline_s, owner=settings.site_apart),
        clock=clock,
        within_s=max(_OF_DEADLINE * settings.deadline_s, _LEAST_S),
    )
    spool = open_spool(settings.spool)
    outputs = outputs_of(
        settings.outputs,
        Reach(
            environment=settings.environment,
            policies=policies,
            id_key=settings.id_key,
            score_namespace=settings.score_namespace,
            fhir_base=settings.fhir_base,
            vendor_base=settings.vendor_base,
            search_by_get=settings.search_by_get,
            user=VendorUser(id=settings.vendor.user_id, type=settings.vendor.user_id_type),
            transport=transport,
            fhir=let_in.fhir,
            vendor=let_in.vendor,
            patients=vendor.patients,
            encounters=vendor.encounters,
            records=store,
            clock=clock,
            insist_on_https=settings.profile is Profile.PROD,
        ),
    )
    if watch.is_on:
        source = WatchedSource(source, watch)
        outputs = tuple(WatchedOutput(output, watch) for output in outputs)
    audit = audit_of(
        settings.audit, site=settings.site, environment=settings.environment, clock=clock, transport=transport
    )
    services = Services(
        site=Site(
            name=settings.site,
            environment=settings.environment,
            id_key=settings.id_key,
            deadline_s=settings.deadline_s,
            expires_after=settings.outputs.expires_after,
        ),
        clock=clock,
        store=store,
        records=store,
        source=FetchOnce(source, clock=clock, needs=needs),
        models=models,
        threads=DaemonThreads(),
        outputs=outputs,
        policies=policies,
        switches=Switches(
            store,
            clock=clock,
            site=settings.site,
            policies=policies,
            approvals=_approvals(settings, store, clock=clock),
        ),
        audit=NotAudited() if audit is None else audit.folder,
        vault=vault,
        spooling=spooling_of(spool, settings.spool, clock=clock),
        watch=watch,
        coverages=FhirCoverages(client, zone=settings.zone) if asks_who_pays else None,
        documents=FhirDocuments(client, id_key=settings.id_key, zone=settings.zone, credentials=let_in.fhir),
    )
    services = shadowed(
        services,
        runs=settings.bundle_archive,
        trusted_keys=taking.trusted_keys,
        allow_pickle=taking.allow_pickle,
        unfetchable=taking.unfetchable,
        refused=taking.prover.refused,
        reach=reach,
        needs=needs,
    )
    cds = None
    if settings.serves_cds:
        cds = cds_access(
            settings.cds,
            models=models,
            policies=policies,
            records=store,
            transport=transport,
            fhir_base=settings.fhir_base,
            fhir_version=settings.fhir_version,
        )
    return Application(
        services=services,
        store=store,
        spool=spool,
        outcomes=FhirOutcomes(client, clock=clock, zone=settings.zone),
        new_correlation_id=new_correlation_id,
        network=network,
        transport=transport,
        open_circuits=resilient.open_circuits,
        jwks=let_in.jwks,
        missing_scopes=let_in.missing_scopes,
        vendor=vendor,
        access=let_in,
        fhir=client,
        cds=cds,
        json_callers=json_callers(settings.json, transport=transport),
        audit=audit,
        batches=_batches(settings, services, fhir=client, vendor=vendor),
        vault=vault,
        registry=_registry(settings, services, audit=audit, transport=transport),
        telemetry=telemetry,
    )


def _telemetry(settings: Settings, *, clock: Clock, models: BundleFolder, outputs: Collection[str]) -> Telemetry | None:
    if settings.telemetry is None:
        return None
    try:
        # As slow to import as all the rest, and off unless it is asked for.
        from deployr_serve.telemetry_bootstrap import open_telemetry
    except ImportError:
        expected = "expected the packages of deployr[telemetry]"
        raise SettingsInvalid(f"settings: DEPLOYR_TELEMETRY: {expected}") from None
    return open_telemetry(
        settings.telemetry,
        clock=clock,
        models=models.deployed,
        outputs=outputs,
        environment=settings.environment,
        site=settings.site_apart,
    )


def _naming(transport: Transport, watch: Watch) -> Transport:
    from deployr_serve.adapters.telemetry import NamingTransport

    return NamingTransport(transport, watch)


def _batches(settings: Settings, services: Services, *, fhir: FhirClient, vendor: VendorAccess) -> Batches | None:
    if settings.batch.folder is None:
        return None
    # A tenth of a start is spent on these modules, and most workers answer requests only.
    from deployr_serve.batch_bootstrap import batches_of

    return batches_of(settings.batch, services, fhir=fhir, vendor=vendor, site_zone=settings.zone, at=settings.at)


def _approvals(settings: Settings, store: Store, *, clock: Clock) -> Approvals | None:
    if not settings.registry.is_required:
        return None
    return Approvals(store, clock=clock, keys=settings.registry.journal_keys.trusted)


def _registry(
    settings: Settings, services: Services, *, audit: Audit | None, transport: Transport
) -> RegistryAccess | None:
    if settings.registry.people is None:
        return None
    # Nor are people asked about at every site.
    from deployr_serve.adapters.registry_heads import told_heads
    from deployr_serve.registry_bootstrap import RegistryAccess, registry_people

    folder = None if audit is None else audit.folder
    return RegistryAccess(
        registry=Registry(
            records=services.records,
            shelf=shelf_of(settings),
            clock=services.clock,
            audit=services.audit,
            keys=settings.registry.journal_keys,
        ),
        people=registry_people(settings.registry.people, transport=transport),
        told_heads=lambda model_id: told_heads(model_id, audit=folder, bundles=settings.bundles),
    )


def _vault(settings: Settings) -> Vault | None:
    if settings.facts is None:
        return None
    # Nor do most sites keep facts.
    from deployr_serve.facts_bootstrap import open_vault

    return open_vault(settings.facts, deadline_s=settings.deadline_s)


def _network(settings: Settings, clock: Clock) -> AiohttpTransport:
    try:
        return AiohttpTransport(
            timeout_s=settings.deadline_s, clock=clock, connections=settings.connections, ca_file=settings.ca_file
        )
    except (OSError, ssl.SSLError):
        raise SettingsInvalid("settings: DEPLOYR_EMR_CA_FILE: expected certificates in PEM") from None

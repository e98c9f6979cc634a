"""Puts the app together: settings to adapters to services. The only module that names adapters."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.adapters.fetch_once import FetchOnce
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport, Transport
from deployr_serve.adapters.ids import new_correlation_id
from deployr_serve.adapters.json_callers import JsonCallers
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.policies import read_policies
from deployr_serve.adapters.resilience import ResilientTransport
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.auth_bootstrap import Access, access
from deployr_serve.cds_bootstrap import CdsAccess, cds_access
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import Services, Site
from deployr_serve.core.ports import Clock, OutcomeSource
from deployr_serve.core.switches import Switches
from deployr_serve.json_bootstrap import json_callers
from deployr_serve.outputs.vendor_target import VendorUser
from deployr_serve.outputs_bootstrap import Reach, outputs_of, write_scopes
from deployr_serve.settings import Profile, Settings
from deployr_serve.vendor_bootstrap import VendorAccess, epic_site, vendor_access

if TYPE_CHECKING:
    from deployr_serve.core.batch_start import Batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """The services, what the label extractors need, and how to let go of it all.

    ``open_circuits`` names the servers that did not answer lately and are left alone. ``jwks`` gives our public keys.
    ``missing_scopes`` gives for each model what it needs and the EMR's last token did not grant. ``vendor`` resolves
    identifiers and reads by the vendor's services. ``access`` and ``fhir`` are what `deployr doctor` examines. ``cds``
    is None where CDS Hooks is not served: in the prod profile without clients that may call. ``json_callers``: None
    lets anybody call the JSON routes, which only the dev profile does.
    """

    services: Services
    outcomes: OutcomeSource
    new_correlation_id: Callable[[], str]
    network: AiohttpTransport
    open_circuits: Callable[[], tuple[str, ...]]
    jwks: Callable[[], bytes]
    missing_scopes: Callable[[], Mapping[str, tuple[str, ...]]]
    vendor: VendorAccess
    access: Access
    fhir: FhirClient
    cds: CdsAccess | None
    json_callers: JsonCallers | None
    batches: Batches | None

    async def aclose(self) -> None:
        """Close connections and files; the real worker never calls this, tests and command lines do."""
        await self.network.aclose()
        if isinstance(self.services.store, SqliteStore):
            await self.services.store.aclose()


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
    models = BundleFolder(
        settings.bundles,
        allow_pickle=settings.allow_pickle,
        trusted_keys=tuple(file.read_bytes() for file in settings.trusted_keys),
        unfetchable=lambda spec: (*unfetchable(spec), *site.unreadable(spec)),
    )
    let_in = access(
        settings.auth,
        fhir_base=settings.fhir_base,
        vendor_base=settings.vendor_base,
        models=models,
        transport=transport,
        elsewhere=settings.vendor.reads,
        writes=write_scopes(settings.outputs),
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
    source = FhirSource(
        client,
        clock=clock,
        zone=settings.zone,
        csn_system=settings.csn_system,
        credentials=let_in.fhir,
        group_reads=vendor.reads,
    )
    store = MemoryStore() if settings.store_file is None else SqliteStore(settings.store_file)
    outputs = outputs_of(
        settings.outputs,
        Reach(
            environment=settings.environment,
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
    policies = read_policies(
        settings.deployments,
        models=models,
        outputs=(output.name for output in outputs),
        all_declared=settings.profile is Profile.PROD,
    )
    services = Services(
        site=Site(
            name=settings.site,
            environment=settings.environment,
            id_key=settings.id_key,
            deadline_s=settings.deadline_s,
        ),
        clock=clock,
        store=store,
        records=store,
        source=FetchOnce(source, clock=clock, needs=_needs),
        models=models,
        outputs=outputs,
        policies=policies,
        switches=Switches(store, clock=clock, site=settings.site, policies=policies),
    )
    cds = None
    if settings.profile is Profile.DEV or settings.cds.clients is not None:
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
        outcomes=source,
        new_correlation_id=new_correlation_id,
        network=network,
        open_circuits=resilient.open_circuits,
        jwks=let_in.jwks,
        missing_scopes=let_in.missing_scopes,
        vendor=vendor,
        access=let_in,
        fhir=client,
        cds=cds,
        json_callers=json_callers(settings.json, transport=transport),
        batches=_batches(settings, services, fhir=client, vendor=vendor),
    )


def _batches(settings: Settings, services: Services, *, fhir: FhirClient, vendor: VendorAccess) -> Batches | None:
    if settings.batch.folder is None:
        return None
    # A tenth of a start is spent on these modules, and most workers answer requests only.
    from deployr_serve.batch_bootstrap import batches_of

    return batches_of(settings.batch, services, fhir=fhir, vendor=vendor, site_zone=settings.zone)


def _needs(spec: FeatureSpec, subject: Subject, as_of: datetime) -> Hashable:
    return tuple(plan(spec, patient_id=subject.patient_id, as_of=as_of).items())


def _network(settings: Settings, clock: Clock) -> AiohttpTransport:
    try:
        return AiohttpTransport(
            timeout_s=settings.deadline_s, clock=clock, connections=settings.connections, ca_file=settings.ca_file
        )
    except (OSError, ssl.SSLError):
        raise SettingsInvalid("settings: DEPLOYR_EMR_CA_FILE: expected certificates in PEM") from None

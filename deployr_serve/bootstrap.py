"""Puts the app together: settings to adapters to services. The only module that names adapters."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime

from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.fetch_once import FetchOnce
from deployr_serve.adapters.fhir_plan import plan, unfetchable
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport, Transport
from deployr_serve.adapters.ids import new_correlation_id
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.resilience import ResilientTransport
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.auth_bootstrap import Access, access
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import Services, Site
from deployr_serve.core.ports import Clock, InferenceStore, OutcomeSource, Output
from deployr_serve.settings import Settings
from deployr_serve.vendor_bootstrap import VendorAccess, epic_site, vendor_access


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """The services, what the label extractors need, and how to let go of it all.

    ``open_circuits`` names the servers that did not answer lately and are left alone. ``jwks`` gives our public keys.
    ``missing_scopes`` gives for each model what it needs and the EMR's last token did not grant. ``vendor`` resolves
    identifiers and reads by the vendor's services. ``access`` and ``fhir`` are what `deployr doctor` examines.
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
    )
    client = FhirClient(
        base=settings.fhir_base,
        transport=transport,
        credentials=let_in.fhir,
        clock=clock,
        search_by_get=settings.search_by_get,
        fhir_version=settings.fhir_version,
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
    outputs: tuple[Output, ...] = ()
    if settings.vendor_base is not None:
        outputs = (
            ScoreColumn(
                vendor_base=settings.vendor_base,
                transport=transport,
                credentials=let_in.vendor,
                namespace=settings.score_namespace,
            ),
        )
    store: InferenceStore = MemoryStore() if settings.store_file is None else SqliteStore(settings.store_file)
    services = Services(
        site=Site(
            name=settings.site,
            environment=settings.environment,
            id_key=settings.id_key,
            deadline_s=settings.deadline_s,
        ),
        clock=clock,
        store=store,
        source=FetchOnce(source, clock=clock, needs=_needs),
        models=models,
        outputs=outputs,
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
    )


def _needs(spec: FeatureSpec, subject: Subject, as_of: datetime) -> Hashable:
    return tuple(plan(spec, patient_id=subject.patient_id, as_of=as_of).items())


def _network(settings: Settings, clock: Clock) -> AiohttpTransport:
    try:
        return AiohttpTransport(
            timeout_s=settings.deadline_s, clock=clock, connections=settings.connections, ca_file=settings.ca_file
        )
    except (OSError, ssl.SSLError):
        raise SettingsInvalid("settings: DEPLOYR_EMR_CA_FILE: expected certificates in PEM") from None

"""Puts the app together: settings to adapters to services. The only module that names adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployr_serve.adapters.auth import ClientKey, Credentials, NoCredentials, SmartBackend
from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.fhir_plan import unfetchable
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport
from deployr_serve.adapters.ids import new_correlation_id
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.infer import Services, Site
from deployr_serve.core.ports import InferenceStore, OutcomeSource, Output
from deployr_serve.settings import Settings, SmartSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """The services, what the label extractors need, and how to let go of it all."""

    services: Services
    outcomes: OutcomeSource
    new_correlation_id: Callable[[], str]
    transport: AiohttpTransport

    async def aclose(self) -> None:
        """Close connections and files; the real worker never calls this, tests and command lines do."""
        await self.transport.aclose()
        if isinstance(self.services.store, SqliteStore):
            await self.services.store.aclose()


def build(settings: Settings) -> Application:
    """Put the app together; models are loaded and verified here, connections are made on first use."""
    clock = ReplayClock(settings.clock_file) if settings.clock_file else SystemClock()
    transport = AiohttpTransport(timeout_s=settings.deadline_s)
    credentials: Credentials = NoCredentials()
    if settings.smart is not None:
        credentials = _smart_backend(settings.smart, settings.fhir_base, transport)
    client = FhirClient(
        base=settings.fhir_base,
        transport=transport,
        credentials=credentials,
        clock=clock,
        search_by_get=settings.search_by_get,
    )
    source = FhirSource(client, zone=settings.zone, csn_system=settings.csn_system)
    outputs: tuple[Output, ...] = ()
    if settings.vendor_base is not None:
        outputs = (
            ScoreColumn(
                vendor_base=settings.vendor_base,
                transport=transport,
                credentials=credentials,
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
        source=source,
        models=BundleFolder(
            settings.bundles,
            allow_pickle=settings.allow_pickle,
            trusted_keys=tuple(file.read_bytes() for file in settings.trusted_keys),
            unfetchable=unfetchable,
        ),
        outputs=outputs,
    )
    return Application(services=services, outcomes=source, new_correlation_id=new_correlation_id, transport=transport)


def _smart_backend(smart: SmartSettings, fhir_base: str, transport: AiohttpTransport) -> SmartBackend:
    key = ClientKey(pem=smart.key_file.read_bytes(), key_id=smart.key_id, algorithm=smart.algorithm)
    return SmartBackend(
        fhir_base=fhir_base,
        client_id=smart.client_id,
        key=key,
        scope=smart.scope,
        transport=transport,
        clock=SystemClock(),
    )

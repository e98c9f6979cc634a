"""Puts the site's batches together: declarations to worklists and the queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Any, assert_never

from deployr_serve.adapters.batch_files import read_batches
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.queues import HostQueue
from deployr_serve.adapters.roll_call import EmrRollCaller
from deployr_serve.adapters.worklist_reports import CsvWorklist, SqlWorklist, connect_by
from deployr_serve.adapters.worklists import CensusWorklist, EncounterWorklist
from deployr_serve.batch_settings import BatchSettings
from deployr_serve.core.batch import Batch, CsvDrop, EncounterSearch, SqlReport, UnitCensus, Worklist
from deployr_serve.core.batch_start import Batches
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import Services
from deployr_serve.local_host.queue_storage import open_queues
from deployr_serve.vendor_bootstrap import VendorAccess

QUEUE = "deployr-chunks"
"""What the queue is called, here and where its trigger is declared."""


def queue_of(at: str | None) -> str:
    """Give the name of a site's queue; several sites that are served together have one each."""
    return QUEUE if at is None else f"{QUEUE}-{at}"


def batches_of(
    settings: BatchSettings,
    services: Services,
    *,
    fhir: FhirClient,
    vendor: VendorAccess,
    site_zone: tzinfo,
    at: str | None = None,
) -> Batches | None:
    """Put them together; None where the site has none. ``at``: under which name it is served beside others.

    Raises:
        SettingsInvalid: a batch's file is wrong, or something that it needs is not configured.
    """
    declared = read_batches(settings.folder, models=services.models, policies=services.policies)
    if not declared:
        return None
    if settings.queue is None:
        expected = "expected sqlite: and a file, or an Azure Storage connection, for the chunks of batches"
        raise SettingsInvalid(f"settings: AzureWebJobsStorage: {expected}")
    try:
        queues = open_queues(settings.queue, clock=services.clock.now)
    except ValueError as error:
        raise SettingsInvalid(f"settings: AzureWebJobsStorage: {error}") from None
    try:
        connect = None if settings.database is None else connect_by(settings.database)
    except ValueError as error:
        raise SettingsInvalid(f"settings: DEPLOYR_BATCH_DATABASE: {error}") from None
    worklists = {
        batch.name: _worklist(batch, services, fhir=fhir, vendor=vendor, connect=connect) for batch in declared
    }
    return Batches(
        declared=declared,
        services=services,
        queue=HostQueue(queues, name=queue_of(at)),
        at=at,
        roll_caller=EmrRollCaller(fhir, patients=vendor.patients, encounters=vendor.encounters),
        worklists=worklists,
        site_zone=site_zone,
    )


def _worklist(
    batch: Batch, services: Services, *, fhir: FhirClient, vendor: VendorAccess, connect: Callable[[], Any] | None
) -> Worklist:
    match batch.worklist:
        case UnitCensus() as declared:
            if vendor.census is None:
                raise SettingsInvalid(f"batches: {batch.name}: a census is read by DEPLOYR_EMR_VENDOR_BASE; set it")
            return CensusWorklist(vendor.census, declared)
        case EncounterSearch() as declared:
            return EncounterWorklist(fhir, declared)
        case CsvDrop() as declared:
            return CsvWorklist(declared, clock=services.clock)
        case SqlReport() as declared:
            if connect is None:
                raise SettingsInvalid(f"batches: {batch.name}: a query is asked of DEPLOYR_BATCH_DATABASE; set it")
            return SqlWorklist(declared, clock=services.clock, connect=connect)
        case other:
            assert_never(other)

"""Puts together what is read by the vendor's web services, and who resolves identifiers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from deployr_serve.adapters.auth import Credentials
from deployr_serve.adapters.epic_census import EpicCensus
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.adapters.epic_components import SHIPPED, read_vendor_codes
from deployr_serve.adapters.epic_reads import EpicReads, EpicSite
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.group_reads import GroupReads
from deployr_serve.adapters.http import Transport
from deployr_serve.adapters.identity import Encounters, FhirPatients, PatientIndex, VendorPatients
from deployr_serve.adapters.subjects import ChartSubjects
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock, Subjects
from deployr_serve.vendor_settings import Interface, VendorSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorAccess:
    """``reads``: what takes the place of FHIR searches. ``census``: None without a vendor base."""

    reads: tuple[GroupReads, ...]
    patients: PatientIndex
    encounters: Encounters
    subjects: Subjects
    census: EpicCensus | None


def epic_site(settings: VendorSettings, *, zone: tzinfo) -> EpicSite:
    """Read the site's file of vendor codes, or the one that is shipped.

    Raises:
        SettingsInvalid: it is not what it must be; the message names the place.
    """
    try:
        codes = read_vendor_codes(settings.components_file or SHIPPED)
    except ValueError as error:
        raise SettingsInvalid(f"settings: DEPLOYR_EMR_COMPONENTS: {error}") from None
    return EpicSite(
        names=frozenset(settings.reads),
        codes=codes,
        zone=zone,
        user_id=settings.user_id,
        user_id_type=settings.user_id_type,
        demographics_of_2019=settings.reads.get("patient") is Interface.EPIC_2019,
    )


def vendor_access(
    settings: VendorSettings,
    *,
    site: EpicSite,
    vendor_base: str | None,
    csn_system: str | None,
    fhir: FhirClient,
    transport: Transport,
    credentials: Credentials,
    clock: Clock,
) -> VendorAccess:
    """Put it together; nothing is sent."""
    encounters = Encounters(fhir, csn_system=csn_system)
    patients: PatientIndex = FhirPatients(fhir, systems=settings.identifier_systems, encounters=encounters)
    reads: tuple[GroupReads, ...] = ()
    census = None
    if vendor_base is not None:
        client = VendorClient(base=vendor_base, transport=transport, credentials=credentials, clock=clock)
        by_vendor = VendorPatients(client)
        if site.names:
            reads = (EpicReads(client, site=site, patients=by_vendor, encounters=encounters),)
        if settings.identity is Interface.EPIC:
            patients = by_vendor
        census = EpicCensus(client, user=site.user)
    return VendorAccess(
        reads=reads,
        patients=patients,
        encounters=encounters,
        subjects=ChartSubjects(fhir, patients=patients, encounters=encounters, systems=settings.identifier_systems),
        census=census,
    )

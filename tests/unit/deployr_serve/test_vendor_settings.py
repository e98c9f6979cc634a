"""What is read how: settings, and the reads that they put together."""

from __future__ import annotations

import json
from datetime import UTC

import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_components import SHIPPED, read_vendor_codes
from deployr_serve.adapters.identity import FhirPatients, VendorPatients
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings
from deployr_serve.vendor_bootstrap import epic_site, vendor_access
from deployr_serve.vendor_settings import Interface

LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4"}
VENDOR = {"DEPLOYR_EMR_VENDOR_BASE": "https://emr.example/Interconnect", "DEPLOYR_EMR_USER_ID": "bridge"}


def settings_of(**more):
    return read_settings({**LEAST, **VENDOR, **more})


def test_everything_is_read_by_fhir_unless_told_otherwise():
    vendor = read_settings(LEAST).vendor
    assert (vendor.reads, vendor.identity, vendor.needs_vendor_base) == ({}, Interface.FHIR, False)
    assert settings_of(DEPLOYR_EMR_READS="labs=fhir").vendor.reads == {}


def test_each_group_names_its_interface():
    vendor = settings_of(DEPLOYR_EMR_READS="labs=epic, vitals=fhir, patient=epic-2019").vendor
    assert vendor.reads == {"labs": Interface.EPIC, "patient": Interface.EPIC_2019}


def test_each_identifier_type_names_its_system():
    vendor = settings_of(DEPLOYR_EMR_IDENTIFIER_SYSTEMS="MRN=urn:oid:1.2,EPI=https://emr.example/epi?x=1").vendor
    assert vendor.identifier_systems == {"MRN": "urn:oid:1.2", "EPI": "https://emr.example/epi?x=1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOYR_EMR_READS", "labs"),
        ("DEPLOYR_EMR_READS", "labs=epic,labs=fhir"),
        ("DEPLOYR_EMR_READS", "labs=epic-2019"),
        ("DEPLOYR_EMR_READS", "notes=epic"),
        ("DEPLOYR_EMR_READS", "labs=EPIC"),
        ("DEPLOYR_EMR_COMPONENTS", "missing.json"),
        ("DEPLOYR_EMR_IDENTITY", "epic-2019"),
        ("DEPLOYR_EMR_IDENTIFIER_SYSTEMS", "MRN"),
        ("DEPLOYR_EMR_IDENTIFIER_SYSTEMS", "MRN=urn:a,EPI=urn:a"),
        ("DEPLOYR_EMR_IDENTIFIER_SYSTEMS", "MRN=urn:a,MRN=urn:b"),
    ],
)
def test_a_wrong_value_is_refused_by_its_setting(name, value):
    with pytest.raises(SettingsInvalid, match=f"{name}: expected"):
        settings_of(**{name: value})


def test_reading_by_the_vendor_needs_its_base_and_a_user():
    with pytest.raises(SettingsInvalid) as raised:
        read_settings({**LEAST, "DEPLOYR_EMR_READS": "labs=epic"})
    assert "DEPLOYR_EMR_VENDOR_BASE" in str(raised.value)
    assert "DEPLOYR_EMR_USER_ID" in str(raised.value)
    with pytest.raises(SettingsInvalid, match="DEPLOYR_EMR_VENDOR_BASE"):
        read_settings({**LEAST, "DEPLOYR_EMR_IDENTITY": "epic"})


def test_a_file_of_components_that_is_none_stops_the_start(tmp_path):
    path = tmp_path / "components.json"
    path.write_text(json.dumps({"schema_version": 1, "componets": []}))
    vendor = settings_of(DEPLOYR_EMR_COMPONENTS=str(path)).vendor
    with pytest.raises(SettingsInvalid, match=r"DEPLOYR_EMR_COMPONENTS: .*componets"):
        epic_site(vendor, zone=UTC)


@pytest.fixture
def access_of(clock, transport_of, client_of):
    """Give a function that puts together what these settings say."""

    def make(settings):
        transport = transport_of({})
        return vendor_access(
            settings.vendor,
            site=epic_site(settings.vendor, zone=settings.zone),
            vendor_base=settings.vendor_base,
            csn_system=settings.csn_system,
            fhir=client_of(transport),
            transport=transport,
            credentials=NoCredentials(),
            clock=clock,
        )

    return make


def test_what_the_settings_say_is_put_together(access_of):
    access = access_of(settings_of(DEPLOYR_EMR_READS="labs=epic", DEPLOYR_EMR_IDENTITY="epic"))
    [reads] = access.reads
    assert reads.names == {"labs"}
    assert isinstance(access.patients, VendorPatients)
    assert access.census is not None


def test_without_a_vendor_there_is_fhir(access_of):
    access = access_of(read_settings(LEAST))
    assert (access.reads, access.census) == ((), None)
    assert isinstance(access.patients, FhirPatients)
    assert access_of(settings_of()).reads == ()


def test_the_shipped_file_is_used_unless_the_site_has_its_own():
    assert epic_site(settings_of().vendor, zone=UTC).codes == read_vendor_codes(SHIPPED)

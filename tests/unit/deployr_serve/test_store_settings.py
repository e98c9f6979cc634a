"""Where the store is, as the settings say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployr_cli.up_azure import STORAGE_KEY
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings
from deployr_serve.store_settings import InCosmos, InFile, InMemory, store_too_weak_for_production

LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4"}
COSMOS = {
    "DEPLOYR_STORE": "cosmos:https://site.documents.azure.com:443/",
    "DEPLOYR_STORE_BLOBS": "https://site.blob.core.windows.net/",
}
CONNECTION = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={STORAGE_KEY};BlobEndpoint=http://127.0.0.1/a"


def stored(**settings):
    return read_settings({**LEAST, **settings}).store


def refusal(**settings):
    with pytest.raises(SettingsInvalid) as refused:
        stored(**settings)
    return str(refused.value)


def test_a_store_is_in_memory_in_a_file_or_in_an_account():
    assert stored() == InMemory()
    assert stored(DEPLOYR_STORE="sqlite:/data/store.sqlite") == InFile(file=Path("/data/store.sqlite"))
    assert stored(**COSMOS) == InCosmos(
        address="https://site.documents.azure.com:443",
        database="deployr",
        key=None,
        blobs="https://site.blob.core.windows.net",
        identity=None,
    )


def test_a_key_and_a_connection_string_are_taken_and_never_shown():
    held = stored(**COSMOS | {"DEPLOYR_STORE_KEY": STORAGE_KEY, "DEPLOYR_STORE_BLOBS": CONNECTION})
    assert (held.key, held.blobs) == (STORAGE_KEY, CONNECTION)
    assert STORAGE_KEY not in repr(held)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DEPLOYR_STORE", "cosmos:"),
        ("DEPLOYR_STORE", "cosmos:site"),
        ("DEPLOYR_STORE", "cosmos:https://user@site.documents.azure.com"),
        ("DEPLOYR_STORE", "mongo:https://site"),
        ("DEPLOYR_STORE_DATABASE", "de/ployr"),
        ("DEPLOYR_STORE_KEY", "not base64"),
        ("DEPLOYR_STORE_BLOBS", "site"),
        ("DEPLOYR_STORE_BLOBS", "AccountName=a;EndpointSuffix=core.windows.net"),
    ],
)
def test_what_names_no_store_is_refused_by_the_settings_name_without_its_value(setting, value):
    message = refusal(**COSMOS | {setting: value})
    assert f"{setting}: expected" in message
    assert value == "cosmos:" or value.removeprefix("cosmos:") not in message


def test_an_account_needs_a_place_for_what_is_too_large_for_it():
    assert "DEPLOYR_STORE_BLOBS: the setting is missing" in refusal(DEPLOYR_STORE=COSMOS["DEPLOYR_STORE"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, set()),
        ({"DEPLOYR_STORE": "memory"}, {"DEPLOYR_STORE"}),
        ({"DEPLOYR_STORE": "sqlite:/data/x"}, set()),
        ({"DEPLOYR_STORE": "cosmos:http://127.0.0.1:8081"}, {"DEPLOYR_STORE"}),
        ({"DEPLOYR_STORE_BLOBS": CONNECTION}, {"DEPLOYR_STORE_BLOBS"}),
        ({"DEPLOYR_STORE_BLOBS": "http://127.0.0.1:10000/a"}, {"DEPLOYR_STORE_BLOBS"}),
    ],
)
def test_production_takes_a_durable_store_behind_tls_only(changes, named):
    assert set(store_too_weak_for_production(stored(**COSMOS | changes))) == named

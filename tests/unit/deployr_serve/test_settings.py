from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.local_host.host_json import read_host_json
from deployr_serve.settings import Profile, read_settings
from deployr_serve.store_settings import InMemory

ROOT = Path(__file__).parents[3]
LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4"}


@pytest.fixture
def production(tmp_path):
    key = tmp_path / "key.pem"
    key.write_text("a key")
    callers = tmp_path / "callers.json"
    callers.write_text('{"callers": [{"name": "engine", "models": ["*"], "password": "correct horse battery"}]}')
    return {
        **LEAST,
        "DEPLOYR_JSON_CALLERS": str(callers),
        "DEPLOYR_PROFILE": "prod",
        "DEPLOYR_STORE": "sqlite:/data/store.sqlite",
        "DEPLOYR_AUDIT": "folder:/data/audit",
        "DEPLOYR_ID_KEY": "0123456789abcdef",
        "DEPLOYR_EMR_CLIENT_ID": "client-1",
        "DEPLOYR_EMR_KEY_FILE": str(key),
        "DEPLOYR_EMR_KEY_ID": "key-1",
    }


def refusal(source) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(source)
    return str(caught.value)


def test_two_settings_are_enough_to_try_it_out():
    settings = read_settings(LEAST)
    assert settings.profile is Profile.DEV
    assert settings.bundles == Path("bundles")
    assert settings.fhir_base == "https://emr.example/api/FHIR/R4"
    assert (settings.store, settings.vendor_base, settings.clock_file) == (InMemory(), None, None)
    assert (settings.auth.fhir, settings.auth.vendor) == ("none", "none")
    assert (settings.deadline_s, settings.search_by_get) == (8.0, False)
    assert len(settings.id_key) >= 16


def test_a_run_of_labels_begins_no_patient_when_the_host_is_about_to_end_it():
    limit = read_host_json(ROOT / "host.json").function_timeout
    assert limit is not None
    assert read_settings(LEAST).labels.budget_s <= limit.total_seconds() - 60


def test_every_missing_setting_is_named_at_once():
    message = refusal({"DEPLOYR_EMR_CLIENT_ID": "client-1"})
    missing = ("DEPLOYR_BUNDLES", "DEPLOYR_EMR_FHIR_BASE", "DEPLOYR_EMR_KEY_FILE")
    assert [name for name in missing if f"{name}: the setting is missing" not in message] == []


def test_an_empty_setting_counts_as_missing():
    assert "DEPLOYR_BUNDLES: the setting is missing" in refusal({**LEAST, "DEPLOYR_BUNDLES": ""})
    assert read_settings({**LEAST, "DEPLOYR_STORE": ""}).store == InMemory()


def test_a_misspelt_setting_is_refused_with_the_one_that_was_probably_meant():
    message = refusal({**LEAST, "DEPLOYR_TRUSTED_KEY": "keys/site.pem", "DEPLOYR_XYZZY": "secret"})
    assert "DEPLOYR_TRUSTED_KEY: there is no such setting; did you mean DEPLOYR_TRUSTED_KEYS?" in message
    assert "DEPLOYR_XYZZY: there is no such setting" in message
    assert "secret" not in message


def test_settings_of_others_are_left_alone():
    read_settings({**LEAST, "DEPLOYR_HOST_MASTER_KEY": "k", "AzureWebJobsStorage": "x", "PATH": "/bin"})


def test_missing_and_wrong_settings_are_named_together():
    message = refusal({"DEPLOYR_DEADLINE_S": "soon", "DEPLOYR_STORE": "postgres:x", "DEPLOYR_EMR_SEARCH": "put"})
    for name in ("BUNDLES", "EMR_FHIR_BASE", "DEADLINE_S", "STORE", "EMR_SEARCH"):
        assert f"DEPLOYR_{name}:" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOYR_PROFILE", "production"),
        ("DEPLOYR_SITE", "a b"),
        ("DEPLOYR_ENVIRONMENT", "x" * 41),
        ("DEPLOYR_ENVIRONMENT", "prüf"),
        ("DEPLOYR_STORE", "sqlite:"),
        ("DEPLOYR_STORE", "/data/store.sqlite"),
        ("DEPLOYR_ID_KEY", "fifteen-bytes-x"),
        ("DEPLOYR_EMR_FHIR_BASE", "emr.example/fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "ftp://emr.example/fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://"),
        ("DEPLOYR_EMR_FHIR_BASE", "https:///fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://emr.example:port/fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://emr.example:99999/fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://[::1/fhir"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://emr.example/fhir?x=1"),
        ("DEPLOYR_EMR_FHIR_BASE", "https://emr.example/fhir#x"),
        ("DEPLOYR_EMR_VENDOR_BASE", "https://user:pass@emr.example"),
        ("DEPLOYR_EMR_SEARCH", "POST"),
        ("DEPLOYR_EMR_PATIENT_REFERENCE", "Patient/id"),
        ("DEPLOYR_EMR_FHIR_VERSION", "r4"),
        ("DEPLOYR_EMR_FHIR_VERSION", "DSTU2"),
        ("DEPLOYR_TIME_ZONE", "Mars/Olympus"),
        ("DEPLOYR_DEADLINE_S", "8s"),
        ("DEPLOYR_DEADLINE_S", "nan"),
        ("DEPLOYR_DEADLINE_S", "inf"),
        ("DEPLOYR_DEADLINE_S", "0"),
        ("DEPLOYR_DEADLINE_S", "230.1"),
        ("DEPLOYR_SCORE_NAMESPACE", "SHC.HCT@1"),
        ("DEPLOYR_EMR_CONNECTIONS", "0"),
        ("DEPLOYR_EMR_CONNECTIONS", "-1"),
        ("DEPLOYR_EMR_CONNECTIONS", "many"),
        ("DEPLOYR_EMR_CONNECTIONS", "10000"),
        ("DEPLOYR_EMR_BATCH_CONNECTIONS", "1.5"),
        ("DEPLOYR_EMR_CA_FILE", "/nowhere.pem"),
    ],
)
def test_a_wrong_value_is_refused_by_the_settings_name_and_what_was_expected(name, value):
    message = refusal({**LEAST, name: value})
    assert f"{name}: expected" in message
    assert message.count("DEPLOYR_") == 1


@pytest.mark.parametrize(("name", "value"), [("ALGORITHM", "HS256"), ("ALGORITHM", "none"), ("FILE", "/nowhere.pem")])
def test_a_key_that_cannot_be_used_is_refused(production, name, value):
    assert f"DEPLOYR_EMR_KEY_{name}: expected" in refusal({**production, f"DEPLOYR_EMR_KEY_{name}": value})


@pytest.mark.parametrize(
    ("name", "value", "seconds"), [("DEPLOYR_DEADLINE_S", "0.1", 0.1), ("DEPLOYR_DEADLINE_S", "230", 230.0)]
)
def test_the_bounds_of_the_deadline_are_included(name, value, seconds):
    assert read_settings({**LEAST, name: value}).deadline_s == seconds


def test_some_connections_are_always_left_for_clicks():
    settings = read_settings(LEAST)
    assert (settings.connections, settings.batch_connections, settings.ca_file) == (64, 16, None)
    fewest = {"DEPLOYR_EMR_CONNECTIONS": "2", "DEPLOYR_EMR_BATCH_CONNECTIONS": "1"}
    assert read_settings({**LEAST, **fewest}).connections == 2
    message = refusal({**LEAST, "DEPLOYR_EMR_CONNECTIONS": "16"})
    assert "DEPLOYR_EMR_BATCH_CONNECTIONS: expected fewer than DEPLOYR_EMR_CONNECTIONS" in message


def test_a_slash_at_the_end_of_a_base_url_does_not_matter():
    settings = read_settings({**LEAST, "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir/"})
    assert settings.fhir_base == "https://emr.example/fhir"


def test_the_zone_may_be_an_offset():
    zone = read_settings({**LEAST, "DEPLOYR_TIME_ZONE": "+05:45"}).zone
    assert zone.utcoffset(None) == timedelta(hours=5, minutes=45)


# -- production


def test_a_whole_set_of_settings_is_fit_for_production(production):
    settings = read_settings(production)
    assert settings.profile is Profile.PROD
    assert (settings.auth.fhir, settings.auth.smart.algorithm, settings.auth.smart.scope) == ("smart", "RS384", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOYR_EMR_FHIR_BASE", "http://emr.example/fhir"),
        ("DEPLOYR_EMR_VENDOR_BASE", "http://emr.example"),
        ("DEPLOYR_EMR_AUTH", "none"),
        ("DEPLOYR_STORE", ""),
        ("DEPLOYR_STORE", "memory"),
        ("DEPLOYR_ID_KEY", ""),
        ("DEPLOYR_CLOCK_FILE", "/tmp/clock"),
        ("DEPLOYR_JSON_CALLERS", ""),
    ],
)
def test_what_is_only_good_enough_for_trying_out_is_refused_in_production(production, name, value):
    message = refusal({**production, name: value})
    assert f"{name}:" in message
    assert message.count("DEPLOYR_") == 1


def test_production_is_told_of_everything_at_once_and_of_each_thing_once():
    message = refusal({"DEPLOYR_PROFILE": "prod", "DEPLOYR_ID_KEY": "short", "DEPLOYR_CLOCK_FILE": "/tmp/clock"})
    for name in ("BUNDLES", "EMR_FHIR_BASE", "ID_KEY", "EMR_AUTH", "STORE", "CLOCK_FILE"):
        assert message.count(f"DEPLOYR_{name}:") == 1
    assert "DEPLOYR_ID_KEY: expected a secret of at least 16 bytes" in message


# -- secrets


def test_no_secret_is_repeated_when_it_is_refused(production):
    message = refusal({**production, "DEPLOYR_ID_KEY": "SECRET-CANARY", "DEPLOYR_STORE": "sqlite"})
    assert "CANARY" not in message
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({**LEAST, "DEPLOYR_ID_KEY": "SECRET-CANARY"})
    assert caught.value.__cause__ is None


def test_a_password_in_a_url_is_refused_without_repeating_it():
    assert "CANARY" not in refusal({**LEAST, "DEPLOYR_EMR_FHIR_BASE": "https://user:CANARY@emr.example"})


def test_the_id_key_is_not_in_the_settings_repr():
    assert "CANARY" not in repr(read_settings({**LEAST, "DEPLOYR_ID_KEY": "0123456789-CANARY"}))


def test_the_example_file_names_every_setting_and_no_value():
    example = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]
    named = {name for name in example if name.startswith(("DEPLOYR_", "AzureWebJobsStorage", "APPLICATIONINSIGHTS_"))}

    class Noting(dict):
        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

    read: set[str] = set()
    with pytest.raises(SettingsInvalid):
        read_settings(Noting(DEPLOYR_EMR_CLIENT_ID="client-1"))
    assert named == read
    assert {example[name] for name in named} == {""}


def test_every_setting_stands_on_the_page_of_settings_or_on_one_that_it_links():
    page = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    _, _, settings = page.partition("\n## Settings\n")
    linked = sorted(set(re.findall(r"\]\(([\w-]+\.md)", settings)))
    told = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in linked) + settings
    example = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]
    assert [name for name in example if name != "FUNCTIONS_WORKER_RUNTIME" and f"`{name}`" not in told] == []

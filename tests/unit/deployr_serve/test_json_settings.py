"""The file of who may call the JSON routes: whatever would leave a caller unchecked stops the start."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings
from tests.json_callers import APPLICATION, OURS, PASSWORD, SECRET, write_callers

BASE = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}
TENANT = {"tenant": OURS, "audience": "api"}
ENGINE = {"name": "engine", "models": ["hematocrit"], "password": PASSWORD}
ENTRA = {"name": "entra", "models": ["*"], "tenant": OURS, "application": APPLICATION}
MUTUAL = {"name": "mutual", "models": ["*"], "certificate_sha256": "0" * 64}
GATEWAY = {"header": "X-Gateway-Proof", "secret": SECRET}


def read(file):
    return read_settings({**BASE, "DEPLOYR_JSON_CALLERS": file}).json


def test_one_caller_of_each_kind_is_read(tmp_path):
    settings = read(write_callers(tmp_path))
    assert [caller.name for caller in settings.callers] == ["engine", "other", "visitor", "entra", "mutual"]
    assert [caller.may_ask("hematocrit") for caller in settings.callers] == [True, True, False, True, True]
    assert settings.per_s == 50.0
    assert settings.tenants[0].keys.jwks_file == str(tmp_path / "entra.json")
    assert SECRET not in repr(settings)
    assert PASSWORD not in repr(settings)


def test_keys_that_are_not_pinned_are_entras_own(tmp_path):
    [tenant] = read(write_callers(tmp_path, callers=[ENTRA], tenants=[TENANT])).tenants
    assert tenant.keys.issuer == f"https://login.microsoftonline.com/{OURS}/v2.0"
    assert tenant.keys.jwks_url == f"https://login.microsoftonline.com/{OURS}/discovery/v2.0/keys"


@pytest.mark.parametrize(
    "changes",
    [
        {"callers": []},
        {"callers": [ENGINE, ENGINE]},
        {"callers": [{**ENGINE, "name": "a:b"}]},
        {"callers": [{**ENGINE, "models": []}]},
        {"callers": [{**ENGINE, "models": ["../hct"]}]},
        {"callers": [{**ENGINE, "model": ["hematocrit"]}]},
        {"callers": [{**ENGINE, "password": "short"}]},
        {"callers": [{**ENGINE, "password": None}]},
        {"callers": [{**ENGINE, "role": "Scores.Ask"}]},
        {"callers": [{**ENGINE, "certificate_sha256": "0" * 64}]},
        {"callers": [{**ENTRA, "tenant": APPLICATION}]},
        {"callers": [{**ENTRA, "tenant": None}]},
        {"callers": [{**ENTRA, "application": "app"}]},
        {"callers": [{**ENTRA, "role": ""}]},
        {"callers": [ENTRA, {**ENTRA, "name": "again"}]},
        {"callers": [{**MUTUAL, "certificate_sha256": "AB" * 32}]},
        {"callers": [MUTUAL], "gateway": None},
        {"tenants": [TENANT, TENANT]},
        {"tenants": [{**TENANT, "tenant": "common"}]},
        {"tenants": [{**TENANT, "jwks_file": "absent.json"}]},
        {"gateway": {**GATEWAY, "secret": "short"}},
        {"gateway": {**GATEWAY, "header": "Authorization"}},
        {"gateway": {**GATEWAY, "header": "X-ARR-ClientCert"}},
        {"per_second": 0},
        {"per_seconds": 5},
    ],
)
def test_a_file_that_would_leave_a_caller_unchecked_is_refused_without_its_secrets(tmp_path, changes):
    with pytest.raises(SettingsInvalid) as refused:
        read(write_callers(tmp_path, **changes))
    assert "DEPLOYR_JSON_CALLERS: " in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_file_that_is_absent_or_says_something_twice_is_refused(tmp_path):
    twice = tmp_path / "twice.json"
    twice.write_text('{"callers": [], "callers": []}')
    for file in (twice, tmp_path / "absent.json"):
        with pytest.raises(SettingsInvalid, match="DEPLOYR_JSON_CALLERS"):
            read(str(file))


def test_the_documented_file_is_one_that_can_be_read(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "connecting.md").read_text(encoding="utf-8")
    [written] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    content = json.loads(re.sub("<64 hex digits[^>]*>", "0" * 64, written))
    settings = read(write_callers(tmp_path, **content))
    assert [caller.name for caller in settings.callers] == ["order-service", "engine", "night-report"]

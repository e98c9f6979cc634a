"""Where facts are kept and what seals them: what does not fit together stops the start, and no key is repeated."""

from __future__ import annotations

import pytest

from deployr_serve.adapters.facts_vault_blob import BlobFactsVault
from deployr_serve.adapters.facts_vault_sqlite import SqliteFactsVault
from deployr_serve.adapters.policies import read_policies
from deployr_serve.blueprint_facts import facts_blueprint
from deployr_serve.core.errors import SettingsInvalid, StoreUnavailable
from deployr_serve.facts_bootstrap import open_vault
from deployr_serve.settings import read_settings

KEY = "2026:" + "A" * 43 + "="
LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4"}


def facts(**settings):
    return read_settings({**LEAST, **settings}).facts


def refusal(**settings):
    with pytest.raises(SettingsInvalid) as caught:
        facts(**settings)
    return str(caught.value)


def test_without_a_vault_no_facts_are_kept():
    assert facts() is None


def test_keys_come_from_a_secret_or_from_a_file(tmp_path):
    (tmp_path / "keys").write_text(KEY + "\n")
    for given in ({"DEPLOYR_FACTS_KEYS": KEY}, {"DEPLOYR_FACTS_KEY_FILE": str(tmp_path / "keys")}):
        found = facts(DEPLOYR_FACTS_VAULT="sqlite:/data/facts.sqlite", **given)
        assert found.keys.newest == "2026"
        assert "AAAA" not in repr(found)


def test_one_of_both_is_needed_and_not_both(tmp_path):
    (tmp_path / "keys").write_text(KEY)
    both = {"DEPLOYR_FACTS_KEYS": KEY, "DEPLOYR_FACTS_KEY_FILE": str(tmp_path / "keys")}
    for given in ({}, both):
        message = refusal(DEPLOYR_FACTS_VAULT="sqlite:facts.sqlite", **given)
        assert "expected either DEPLOYR_FACTS_KEYS or DEPLOYR_FACTS_KEY_FILE" in message


@pytest.mark.parametrize("content", [b"", b"2026:short", b"\xff\xfe secret"])
def test_a_file_without_keys_is_refused_and_not_repeated(tmp_path, content):
    (tmp_path / "keys").write_bytes(content)
    message = refusal(DEPLOYR_FACTS_VAULT="sqlite:facts.sqlite", DEPLOYR_FACTS_KEY_FILE=str(tmp_path / "keys"))
    assert "DEPLOYR_FACTS_KEY_FILE: expected" in message
    assert "short" not in message
    assert "secret" not in message


@pytest.mark.parametrize("where", ["facts.sqlite", "sqlite:", "memory", "https://user@account.example/"])
def test_a_vault_nowhere_is_refused(where):
    assert "DEPLOYR_FACTS_VAULT: expected sqlite:" in refusal(DEPLOYR_FACTS_VAULT=where, DEPLOYR_FACTS_KEYS=KEY)


async def test_the_vault_is_a_file_or_a_container_in_a_storage_account():
    file = facts(DEPLOYR_FACTS_VAULT="sqlite:facts.sqlite", DEPLOYR_FACTS_KEYS=KEY)
    account = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YQ==;EndpointSuffix=core.windows.net"
    by_key = facts(DEPLOYR_FACTS_VAULT=account, DEPLOYR_FACTS_KEYS=KEY)
    by_identity = facts(DEPLOYR_FACTS_VAULT="https://account.blob.core.windows.net", DEPLOYR_FACTS_KEYS=KEY)
    assert "AccountKey" not in repr(by_key)
    kinds = (SqliteFactsVault, BlobFactsVault, BlobFactsVault)
    for settings, kind in zip((file, by_key, by_identity), kinds, strict=True):
        vault = open_vault(settings, deadline_s=8.0)
        assert isinstance(vault, kind)
        await vault.aclose()


def test_a_deployment_that_keeps_facts_needs_a_vault(tmp_path, models_of, bundle):
    (tmp_path / "hematocrit.yaml").write_text("schema_version: 1\nmodel: hematocrit\nmode: live\nkeep_facts_days: 90\n")
    options = {"models": models_of(hematocrit=bundle), "outputs": (), "all_declared": False}
    with pytest.raises(SettingsInvalid, match=r"hematocrit\.yaml: keep_facts_days: expected DEPLOYR_FACTS_VAULT"):
        read_policies(tmp_path, **options)
    assert read_policies(tmp_path, has_vault=True, **options).of("hematocrit").keep_facts_days == 90


# -- the timer


class FakeVault:
    def __init__(self, answer):
        self._answer = answer
        self.purged_at = []

    async def purge(self, *, now):
        self.purged_at.append(now)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def fire(vault, clock):
    [function] = facts_blueprint(vault, clock=clock)._function_builders
    await function.build().get_user_function()(None)


async def test_the_timer_purges_as_of_now_and_says_how_much(clock, now, caplog):
    caplog.set_level("INFO")
    vault = FakeVault(3)
    await fire(vault, clock)
    assert vault.purged_at == [now]
    assert "facts purged: records=3" in caplog.text


async def test_a_vault_that_is_down_is_said_and_tried_again_the_next_night(clock, caplog):
    await fire(FakeVault(StoreUnavailable("down")), clock)
    assert "facts not purged: error=StoreUnavailable" in caplog.text

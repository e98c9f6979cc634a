from __future__ import annotations

import json

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings

BASE = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}
PUBLIC = {"DEPLOYR_PUBLIC_BASE": "https://cds.example/"}


@pytest.fixture
def clients(tmp_path):
    """Give a function that writes a file of clients, and gives the setting."""

    def write(*listed):
        (tmp_path / "clients.json").write_text(json.dumps({"clients": listed}))
        return {"DEPLOYR_CDS_CLIENTS": str(tmp_path / "clients.json")}

    return write


def problem(**settings):
    with pytest.raises(SettingsInvalid) as invalid:
        read_settings({**BASE, **settings})
    return str(invalid.value)


def test_clients_are_read_with_their_keys_beside_them(clients, tmp_path):
    (tmp_path / "keys.json").write_text("{}")
    listed = clients(
        {"issuer": "a", "jwks_file": "keys.json"}, {"issuer": "a", "tenant": "t", "jwks_url": "https://b/c"}
    )
    cds = read_settings({**BASE, **PUBLIC, **listed}).cds
    assert cds.public_base == "https://cds.example"
    assert [(each.issuer, each.tenant) for each in cds.clients] == [("a", None), ("a", "t")]
    assert cds.clients[0].jwks_file == str(tmp_path / "keys.json")


@pytest.mark.parametrize(
    "client",
    [
        {"jwks_url": "https://b/c"},
        {"issuer": "", "jwks_url": "https://b/c"},
        {"issuer": "a"},
        {"issuer": "a", "jwks_url": "https://b/c", "jwks_file": "keys.json"},
        {"issuer": "a", "jwks_file": "absent.json"},
        {"issuer": "a", "jwks_url": "file:///etc/passwd"},
        {"issuer": "a", "jwks_url": "https://user@b/c"},
        {"issuer": "a", "jwks_url": "https://b/c", "jwks": []},
    ],
)
def test_a_client_that_could_not_be_checked_is_refused(clients, client):
    assert "DEPLOYR_CDS_CLIENTS" in problem(**PUBLIC, **clients(client))


def test_a_client_twice_and_no_client_at_all_are_refused(clients):
    one = {"issuer": "a", "jwks_url": "https://b/c"}
    assert "each issuer and tenant once" in problem(**PUBLIC, **clients(one, one))
    assert "at least one client" in problem(**PUBLIC, **clients())


def test_clients_need_the_address_that_their_tokens_name(clients):
    assert "DEPLOYR_PUBLIC_BASE" in problem(**clients({"issuer": "a", "jwks_url": "https://b/c"}))


def test_in_prod_keys_come_over_tls_and_never_the_sandboxs(clients):
    prod = {"DEPLOYR_PROFILE": "prod"}
    plain = clients({"issuer": "a", "jwks_url": "http://b/c"})
    assert "expected each jwks_url to be https" in problem(**prod, **PUBLIC, **plain)
    sandbox = clients({"issuer": "https://sandbox.cds-hooks.org", "jwks_url": "https://b/c"})
    assert "the public sandbox has no place" in problem(**prod, **PUBLIC, **sandbox)

"""The settings of credentials: which belong together, and what is refused by name."""

from __future__ import annotations

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings

LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4"}
PEM = "-----BEGIN PRIVATE KEY-----\\nCANARY\\n-----END PRIVATE KEY-----"
BASIC = {
    "DEPLOYR_EMR_AUTH": "basic",
    "DEPLOYR_EMR_BASIC_USER": "emp$bridge",
    "DEPLOYR_EMR_BASIC_PASSWORD": "a:CANARY",
}
SMART = {"DEPLOYR_EMR_CLIENT_ID": "client-1", "DEPLOYR_EMR_KEY": PEM}


def auth_of(**settings):
    return read_settings({**LEAST, **settings}).auth


def refusal(**settings) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        read_settings({**LEAST, **settings})
    return str(caught.value)


def test_a_client_id_alone_means_smart_and_nothing_means_none():
    assert auth_of(**SMART).fhir == "smart"
    assert auth_of().fhir == "none"


def test_the_vendors_base_takes_the_same_credentials_unless_it_is_told_otherwise():
    assert auth_of(**SMART).vendor == "smart"
    mixed = auth_of(**SMART, **{**BASIC, "DEPLOYR_EMR_AUTH": "smart"}, DEPLOYR_EMR_VENDOR_AUTH="basic")
    assert (mixed.fhir, mixed.vendor) == ("smart", "basic")
    assert (mixed.smart.client_id, mixed.basic.user, mixed.basic.client_id) == ("client-1", "emp$bridge", "client-1")


def test_a_key_on_one_line_gets_its_line_ends_back():
    assert auth_of(**SMART).smart.key_pem == "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----"


def test_settings_of_another_way_in_are_not_kept():
    auth = auth_of(**BASIC, DEPLOYR_EMR_SCOPE="system/*.rs")
    assert auth.smart is None
    assert auth.basic.password == "a:CANARY"


def test_old_keys_come_with_their_id_or_without(tmp_path):
    first, second = tmp_path / "a.pem", tmp_path / "b.pem"
    first.touch()
    second.touch()
    auth = auth_of(**SMART, DEPLOYR_EMR_OLD_KEY_FILES=f"{first}, key-7={second}")
    assert auth.smart.old_keys == ((None, first), ("key-7", second))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DEPLOYR_EMR_AUTH": "oauth"}, "DEPLOYR_EMR_AUTH: expected none, smart or basic"),
        ({**BASIC, "DEPLOYR_EMR_BASIC_USER": "emp$a:b"}, "DEPLOYR_EMR_BASIC_USER: expected"),
        ({**BASIC, "DEPLOYR_EMR_BASIC_USER": ""}, "DEPLOYR_EMR_BASIC_USER: the setting is missing"),
        ({**BASIC, "DEPLOYR_EMR_BASIC_PASSWORD": ""}, "DEPLOYR_EMR_BASIC_PASSWORD: the setting is missing"),
        ({**BASIC, "DEPLOYR_EMR_CLIENT_ID": "a\nb"}, "DEPLOYR_EMR_CLIENT_ID: expected printable ASCII"),
        ({"DEPLOYR_EMR_AUTH": "smart", "DEPLOYR_EMR_KEY": PEM}, "DEPLOYR_EMR_CLIENT_ID: the setting is missing"),
        ({**SMART, "DEPLOYR_EMR_KEY": ""}, "DEPLOYR_EMR_KEY_FILE: the setting is missing"),
        ({**SMART, "DEPLOYR_EMR_KEY": "CANARY"}, "DEPLOYR_EMR_KEY: expected a private key in PEM"),
        (
            {**SMART, "DEPLOYR_EMR_KEY_VAULT": "https://v.example/secrets/k"},
            "DEPLOYR_EMR_KEY and DEPLOYR_EMR_KEY_VAULT",
        ),
        ({**SMART, "DEPLOYR_EMR_KEY_VAULT": "http://v.example/secrets/k"}, "DEPLOYR_EMR_KEY_VAULT: expected https"),
        ({**SMART, "DEPLOYR_EMR_KEY_VAULT": "https://v.example/keys/k"}, "DEPLOYR_EMR_KEY_VAULT: expected https"),
        ({**SMART, "DEPLOYR_EMR_KEY_VAULT": "https://v.example/secrets/"}, "DEPLOYR_EMR_KEY_VAULT: expected https"),
        ({**SMART, "DEPLOYR_EMR_TOKEN_ORIGINS": "login.example"}, "DEPLOYR_EMR_TOKEN_ORIGINS: expected origins"),
        ({**SMART, "DEPLOYR_EMR_TOKEN_ORIGINS": "https://a.example/b"}, "DEPLOYR_EMR_TOKEN_ORIGINS: expected origins"),
        ({**SMART, "DEPLOYR_EMR_TOKEN_ORIGINS": "https://u@a.example"}, "DEPLOYR_EMR_TOKEN_ORIGINS: expected origins"),
        ({**SMART, "DEPLOYR_EMR_OLD_KEY_FILES": "key-7=/nowhere"}, "DEPLOYR_EMR_OLD_KEY_FILES: expected a file"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name_and_no_secret_is_repeated(given, named):
    message = refusal(**given)
    assert named in message
    assert "CANARY" not in message


def test_a_key_from_the_vault_goes_by_its_thumbprint_alone():
    given = {"DEPLOYR_EMR_CLIENT_ID": "c", "DEPLOYR_EMR_KEY_VAULT": "https://v.example/secrets/k"}
    assert auth_of(**given).smart.key_vault == "https://v.example/secrets/k"
    assert "DEPLOYR_EMR_KEY_ID: expected none" in refusal(**given, DEPLOYR_EMR_KEY_ID="key-1")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DEPLOYR_EMR_AUTH": "none"}, "DEPLOYR_EMR_AUTH"),
        (
            {**SMART, "DEPLOYR_EMR_VENDOR_BASE": "https://emr.example", "DEPLOYR_EMR_VENDOR_AUTH": "none"},
            "DEPLOYR_EMR_VENDOR_AUTH",
        ),
        ({**SMART, "DEPLOYR_EMR_TOKEN_ORIGINS": "http://login.example"}, "DEPLOYR_EMR_TOKEN_ORIGINS"),
    ],
)
def test_production_insists_on_credentials_and_https(given, named):
    production = {
        "DEPLOYR_PROFILE": "prod",
        "DEPLOYR_STORE": "sqlite:/data/store.sqlite",
        "DEPLOYR_ID_KEY": "0123456789abcdef",
    }
    assert named + ":" in refusal(**production, **given)


def test_no_secret_is_in_the_settings_repr():
    assert "CANARY" not in repr(auth_of(**SMART, DEPLOYR_EMR_KEY_PASSWORD="CANARY"))
    assert "CANARY" not in repr(auth_of(**BASIC))

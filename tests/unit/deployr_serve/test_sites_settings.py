"""The settings of several sites: what is whose, and what no two of them may have in common."""

from __future__ import annotations

import base64
import json

import pytest

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings
from deployr_serve.sites_settings import read_sites, site_values
from tests.cda import SETTINGS as CDA
from tests.json_callers import APPLICATION, OURS
from tests.registry_parts import PRIVATE, PUBLIC

SECRET = "SECRET-CANARY-of-thirty-two-bytes-or-more"
SEALING = "k1:" + base64.b64encode(SECRET.encode()[:32]).decode()
COSMOS = {
    "DEPLOYR_STORE": "cosmos:https://account.documents.azure.com",
    "DEPLOYR_STORE_KEY": "own",
    "DEPLOYR_STORE_BLOBS": "own",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sites").mkdir()
    return tmp_path


@pytest.fixture
def write(folder):
    """Give a function that writes a site's file with the least that it needs; a setting of None is left out."""

    def make(site, **settings):
        home = folder / site
        home.mkdir(exist_ok=True)
        callers = {"callers": [{"name": "engine", "models": ["*"], "password": f"the engine of {site}"}]}
        (home / "callers.json").write_text(json.dumps(callers))
        values = {
            "DEPLOYR_BUNDLES": str(home / "bundles"),
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
            "DEPLOYR_ID_KEY": f"the id key of {site}",
            "DEPLOYR_JSON_CALLERS": str(home / "callers.json"),
            **settings,
        }
        values = {name: value for name, value in values.items() if value is not None}
        (folder / "sites" / f"{site}.settings.json").write_text(json.dumps({"Values": values}))

    return make


def read(folder, **environ):
    return read_sites({"DEPLOYR_SITES": str(folder / "sites"), **environ})


def test_a_site_has_its_files_settings_and_the_environments_that_begin_with_its_name(folder, write):
    write("north-east", DEPLOYR_ID_KEY=None)
    write("south", DEPLOYR_SITE="st-marys")
    found = read(folder, NORTH_EAST__DEPLOYR_ID_KEY="from the environment", NORTH_EAST__DEPLOYR_ENVIRONMENT="TEST")
    assert found.refused == {}
    north, south = found.settings["north-east"], found.settings["south"]
    assert (north.id_key, north.environment, north.site, north.at) == (
        b"from the environment",
        "TEST",
        "north-east",
        "north-east",
    )
    assert (south.id_key, south.environment, south.site, south.at) == (
        b"the id key of south",
        "DEV",
        "st-marys",
        "south",
    )


def test_no_site_has_anything_of_the_bare_environment_but_the_profile_and_the_hosts_queues(folder, write):
    write("north")
    bare = {
        "DEPLOYR_STORE_KEY": SECRET,
        "DEPLOYR_WEBHOOK_KEY": SECRET,
        "DEPLOYR_ID_KEY": SECRET,
        "DEPLOYR_EMR_BASIC_PASSWORD": SECRET,
        "SOUTH__DEPLOYR_ID_KEY": SECRET,
        "APPLICATIONINSIGHTS_CONNECTION_STRING": SECRET,
    }
    environ = {"DEPLOYR_SITES": str(folder / "sites"), "AzureWebJobsStorage": "sqlite:q", "DEPLOYR_PROFILE": "dev"}
    values = site_values("north", environ | bare)
    assert SECRET not in values.values()
    assert (values["AzureWebJobsStorage"], values["DEPLOYR_PROFILE"]) == ("sqlite:q", "dev")
    found = read_sites(environ | bare)
    # Said by name, so that one who thinks that they count is told.
    assert found.unread == tuple(sorted(set(bare) - {"APPLICATIONINSIGHTS_CONNECTION_STRING"}))


def test_what_is_the_apps_alone_is_refused_in_a_sites_file(folder, write):
    write("north", DEPLOYR_PROFILE="dev")
    write("south", AzureWebJobsStorage="sqlite:other")
    write("west")
    found = read(folder)
    assert set(found.settings) == {"west"}
    assert "DEPLOYR_PROFILE: expected in the app's environment" in found.refused["north"]
    assert "AzureWebJobsStorage: expected in the app's environment" in found.refused["south"]


def test_the_prod_profile_holds_for_every_site(folder, write):
    write("north")
    assert "prod profile" in read(folder, DEPLOYR_PROFILE="prod").refused["north"]


def test_only_the_site_that_is_named_is_given_but_it_is_compared_with_all(folder, write):
    for site in ("north", "south", "west"):
        write(site, **({"DEPLOYR_ID_KEY": SECRET} if site != "west" else {}))
    assert set(read(folder, DEPLOYR_AT="west").settings) == {"west"}
    assert set(read(folder, DEPLOYR_AT="north").refused) == {"north"}


@pytest.mark.parametrize(
    ("names", "environ", "said"),
    [
        ((), {}, "expected a folder with a NAME.settings.json for each site"),
        (("North",), {}, "lower-case"),
        (("no_rth",), {}, "lower-case"),
        (("n" * 31,), {}, "lower-case"),
        (("north",), {"DEPLOYR_AT": "south"}, "expected one of north, got south"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(folder, write, names, environ, said):
    for name in names:
        write(name)
    with pytest.raises(SettingsInvalid, match=said):
        read(folder, **environ)


def test_nobody_is_let_in_unproved_where_there_are_others_even_to_try_out(folder, write):
    write("north", DEPLOYR_JSON_CALLERS=None)
    write("south", **CDA)
    write("west", **COSMOS | {"DEPLOYR_STORE_KEY": None, "DEPLOYR_STORE_BLOBS": "https://west.blob.core.windows.net"})
    refused = read(folder).refused
    assert "DEPLOYR_JSON_CALLERS: expected at least one caller" in refused["north"]
    assert "DEPLOYR_BPA_CALLERS: expected at least one caller" in refused["south"]
    assert "DEPLOYR_STORE_IDENTITY: expected an identity of the site's own" in refused["west"]
    # And hooks are not served to anybody, as a site alone does it in the dev profile.
    write("east")
    assert not read(folder).settings["east"].serves_cds


def key_of(letter):
    return base64.b64encode(letter.encode() * 64).decode()


def blobs_of(account, kind="blob"):
    return (
        f"DefaultEndpointsProtocol=https;AccountName={account};AccountKey={key_of('x')};EndpointSuffix=core.windows.net"
    )


AZURE = {
    "DEPLOYR_STORE": "cosmos:https://account.documents.azure.com",
    "DEPLOYR_STORE_DATABASE": "north",
    "DEPLOYR_STORE_KEY": key_of("a"),
    "DEPLOYR_STORE_BLOBS": "https://northblobs.blob.core.windows.net",
}
AZURE_SOUTH = {
    "DEPLOYR_STORE": "cosmos:https://ACCOUNT.documents.azure.com/",
    "DEPLOYR_STORE_DATABASE": "south",
    "DEPLOYR_STORE_KEY": key_of("b"),
    "DEPLOYR_STORE_BLOBS": "https://southblobs.blob.core.windows.net",
}
IN_COMMON = {
    "the id key": ({"DEPLOYR_ID_KEY": SECRET}, {"DEPLOYR_ID_KEY": SECRET}, "DEPLOYR_ID_KEY"),
    "the id key that is nobody's": ({"DEPLOYR_ID_KEY": None}, {"DEPLOYR_ID_KEY": None}, "DEPLOYR_ID_KEY"),
    "one secret in two places": ({"DEPLOYR_ID_KEY": SECRET}, {"DEPLOYR_WEBHOOK_KEY": SECRET}, "DEPLOYR_WEBHOOK_KEY"),
    "a file": ({"DEPLOYR_STORE": "sqlite:{}/s"}, {"DEPLOYR_STORE": "sqlite:{}/x/../s"}, "DEPLOYR_STORE"),
    "a file by a link": (
        {"DEPLOYR_SPOOL": "sqlite:{}/link/s"},
        {"DEPLOYR_STORE": "sqlite:{}/south/s"},
        "DEPLOYR_STORE",
    ),
    "a folder": ({"DEPLOYR_AUDIT": "folder:{}/a"}, {"DEPLOYR_AUDIT": "folder:{}/a"}, "DEPLOYR_AUDIT"),
    "a folder in a folder": ({"DEPLOYR_AUDIT": "folder:{}/south"}, {}, "DEPLOYR_BUNDLES"),
    "models": ({"DEPLOYR_BUNDLES": "{}/b"}, {"DEPLOYR_BUNDLES": "{}/b/hematocrit"}, "DEPLOYR_BUNDLES"),
    "runs": ({"DEPLOYR_BUNDLE_ARCHIVE": "{}/r"}, {"DEPLOYR_BUNDLE_ARCHIVE": "{}/r"}, "DEPLOYR_BUNDLE_ARCHIVE"),
    "deployments": ({"DEPLOYR_DEPLOYMENTS": "{}/d"}, {"DEPLOYR_DEPLOYMENTS": "{}/d"}, "DEPLOYR_DEPLOYMENTS"),
    "batches": ({"DEPLOYR_BATCHES": "{}/d"}, {"DEPLOYR_BATCHES": "{}/d"}, "DEPLOYR_BATCHES"),
    "a name": ({"DEPLOYR_SITE": "Marys"}, {"DEPLOYR_SITE": "marys"}, "DEPLOYR_SITE"),
    "a database": (AZURE, AZURE_SOUTH | {"DEPLOYR_STORE_DATABASE": "north"}, "DEPLOYR_STORE_DATABASE"),
    "the key of an account": (AZURE, AZURE_SOUTH | {"DEPLOYR_STORE_KEY": key_of("a")}, "DEPLOYR_STORE_KEY"),
    "an identity": (
        AZURE | {"DEPLOYR_STORE_KEY": None, "DEPLOYR_STORE_IDENTITY": "1a"},
        AZURE_SOUTH | {"DEPLOYR_STORE_KEY": None, "DEPLOYR_STORE_IDENTITY": "1A"},
        "DEPLOYR_STORE_IDENTITY",
    ),
    "a storage account": (
        AZURE,
        AZURE_SOUTH | {"DEPLOYR_STORE_BLOBS": blobs_of("northblobs")},
        "DEPLOYR_STORE_BLOBS",
    ),
    "a storage account, for something else": (AZURE, {"DEPLOYR_SPOOL": blobs_of("northblobs")}, "DEPLOYR_SPOOL"),
    "sealing keys": (
        {"DEPLOYR_FACTS_VAULT": "sqlite:{}/n", "DEPLOYR_FACTS_KEYS": SEALING},
        {"DEPLOYR_FACTS_VAULT": "sqlite:{}/s", "DEPLOYR_FACTS_KEYS": SEALING.replace("k1", "k2")},
        "DEPLOYR_FACTS_KEYS",
    ),
    "a password at the EMR": (
        {"DEPLOYR_EMR_AUTH": "basic", "DEPLOYR_EMR_BASIC_USER": "n", "DEPLOYR_EMR_BASIC_PASSWORD": SECRET},
        {"DEPLOYR_EMR_AUTH": "basic", "DEPLOYR_EMR_BASIC_USER": "s", "DEPLOYR_EMR_BASIC_PASSWORD": SECRET},
        "DEPLOYR_EMR_BASIC_PASSWORD",
    ),
    "a key at the EMR": (
        {"DEPLOYR_EMR_CLIENT_ID": "n", "DEPLOYR_EMR_KEY_FILE": "{}/north.pem"},
        {"DEPLOYR_EMR_CLIENT_ID": "s", "DEPLOYR_EMR_KEY_FILE": "{}/south.pem"},
        "DEPLOYR_EMR_KEY_FILE",
    ),
    "a key at the EMR that stands in the one's settings and in the other's file": (
        {"DEPLOYR_EMR_CLIENT_ID": "n", "DEPLOYR_EMR_KEY": "-----BEGIN x\nkey"},
        {"DEPLOYR_EMR_CLIENT_ID": "s", "DEPLOYR_EMR_KEY_FILE": "{}/edited.pem"},
        "DEPLOYR_EMR_KEY_FILE",
    ),
    "a password of callers": ({}, {"DEPLOYR_JSON_CALLERS": "{}/north/callers.json"}, "DEPLOYR_JSON_CALLERS"),
    "an audience": (
        {"DEPLOYR_JSON_CALLERS": "{}/entra.json"},
        {"DEPLOYR_REGISTRY_PEOPLE": "{}/people.json"},
        "DEPLOYR_REGISTRY_PEOPLE",
    ),
    "a certificate": (
        {"DEPLOYR_JSON_CALLERS": "{}/mutual.json"},
        {"DEPLOYR_JSON_CALLERS": "{}/mutual2.json"},
        "DEPLOYR_JSON_CALLERS",
    ),
    "a password of alerts": (
        CDA | {"DEPLOYR_BPA_CALLERS": json.dumps({"north": SECRET})},
        CDA | {"DEPLOYR_BPA_CALLERS": json.dumps({"south": SECRET})},
        "DEPLOYR_BPA_CALLERS",
    ),
    "what hooks are called by": (
        {"DEPLOYR_PUBLIC_BASE": "https://deployr.example/sites/n"},
        {"DEPLOYR_PUBLIC_BASE": "https://deployr.example/sites/n/"},
        "DEPLOYR_PUBLIC_BASE",
    ),
    "the key of journals": (
        {"DEPLOYR_JOURNAL_KEY": "{}/journal.pem"},
        {"DEPLOYR_JOURNAL_TRUSTED_KEYS": "{}/journal.pub.pem"},
        "DEPLOYR_JOURNAL_KEY",
    ),
    "a token of a model elsewhere": (
        {"DEPLOYR_PREDICTORS": "net=https://m.example", "DEPLOYR_PREDICTOR_TOKENS": f"net={SECRET}"},
        {"DEPLOYR_PREDICTORS": "net=https://m.example", "DEPLOYR_PREDICTOR_TOKENS": f"net={SECRET}"},
        "DEPLOYR_PREDICTOR_TOKENS",
    ),
}


def files():
    """Give what the rows above name: who may call, who may ask the registry, and one key twice."""
    application = {"name": "entra", "models": ["*"], "tenant": OURS, "application": APPLICATION}
    tenants = [{"tenant": OURS, "audience": "api://deployr"}]
    person = {"name": "linus", "tenant": OURS, "object_id": APPLICATION}
    mutual = {"name": "mutual", "models": ["*"], "certificate_sha256": "a" * 64}
    return {
        "entra.json": json.dumps({"callers": [application], "tenants": tenants}),
        "people.json": json.dumps({"people": [person], "tenants": tenants}),
        **{
            f"{name}.json": json.dumps({"callers": [mutual], "gateway": {"header": "X-Gateway", "secret": secret}})
            for name, secret in (("mutual", SECRET), ("mutual2", SECRET[::-1]))
        },
        "journal.pem": PRIVATE.decode(),
        "journal.pub.pem": PUBLIC.decode(),
        "north.pem": "-----BEGIN",
        "south.pem": "-----BEGIN",
        "edited.pem": "-----BEGIN x\r\nkey\r\n",
    }


def in_folder(folder, value):
    is_place = value is not None and value.startswith(("{}", "sqlite:{}", "folder:{}"))
    return value.format(folder) if is_place else value


@pytest.mark.parametrize("what", IN_COMMON)
def test_two_sites_that_have_something_in_common_do_not_start_and_a_third_does(folder, write, what):
    for name, content in files().items():
        (folder / name).write_text(content, newline="")
    (folder / "link").symlink_to(folder / "south")
    norths, souths, setting = IN_COMMON[what]
    for site, settings in (("north", norths), ("south", souths), ("west", {})):
        write(site, **{name: in_folder(folder, value) for name, value in settings.items()})
    found = read(folder)
    assert (set(found.settings), set(found.refused)) == ({"west"}, {"north", "south"}), found.refused
    assert f"{setting}: expected a" in found.refused["south"]
    assert "north" in found.refused["south"]
    assert "CANARY" not in str(found.refused)


def test_a_folder_that_all_places_lie_in_is_nobodys(folder, write):
    write("north", DEPLOYR_AUDIT=f"folder:{folder}")
    for site in ("south", "west"):
        write(site)
    assert set(read(folder).refused) == {"north", "south", "west"}


def test_sites_with_everything_of_their_own_start_and_may_share_an_account_an_emr_and_an_application(folder, write):
    write("north", **AZURE)
    write("south", **AZURE_SOUTH)
    assert read(folder).refused == {}


@pytest.mark.parametrize("given", [{"DEPLOYR_AT": "north"}, {"DEPLOYR_SITES": "sites"}])
def test_a_name_without_the_folder_and_a_folder_without_a_name_are_no_ones_settings(given):
    least = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example"}
    with pytest.raises(SettingsInvalid, match="DEPLOYR_AT: expected it with DEPLOYR_SITES"):
        read_settings(least | given)


@pytest.mark.parametrize("content", ["{", "[]", '{"Values": {"DEPLOYR_DEADLINE_S": 8}}', '{"IsEncrypted": true}'])
def test_a_file_that_cannot_be_read_keeps_no_other_site_from_it(folder, write, content):
    write("north")
    (folder / "sites" / "south.settings.json").write_text(content)
    found = read(folder)
    assert (set(found.settings), set(found.refused)) == ({"north"}, {"south"})
    assert "south.settings.json" in found.refused["south"]

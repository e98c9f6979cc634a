"""infra/ says what the code says: names, keys, roles, settings; and nothing in it is open or secret.

Nothing here compiles or deploys it: docs/azure.md says what was not run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deployr_core.registry.roles import Role
from deployr_core.signing import trusted_key
from deployr_serve.adapters import facts_vault_blob, spool_queue
from deployr_serve.adapters.blob_bodies import CONTAINER as PACKET_BLOBS
from deployr_serve.adapters.cosmos_layout import CONTAINERS
from deployr_serve.batch_bootstrap import QUEUE
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import Profile, read_settings
from deployr_serve.store_settings import InCosmos
from deployr_serve.telemetry_settings import Protocol
from tests.infra.bicep import ROOT, Expression, every, read, strings
from tests.registry_parts import PRIVATE, PUBLIC

MAIN = read(ROOT / "main.bicep")
MODULES = {file.name: read(file) for file in sorted((ROOT / "modules").glob("*.bicep"))}
ENTRA = read(ROOT / "entra" / "main.bicep")
TEMPLATES = (MAIN, *MODULES.values(), ENTRA)
PARAMETERS = {file.name: read(file) for file in sorted(ROOT.glob("*.bicepparam"))}

BUILT_IN_ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "00000000-0000-0000-0000-000000000002": "Cosmos DB Built-in Data Contributor",
}
"""Source: Microsoft Learn, "Azure built-in roles", and "Azure Cosmos DB: built-in data plane roles"."""


def resource(template, type_):
    [found] = [one for one in every(template) if one.type == type_]
    return found


def test_every_file_is_bicep_by_its_grammar():
    assert [problem for template in (*TEMPLATES, *PARAMETERS.values()) for problem in template.problems] == []
    assert len(MODULES) == 9


def test_a_file_that_is_no_bicep_is_found_out(tmp_path):
    file = tmp_path / "broken.bicep"
    file.write_text("resource a 'A/b@2024-01-01' = { name: }\n")
    assert read(file).problems


def test_every_module_gets_the_parameters_that_it_declares_and_no_others():
    used = set()
    for call in MAIN.modules:
        module = MODULES[Path(call.of).name]
        given = set(call.body["params"])
        needed = {name for name, default in module.parameters.items() if default is None}
        assert needed <= given <= set(module.parameters), call.symbol
        used.add(Path(call.of).name)
    assert used == set(MODULES)


def test_every_output_that_is_read_is_one_that_its_module_gives():
    of = {call.symbol: MODULES[Path(call.of).name].outputs for call in MAIN.modules}
    read_outputs = re.findall(r"\b(\w+)(?:\[\w+\])?!?\.outputs\.(\w+)", MAIN.text)
    assert len(read_outputs) > 30
    assert [(symbol, name) for symbol, name in read_outputs if name not in of[symbol]] == []


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_each_file_of_parameters_gives_all_that_are_needed_and_none_that_there_is_not(name):
    given = PARAMETERS[name].variables
    needed = {parameter for parameter, default in MAIN.parameters.items() if default is None}
    assert needed <= set(given) <= set(MAIN.parameters)
    assert given["stage"] == name.removesuffix(".bicepparam")


def test_azd_is_asked_for_the_same_parameters():
    written = json.loads((ROOT / "main.parameters.json").read_text())["parameters"]
    needed = {parameter for parameter, default in MAIN.parameters.items() if default is None}
    assert needed <= set(written) <= set(MAIN.parameters)
    assert MAIN.allowed["stage"] == list(Profile)


# -- what the code calls things


def test_the_stores_containers_are_those_that_the_code_declares():
    template = MODULES["cosmos.bicep"]
    containers = [one for one in every(template) if one.type.endswith("/sqlDatabases/containers")]
    laid_out = {}
    for one in containers:
        there = one.body["properties"]["resource"]
        assert there["defaultTtl"] == -1
        laid_out[there["id"]] = (there["partitionKey"]["paths"], there["indexingPolicy"])
    assert laid_out == {each.name: ([each.key], each.indexing_policy()) for each in CONTAINERS}


def test_the_store_has_one_write_region_session_consistency_and_no_keys():
    account = resource(MODULES["cosmos.bicep"], "Microsoft.DocumentDB/databaseAccounts").body["properties"]
    assert account["consistencyPolicy"] == {"defaultConsistencyLevel": "Session"}
    assert account["enableMultipleWriteLocations"] is False
    assert account["disableLocalAuth"] is True
    assert len(account["locations"]) == 1


def test_queues_and_blob_containers_are_those_that_the_code_names():
    host, patients = MODULES["storage.bicep"].variables["accounts"]
    assert host["queues"] == [QUEUE, f"{QUEUE}-poison"]
    assert patients["queues"] == [spool_queue.NAME]
    assert patients["containers"] == [PACKET_BLOBS, facts_vault_blob.CONTAINER, spool_queue.NAME]
    assert f"{PACKET_BLOBS}/" in MODULES["storage.bicep"].text


def test_the_registrys_roles_are_peoples_and_an_application_can_have_all_but_the_approvers():
    roles = {role["value"]: set(role["members"]) for role in ENTRA.variables["roles"]}
    assert [value for value, members in roles.items() if "User" in members] == list(Role)
    assert {value for value, members in roles.items() if "Application" in members} == {
        Role.VIEWER,
        Role.DEVELOPER,
        "Scores.Ask",
    }
    assert roles["Scores.Ask"] == {"Application"}


def test_alerts_look_for_lines_that_the_app_writes():
    source = "\n".join(
        file.read_text()
        for folder in ("deployr_serve", "label_extractors")
        for file in (ROOT.parent / folder).rglob("*.py")
    )
    queries = "\n".join(strings(MODULES["alerts.bicep"].variables["sayings"]))
    begun = set(re.findall(r'startswith "(\w+:)"', queries))
    assert begun == {"infer:", "relay:", "cds:", "bpa:"}
    for line in begun:
        assert re.search(rf'_log\.info\(\s*"{line} ', source), line
    assert "correlation_id=%s status=%d ms=%.1f" in source
    assert {"status=(", "ms=("} <= {text for text in ("status=(", "ms=(") if text in queries}


# -- who may do what


def test_every_role_is_a_known_one_given_to_the_app_on_one_resource():
    given = set()
    for template in TEMPLATES:
        for one in every(template):
            if not one.type.endswith(("/roleAssignments", "/sqlRoleAssignments")):
                continue
            properties = one.body["properties"]
            assert "scope" in one.body or "parent" in one.body, one.symbol
            assert isinstance(properties["principalId"], Expression)
            given.add((template.file.name, one.symbol))
    assert given == {
        ("cosmos.bicep", "writer"),
        ("monitoring.bicep", "writer"),
        ("vault.bicep", "reader"),
        ("storage.bicep", "hostRoles"),
        ("storage.bicep", "patientRoles"),
    }
    ids = {text for template in TEMPLATES for text in _guids(template)}
    assert ids == set(BUILT_IN_ROLES)


def _guids(template):
    return re.findall(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", template.text)


# -- nothing open, nothing secret


CLOSED = "isPrivate ? 'Disabled' : 'Enabled'"


@pytest.mark.parametrize(
    ("module", "type_", "names"),
    [
        ("cosmos.bicep", "Microsoft.DocumentDB/databaseAccounts", ["publicNetworkAccess"]),
        ("vault.bicep", "Microsoft.KeyVault/vaults", ["publicNetworkAccess"]),
        ("storage.bicep", "Microsoft.Storage/storageAccounts", ["publicNetworkAccess"]),
        ("app.bicep", "Microsoft.Web/sites", ["publicNetworkAccess"]),
        ("monitoring.bicep", "Microsoft.OperationalInsights/workspaces", ["publicNetworkAccessForIngestion"]),
        ("monitoring.bicep", "Microsoft.Insights/components", ["publicNetworkAccessForIngestion"]),
    ],
)
def test_what_holds_or_takes_data_has_no_public_address_in_prod(module, type_, names):
    found = [one for one in every(MODULES[module]) if one.type == type_ and "properties" in one.body]
    assert found
    for one in found:
        for name in names:
            assert one.body["properties"][name] == Expression(CLOSED), one.symbol


def test_every_kind_of_resource_that_can_be_open_is_among_those_that_are_closed():
    """A resource that is added must be looked at: these are the types that there are."""
    types = {one.type for template in MODULES.values() for one in every(template)}
    assert {type_.rpartition("/")[0] for type_ in types if type_.startswith("Microsoft.")} == {
        "Microsoft.Authorization",
        "Microsoft.Consumption",
        "Microsoft.DocumentDB",
        "Microsoft.DocumentDB/databaseAccounts",
        "Microsoft.DocumentDB/databaseAccounts/sqlDatabases",
        "Microsoft.Insights",
        "Microsoft.KeyVault",
        "Microsoft.ManagedIdentity",
        "Microsoft.Network",
        "Microsoft.Network/privateDnsZones",
        "Microsoft.Network/privateEndpoints",
        "Microsoft.OperationalInsights",
        "Microsoft.Storage",
        "Microsoft.Storage/storageAccounts",
        "Microsoft.Storage/storageAccounts/blobServices",
        "Microsoft.Storage/storageAccounts/queueServices",
        "Microsoft.Web",
    }


def test_every_private_resource_has_an_endpoint_and_a_zone_for_its_name():
    template = MODULES["endpoints.bicep"]
    targets = {each["target"].text for each in template.variables["wanted"]}
    assert targets == {name for name in template.parameters if name.endswith("Id")} - {"networkId", "subnetId"}
    used = {zone for each in template.variables["wanted"] for zone in each["zones"]}
    assert used | {"web"} == set(template.variables["zoneNames"])


def test_keys_are_switched_off_but_for_the_folders_that_can_only_be_mounted_with_one():
    shared = {
        one.symbol: one.body["properties"]["allowSharedKeyAccess"]
        for one in every(MODULES["storage.bicep"])
        if one.type == "Microsoft.Storage/storageAccounts"
    }
    assert shared == {"stores": False, "folders": True}
    everything = "".join(template.text for template in TEMPLATES)
    assert everything.count("listKeys()") == everything.count("folders.listKeys()") == 2
    for once in (
        "disableLocalAuth: true",
        "DisableLocalAuth: true",
        "enableRbacAuthorization: true",
        "httpsOnly: true",
    ):
        assert once in everything
    for one in every(MODULES["app.bicep"]):
        if one.of == "basicPublishingCredentialsPolicies":
            assert one.body["properties"] == {"allow": False}


def test_no_secret_stands_in_a_template_or_a_parameter():
    names = re.compile(r"AccountKey=|SharedAccessSignature|-----BEGIN|password", re.IGNORECASE)
    for template in (*TEMPLATES, *PARAMETERS.values()):
        assert not [text for text in strings([*template.variables.values()]) if names.search(text)]
        assert "@secure()" not in template.text
        # Long and without meaning: what a key looks like.
        assert not re.findall(r"'[A-Za-z0-9+/]{40,}={0,2}'", template.text)


# -- the settings


def test_the_app_starts_with_the_settings_that_prod_gets(tmp_path):
    source = _settings(tmp_path)
    settings = read_settings(source)
    assert settings.profile is Profile.PROD
    assert isinstance(settings.store, InCosmos)
    assert settings.store.key is None
    assert settings.store.identity == "client-id"
    assert settings.telemetry.protocol is Protocol.AZURE
    assert settings.telemetry.share == 0.1
    assert settings.auth.smart.key_vault == "https://kv.vault.azure.net/secrets/emr-key"
    assert settings.batch.queue == "https://sthost.queue.core.windows.net"
    assert str(settings.audit.folder) == "/mounts/audit"
    # Where the registry lays bundles and takes runs from: what it writes, the package would not keep.
    assert (str(settings.bundles), str(settings.bundle_archive)) == ("/mounts/models/bundles", "/mounts/models/runs")


def test_a_secret_that_the_vault_does_not_give_stops_the_start(tmp_path):
    source = _settings(tmp_path) | {"DEPLOYR_ID_KEY": MAIN.variables["secrets"]["DEPLOYR_ID_KEY"].text.strip("'")}
    assert source["DEPLOYR_ID_KEY"].startswith("@Microsoft.KeyVault(")
    with pytest.raises(SettingsInvalid, match="DEPLOYR_ID_KEY: expected the secret; the key vault did not give it"):
        read_settings(source)


def test_every_secret_is_a_reference_and_the_page_says_how_to_make_it():
    page = (ROOT.parent / "docs" / "azure.md").read_text()
    named = set(re.findall(r"secrets/([a-z-]+)", MAIN.text))
    assert named == {
        "id-key",
        "facts-keys",
        "emr-key",
        "predictor-tokens",
        "alert-teams-url",
        "alert-slack-url",
        "alert-webhook-url",
        "alert-webhook-key",
        "alert-mail-login",
        "journal-key",
    }
    for name in named:
        assert f"--name {name} " in page


def test_what_can_be_asked_for_besides_is_read_by_the_app_and_nothing_is_left_out(tmp_path):
    """Each name that only stands in the template where a parameter asks for it, with a value as it would be there."""
    asked_for = {
        "DEPLOYR_PREDICTORS": "sepsis-net=https://models.example.org/predict,falls=https://models.example.org/falls",
        "DEPLOYR_PREDICTOR_TOKENS": "sepsis-net=a-token-of-a-predictor",
        "DEPLOYR_ALERT_TEAMS_URL": "https://teams.example.org/hook?sig=x",
        "DEPLOYR_ALERT_SLACK_URL": "https://slack.example.org/hook",
        "DEPLOYR_ALERT_WEBHOOK_URL": "https://pager.example.org/alerts",
        "DEPLOYR_ALERT_WEBHOOK_KEY": "k" * 32,
        "DEPLOYR_ALERT_MAIL_SERVER": "mail.hospital.example:587",
        "DEPLOYR_ALERT_MAIL_FROM": "deployr@hospital.example",
        "DEPLOYR_ALERT_MAIL_TO": "on-call@hospital.example,ward@hospital.example",
        "DEPLOYR_ALERT_MAIL_USER": "deployr",
        "DEPLOYR_ALERT_MAIL_PASSWORD": "what the vault gave",
        "DEPLOYR_ALERT_FHIR_RECIPIENTS": "Group/on-call",
        "DEPLOYR_JOURNAL_KEY": PRIVATE.decode(),
    }
    source = _settings(tmp_path)
    written = set(re.findall(r"\b(DEPLOYR_\w+): ", MAIN.text))
    assert written - set(source) == set(asked_for)
    settings = read_settings(source | asked_for)
    assert settings.predictors.urls.keys() == {"sepsis-net", "falls"}
    assert settings.alerts.mail.recipients[1].addr_spec == "ward@hospital.example"
    assert settings.registry.journal_keys.signing.key_id == trusted_key(PUBLIC).key_id


@pytest.mark.parametrize("sink", ["teams", "slack", "webhook"])
def test_every_sink_that_may_be_named_leads_to_its_secret(sink):
    assert sink in MAIN.allowed["alertSinks"]
    assert f"contains(alertSinks, '{sink}')" in MAIN.text


def _settings(tmp_path):
    """Give the environment of the app in prod, as far as this app reads it; the platform's own values are made up."""
    site = tmp_path / "hospital"
    (site / "keys").mkdir(parents=True)
    (site / "keys" / "trainers.pem").write_text("PEM")
    callers = {"callers": [{"name": "engine", "models": ["*"], "password": "a-password-of-enough-length"}]}
    (site / "callers.json").write_text(json.dumps(callers))
    people = {"people": [{"name": "ada", "login": "ada", "roles": ["approver"]}]}
    (site / "people.json").write_text(json.dumps(people))
    given = PARAMETERS["prod.bicepparam"].variables
    written = {}
    for variable in ("appSettings", "emr", "audit"):
        written |= dict(re.findall(r"(DEPLOYR_\w+): (.+?)(?: }|,\s+DEPLOYR|\n)", _declaration(variable)))
    written["DEPLOYR_EMR_KEY_VAULT"] = "'https://kv.vault.azure.net/secrets/emr-key'"
    source = {name: _filled(text.strip(), given, site) for name, text in written.items()}
    host = MODULES["app.bicep"].variables["hostSettings"]
    assert host["AzureWebJobsStorage__queueServiceUri"].text == "'https://${hostStorageName}.queue.${storageSuffix}'"
    source |= {
        name: str(text).replace("/home/site/wwwroot/hospital", str(site))
        for name, text in given["siteSettings"].items()
    }
    return source | {
        "DEPLOYR_ID_KEY": "an id key that the vault gave",
        "DEPLOYR_FACTS_KEYS": "k1:" + "A" * 43 + "=",
        "AzureWebJobsStorage__queueServiceUri": "https://sthost.queue.core.windows.net",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=00000000-0000-0000-0000-000000000000",
    }


def _declaration(variable):
    text = MAIN.text[MAIN.text.index(f"var {variable} = ") :]
    return text[: text.index("\n}" if "\n}" in text and variable == "appSettings" else "\n\n") + 2]


def _filled(text, given, site):
    outputs = {
        "cosmos.outputs.endpoint": "https://cosmos.documents.azure.com",
        "cosmos.outputs.database": "deployr",
        "identity.outputs.clientId": "client-id",
        "storage.outputs.patientBlobs": "https://stcare.blob.core.windows.net",
        "storage.outputs.patientQueues": "https://stcare.queue.core.windows.net",
    }
    known = {**{name: str(held) for name, held in given.items()}, **outputs, "packageFolder": str(site.parent)}
    known |= {name: MAIN.variables[name] for name in ("auditFolder", "modelsFolder")}
    if text in known:
        return known[text]
    assert text.startswith("'"), text
    return re.sub(r"\$\{([\w.]+)\}", lambda found: known[found[1]], text.strip("'"))

"""The credentials are put together from settings: unusable keys stop the start, and the key set is a public route."""

from __future__ import annotations

import dataclasses
import json
import sys

import azure.functions as func
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deployr_core.bundle import open_bundle
from deployr_serve.adapters import key_vault
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.auth_basic import Basic
from deployr_serve.adapters.auth_smart import SmartBackend
from deployr_serve.adapters.http import origin
from deployr_serve.adapters.jwks import thumbprint
from deployr_serve.adapters.key_vault import Secret, VaultUnavailable
from deployr_serve.auth_bootstrap import access
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.settings import read_settings
from tests.document_parts import example_bundle

FHIR = "https://emr.example/api/FHIR/R4"
VENDOR = "https://epic.example:8443"


def pem_of(private, password=None):
    encryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.fixture(scope="module")
def private():
    return ec.generate_private_key(ec.SECP384R1())


class NoModels:
    def deployed(self):
        return {}

    def bundle(self, model_id):
        raise KeyError(model_id)


class OneModel(NoModels):
    def __init__(self, bundle):
        self._bundle = bundle

    def deployed(self):
        return {"hematocrit": None, "broken": "a flipped bit"}

    def bundle(self, model_id):
        return {"hematocrit": self._bundle}[model_id]


def access_of(*, models=None, transport=None, vendor_base=VENDOR, **settings):
    given = {"DEPLOYR_BUNDLES": "b", "DEPLOYR_EMR_FHIR_BASE": FHIR, "DEPLOYR_EMR_KEY_ALGORITHM": "ES384", **settings}
    return access(
        read_settings(given).auth,
        fhir_base=FHIR,
        vendor_base=vendor_base,
        models=models or NoModels(),
        transport=transport,
    )


def smart(private, **settings):
    return {"DEPLOYR_EMR_CLIENT_ID": "client-1", "DEPLOYR_EMR_KEY": pem_of(private).decode(), **settings}


def refusal(**settings) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        access_of(**settings)
    assert "BEGIN" not in str(caught.value)
    assert "CANARY" not in str(caught.value)
    return str(caught.value)


def test_both_bases_share_one_client_that_may_go_to_both(private):
    made = access_of(**smart(private))
    assert isinstance(made.fhir, SmartBackend)
    assert made.vendor is made.fhir
    assert made.fhir.origins == {origin(FHIR), origin(VENDOR)}


def test_each_base_has_its_own_where_they_differ(private):
    basic = {"DEPLOYR_EMR_BASIC_USER": "emp$bridge", "DEPLOYR_EMR_BASIC_PASSWORD": "x"}
    made = access_of(**smart(private), **basic, DEPLOYR_EMR_VENDOR_AUTH="basic")
    assert isinstance(made.vendor, Basic)
    assert (made.fhir.origins, made.vendor.origins) == ({origin(FHIR)}, {origin(VENDOR)})


def test_an_open_server_gets_none_and_there_are_no_keys_to_publish():
    made = access_of()
    assert isinstance(made.fhir, NoCredentials)
    assert json.loads(made.jwks()) == {"keys": []}
    assert made.missing_scopes() == {}


# -- keys that stop the start


def test_a_key_file_that_cannot_be_read_is_named(private, tmp_path, monkeypatch):
    file = tmp_path / "key.pem"
    file.write_bytes(pem_of(private))
    given = {"DEPLOYR_EMR_CLIENT_ID": "c", "DEPLOYR_EMR_KEY_FILE": str(file)}
    assert json.loads(access_of(**given).jwks())["keys"][0]["kid"] == thumbprint(private.public_key())

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    assert "DEPLOYR_EMR_KEY_FILE: expected a file that can be read" in refusal(**given)


@pytest.mark.parametrize("name", ["DEPLOYR_EMR_KEY_FILE", "DEPLOYR_EMR_KEY"])
def test_a_key_that_cannot_sign_is_named_by_its_setting(name, tmp_path):
    wrong = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = tmp_path / "key.pem"
    file.write_bytes(pem_of(wrong))
    value = str(file) if name.endswith("FILE") else pem_of(wrong).decode()
    message = refusal(**{"DEPLOYR_EMR_CLIENT_ID": "c", name: value})
    assert f"{name}: expected an EC key on P-384 for ES384" in message


def test_a_missing_password_is_named(private):
    locked = {"DEPLOYR_EMR_CLIENT_ID": "c", "DEPLOYR_EMR_KEY": pem_of(private, "right").decode()}
    assert "DEPLOYR_EMR_KEY: expected DEPLOYR_EMR_KEY_PASSWORD" in refusal(**locked)
    assert "DEPLOYR_EMR_KEY_PASSWORD" in refusal(**locked, DEPLOYR_EMR_KEY_PASSWORD="CANARY")
    assert json.loads(access_of(**locked, DEPLOYR_EMR_KEY_PASSWORD="right").jwks())["keys"]


def test_an_old_key_that_is_private_is_refused_and_a_public_one_is_published(private, tmp_path):
    old = ec.generate_private_key(ec.SECP384R1())
    file = tmp_path / "old.pem"
    file.write_bytes(pem_of(old))
    assert "DEPLOYR_EMR_OLD_KEY_FILES: expected public keys" in refusal(
        **smart(private), DEPLOYR_EMR_OLD_KEY_FILES=str(file)
    )
    file.write_bytes(
        old.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    made = access_of(**smart(private), DEPLOYR_EMR_KEY_ID="new", DEPLOYR_EMR_OLD_KEY_FILES=f"old={file}")
    assert [jwk["kid"] for jwk in json.loads(made.jwks())["keys"]] == ["new", "old"]


# -- a vault

VAULT = {"DEPLOYR_EMR_CLIENT_ID": "c", "DEPLOYR_EMR_KEY_VAULT": "https://v.vault.azure.net/secrets/k"}


def test_a_key_from_the_vault_is_published_by_its_thumbprint(private, monkeypatch):
    monkeypatch.setattr(key_vault, "secret_client", lambda _url: None)
    monkeypatch.setattr(
        key_vault, "read_secret", lambda _url, _client: Secret(value=pem_of(private).decode(), expires_on=None)
    )
    [jwk] = json.loads(access_of(**VAULT).jwks())["keys"]
    assert jwk["kid"] == thumbprint(private.public_key())


def test_a_vault_that_gives_no_key_at_the_start_is_named(private, monkeypatch):
    monkeypatch.setattr(key_vault, "secret_client", lambda _url: None)
    monkeypatch.setattr(key_vault, "read_secret", lambda _url, _client: Secret(value="CANARY", expires_on=None))
    assert "DEPLOYR_EMR_KEY_VAULT: expected a private key" in refusal(**VAULT)

    def down(url, client):
        raise VaultUnavailable("expected to read the secret from the vault, got ServiceRequestError")

    monkeypatch.setattr(key_vault, "read_secret", down)
    assert "DEPLOYR_EMR_KEY_VAULT: expected to read the secret" in refusal(**VAULT)


def test_without_azures_packages_a_vault_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    assert "DEPLOYR_EMR_KEY_VAULT: expected the packages of the extra azure" in refusal(**VAULT)


# -- scopes and routes


class Authority:
    """Gives a token with these scopes."""

    def __init__(self, scope):
        self._scope = scope
        self.asked = []

    async def send(self, request):
        from deployr_serve.adapters.http import Response

        self.asked.append(request)
        answer = {"token_endpoint": "https://emr.example/token"}
        if request.form is not None:
            answer = {"access_token": "t", "token_type": "bearer", "scope": self._scope}
        return Response(status=200, content_type="application/json", body=json.dumps(answer).encode())


async def test_what_the_models_need_is_asked_for_and_what_is_missing_is_known_without_asking(private, bundle):
    authority = Authority("system/Patient.rs system/Encounter.rs system/ServiceRequest.rs system/Observation.rs")
    made = access_of(models=OneModel(bundle), transport=authority, **smart(private))
    assert made.missing_scopes() == {}
    assert authority.asked == []
    await made.fhir.headers()
    assert dict(authority.asked[1].form)["scope"] == (
        "system/Condition.rs system/Encounter.rs system/Medication.rs system/MedicationRequest.rs"
        " system/Observation.rs system/Patient.rs system/ServiceRequest.rs"
    )
    missing = ("Condition (problem-list-item)", "Medication", "MedicationRequest")
    assert made.missing_scopes() == {"hematocrit": missing}
    assert len(authority.asked) == 2


async def test_a_model_that_takes_documents_needs_to_search_them_and_to_read_what_is_in_them(private, bundle_files):
    example = example_bundle(bundle_files, kind="notes", model_id="hematocrit")
    authority = Authority("system/*.s")
    bundle = open_bundle(example.manifest.to_json(), example.parts)
    made = access_of(models=OneModel(bundle), transport=authority, **smart(private))
    await made.fhir.headers()
    asked = dict(authority.asked[1].form)["scope"].split()
    assert {"system/DocumentReference.rs", "system/Binary.rs"} <= set(asked)
    assert made.missing_scopes() == {"hematocrit": ("Binary",)}


def routes_of(application):
    from deployr_serve.blueprint import serving_blueprint

    app = func.FunctionApp()
    app.register_functions(serving_blueprint(application, relay_schedule="0 0 0 1 1 *"))
    return {function.get_function_name(): function for function in app.get_functions()}


@pytest.fixture
async def application(tmp_path, private):
    from deployr_serve.bootstrap import build

    given = {"DEPLOYR_BUNDLES": str(tmp_path), "DEPLOYR_EMR_FHIR_BASE": FHIR, "DEPLOYR_EMR_KEY_ALGORITHM": "ES384"}
    made = build(read_settings({**given, **smart(private)}))
    yield made
    await made.aclose()


async def test_the_key_set_is_served_to_anybody_where_clients_look_for_it(application, private):
    function = routes_of(application)["jwks"]
    trigger = function.get_trigger()
    assert (trigger.route, trigger.auth_level) == (".well-known/jwks.json", func.AuthLevel.ANONYMOUS)
    response = await function.get_user_function()(
        func.HttpRequest("GET", "/.well-known/jwks.json", headers={}, body=b"")
    )
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Cache-Control"] == "public, max-age=300"
    [jwk] = json.loads(response.get_body())["keys"]
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert jwk["kid"] == thumbprint(private.public_key())


def test_starting_without_a_vault_imports_nothing_of_azures_secrets():
    import subprocess

    code = "import deployr_serve.bootstrap, sys; print([m for m in sys.modules if m.startswith(('azure.', 'jwt'))])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.strip() == "[]"


async def test_readiness_names_what_a_model_may_not_search(application, models_of, bundle):
    models = models_of(hematocrit=bundle)
    services = dataclasses.replace(application.services, models=models)
    short = dataclasses.replace(
        application, services=services, missing_scopes=lambda: {"hematocrit": ("Condition", "Observation (laboratory)")}
    )
    ready = routes_of(short)["health_ready"].get_user_function()
    response = await ready(func.HttpRequest("GET", "/api/health/ready", headers={}, body=b""))
    assert response.status_code == 503
    assert json.loads(response.get_body())["models"] == {
        "hematocrit": "insufficient-scope: Condition, Observation (laboratory)"
    }

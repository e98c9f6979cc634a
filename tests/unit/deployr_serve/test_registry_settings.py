"""The registry's settings: by default what the profile needs, and a file of people in which each has one name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployr_core.registry.journal import NO_KEYS
from deployr_core.registry.roles import Role
from deployr_core.signing import trusted_key
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.registry_people import ListedPerson, person_by_login
from deployr_serve.settings import read_settings
from tests.json_callers import OURS, VISITOR
from tests.registry_parts import PRIVATE, PUBLIC

BASE = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.hospital.example/fhir"}
TENANT = {"tenant": OURS, "audience": "api://deployr"}
ADA = {"name": "ada", "roles": ["developer"], "login": "ada"}
OTHER = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
LINUS = {"name": "linus", "tenant": OURS, "object_id": VISITOR}


def read(tmp_path, **said):
    file = tmp_path / "people.json"
    file.write_text(json.dumps({"people": [ADA], **said}))
    return read_settings({**BASE, "DEPLOYR_REGISTRY_PEOPLE": str(file)}).registry


def test_in_dev_nothing_goes_by_the_registry_unless_it_is_said():
    assert not read_settings(BASE).registry.is_required
    assert read_settings({**BASE, "DEPLOYR_REGISTRY": "required"}).registry.is_required


def test_in_prod_what_is_shown_goes_by_the_registry_unless_it_is_said(tmp_path):
    (tmp_path / "callers.json").write_text(
        json.dumps({"callers": [{"name": "engine", "models": ["*"], "password": "correct horse battery"}]})
    )
    prod = {
        **BASE,
        "DEPLOYR_PROFILE": "prod",
        "DEPLOYR_EMR_AUTH": "basic",
        "DEPLOYR_EMR_BASIC_USER": "deployr",
        "DEPLOYR_EMR_BASIC_PASSWORD": "secret",
        "DEPLOYR_ID_KEY": "0123456789abcdef",
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}",
        "DEPLOYR_JSON_CALLERS": str(tmp_path / "callers.json"),
    }
    assert read_settings(prod).registry.is_required
    assert not read_settings({**prod, "DEPLOYR_REGISTRY": "off"}).registry.is_required


def test_people_are_read_with_their_proofs_and_no_password_is_ever_shown(tmp_path):
    grace = {"name": "grace", "roles": ["approver", "viewer"], "login": "ghopper", "password": "correct horse battery"}
    found = read(tmp_path, people=[ADA, grace, LINUS], tenants=[TENANT]).people
    assert [person.name for person in found.people] == ["ada", "grace", "linus"]
    assert found.people[1].roles == {Role.APPROVER, Role.VIEWER}
    assert "correct horse" not in repr(found)


def test_the_key_of_journals_is_a_file_or_what_a_vault_gave_and_counts_itself(tmp_path):
    (tmp_path / "journal.pem").write_bytes(PRIVATE)
    (tmp_path / "old.pub.pem").write_bytes(OTHER)
    own = trusted_key(PUBLIC).key_id
    for said in (str(tmp_path / "journal.pem"), PRIVATE.decode()):
        trusted = {"DEPLOYR_JOURNAL_TRUSTED_KEYS": str(tmp_path / "old.pub.pem")}
        keys = read_settings({**BASE, "DEPLOYR_JOURNAL_KEY": said, **trusted}).registry.journal_keys
        assert keys.signing.key_id == own
        assert [each.key_id for each in keys.trusted] == [own, trusted_key(OTHER).key_id]
    assert read_settings(BASE).registry.journal_keys == NO_KEYS


@pytest.mark.parametrize("name", ["DEPLOYR_JOURNAL_KEY", "DEPLOYR_JOURNAL_TRUSTED_KEYS"])
def test_what_is_no_key_of_journals_is_refused_and_not_repeated(tmp_path, name):
    (tmp_path / "wrong.pem").write_bytes(PUBLIC if name == "DEPLOYR_JOURNAL_KEY" else PRIVATE)
    for said in ("-----BEGIN secret", str(tmp_path / "wrong.pem"), "nowhere.pem"):
        with pytest.raises(SettingsInvalid, match=name) as refused:
            read_settings({**BASE, name: said})
        assert "secret" not in str(refused.value)


def test_a_role_may_be_for_some_models_only_however_somebody_comes_in(tmp_path):
    linus = {**LINUS, "only": {"approver": ["anemia"]}}
    found = read(tmp_path, people=[{**ADA, "only": {"developer": ["hematocrit"]}}, linus], tenants=[TENANT]).people
    ada = person_by_login("ada", found.people)
    assert (ada.roles_for("hematocrit"), ada.roles_for("anemia")) == ({Role.DEVELOPER}, frozenset())
    by_token = found.people[1].with_roles(frozenset({Role.VIEWER, Role.APPROVER}))
    assert (by_token.roles_for("hematocrit"), len(by_token.roles_for("anemia"))) == ({Role.VIEWER}, 2)


def test_a_login_leads_to_one_person_who_goes_by_both_names():
    people = (ListedPerson(name="grace", roles=frozenset({Role.APPROVER}), login="ghopper"),)
    person = person_by_login("ghopper", people)
    assert (person.names, person.roles) == (("grace", "ghopper"), {Role.APPROVER})
    assert person_by_login("grace", people) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"people": []}, "at least one person"),
        ({"people": [ADA, {**ADA, "login": "other", "name": "ADA"}]}, "each name once"),
        ({"people": [ADA, {**ADA, "name": "grace"}]}, "each login once"),
        ({"people": [LINUS, {**LINUS, "name": "torvalds"}], "tenants": [TENANT]}, "each object_id once"),
        ({"people": [LINUS]}, "its tenant among the tenants"),
        ({"people": [{**LINUS, "object_id": None}], "tenants": [TENANT]}, "tenant with object_id"),
        ({"people": [{**LINUS, "roles": ["viewer"]}], "tenants": [TENANT]}, "a token names its own"),
        ({"people": [{"name": "ada"}]}, "a login, a password or an object_id"),
        ({"people": [{**ADA, "roles": []}]}, "roles with a login"),
        ({"people": [{**ADA, "only": {"approver": ["hematocrit"]}}]}, "only with roles that ada has"),
        ({"people": [{**ADA, "only": {"developer": []}}]}, "models' ids by role"),
        ({"people": [{**ADA, "only": {"developer": ["../hematocrit"]}}]}, "models' ids by role"),
        ({"people": [{**ADA, "only": {"boss": ["hematocrit"]}}]}, "people"),
        ({"people": [{**ADA, "roles": ["boss"]}]}, "people"),
        ({"people": [{**ADA, "password": "short"}]}, "at least 16 characters"),
        ({"people": [{**ADA, "name": "a b"}]}, "each person's name"),
        ({"persons": []}, "persons"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_the_settings_name(tmp_path, said, expected):
    with pytest.raises(SettingsInvalid) as raised:
        read(tmp_path, **said)
    assert "DEPLOYR_REGISTRY_PEOPLE: " in str(raised.value)
    assert expected in str(raised.value)


def test_the_example_in_the_docs_is_one_that_is_read(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "registry.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    example = json.loads(block.replace("TENANT-GUID", OURS).replace("OBJECT-GUID", VISITOR))
    assert len(read(tmp_path, **example).people.people) == 3


@pytest.mark.parametrize("value", ["", "people.json"])
def test_a_file_that_is_not_there_is_said(value):
    settings = {**BASE, "DEPLOYR_REGISTRY_PEOPLE": value} if value else {**BASE, "DEPLOYR_REGISTRY": "yes"}
    with pytest.raises(SettingsInvalid, match="expected"):
        read_settings(settings)

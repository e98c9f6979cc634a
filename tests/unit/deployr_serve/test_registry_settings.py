"""The registry's settings: by default what the profile needs, and a file of people in which each has one name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deployr_core.registry.roles import Role
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.registry_people import ListedPerson, person_by_login
from deployr_serve.settings import read_settings
from tests.json_callers import OURS, VISITOR

BASE = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.hospital.example/fhir"}
TENANT = {"tenant": OURS, "audience": "api://deployr"}
ADA = {"name": "ada", "roles": ["developer"], "login": "ada"}
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

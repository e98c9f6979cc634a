"""docs/sites.md is true: its two hospitals, set up as it says, start in the prod profile."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.registry_parts import PUBLIC
from tests.site_parts import Hospitals

PAGE = (Path(__file__).parents[3] / "docs" / "sites.md").read_text(encoding="utf-8")
[SETTINGS] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
SECRETS = re.findall(r"\b((?:NORTH|SOUTH)__\w+)=\.\.\.", PAGE)


def new_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def hospitals(tmp_path, monkeypatch):
    """Write what the page shows for the north, and the same for the south, with the files that it names."""
    (tmp_path / "sites").mkdir()
    for site in ("north", "south"):
        text = SETTINGS.replace("north", site)
        # Absolute paths are the site's own machine's; here they are below a folder.
        text = re.sub(r'(?<=["\:])/(?=data/|hospital/)', f"{tmp_path}/", text)
        (tmp_path / "sites" / f"{site}.settings.json").write_text(text)
        home = tmp_path / "hospital" / site
        (home / "deployments").mkdir(parents=True)
        (tmp_path / "data" / site / "bundles").mkdir(parents=True)
        caller = {"name": "engine", "models": ["*"], "password": f"the engine of {site}"}
        (home / "callers.json").write_text(json.dumps({"callers": [caller]}))
        person = {"name": "grace", "roles": ["approver"], "login": "grace"}
        (home / "people.json").write_text(json.dumps({"people": [person]}))
    (tmp_path / "hospital" / "trainers.pem").write_bytes(PUBLIC)
    for name in SECRETS:
        monkeypatch.setenv(name, new_key() if name.endswith("EMR_KEY") else f"a secret: {name}")
    monkeypatch.setenv("DEPLOYR_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("DEPLOYR_PROFILE", "prod")
    monkeypatch.setenv("AzureWebJobsStorage", f"sqlite:{tmp_path / 'queues.sqlite'}")
    return tmp_path


async def test_both_hospitals_of_the_page_start_in_the_prod_profile(hospitals):
    before = logging.getLogRecordFactory()
    loaded = Hospitals(hospitals)
    try:
        assert (loaded.sites.refused, set(loaded.sites.applications)) == ({}, {"north", "south"})
        # The registry is required in prod, and can be asked at both.
        assert all(site.registry is not None for site in loaded.sites.applications.values())
    finally:
        await loaded.aclose()
        logging.setLogRecordFactory(before)

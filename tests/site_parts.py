"""Two hospitals in one app: their files, each with what is its own, and requests by the app's real routes."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import azure.functions as func

from deployr_serve.local_host.loading import load_app
from deployr_serve.local_host.routes import Matched, resolve, routes_for
from tests.cda import SETTINGS as CDA
from tests.functional.deployr_serve.cds_parts import ADVISING, ISSUER, signer
from tests.json_callers import APPLICATION, OURS, write_callers

APP = Path(__file__).parents[1] / "function_app.py"
ADMIN = "99999999-9999-4999-8999-999999999999"
"""A person of the registry, whom the tenant calls so at every site."""
BATCH = """\
schema_version: 1
name: icu
models: [hematocrit]
schedule: '0 0 * * * *'
worklist: {from: fhir, locations: [icu]}
"""
TRIAL = """\
schema_version: 1
model: anemia
mode: trial
threshold: 0.5
trial:
  trial_id: t
  version: 1
  unit: department
  arms: [{name: control, shows: false}, {name: advisory, shows: true}]
"""


def password(site, who):
    return f"{who} of {site}, and of nobody else"


def audience(site):
    return f"api://{site}"


def public(site):
    return f"https://deployr.example/sites/{site}"


def basic(site, who):
    return {"Authorization": "Basic " + base64.b64encode(f"{who}:{password(site, who)}".encode()).decode()}


def write_site(folder, site, emr_url, bundles, *, clock, proofs, **settings):
    """Write all files of a site and its settings; give the settings.

    At every site the same application, the same person, the same client of hooks and the same names of callers are
    listed, so that nothing but what is a site's own tells them apart.
    """
    home = folder / site
    for each in ("deployments", "batches"):
        (home / each).mkdir(parents=True, exist_ok=True)
    bundles(home / "bundles")
    (home / "deployments" / "hematocrit.yaml").write_text(
        ADVISING.format(model="hematocrit", mode="live", threshold=0.2)
    )
    (home / "deployments" / "anemia.yaml").write_text(TRIAL)
    (home / "batches" / "icu.yaml").write_text(BATCH)
    tenants = [{"tenant": OURS, "audience": audience(site), "jwks_file": "entra.json"}]
    application = {"name": "entra", "models": ["*"], "tenant": OURS, "application": APPLICATION, "role": "Scores.Ask"}
    engine = {"name": "engine", "models": ["*"], "password": password(site, "engine")}
    callers = write_callers(home, callers=[engine, application], tenants=tenants, gateway=None)
    (home / "keys.json").write_bytes(signer().key_set())
    (home / "clients.json").write_text(json.dumps({"clients": [{"issuer": ISSUER, "jwks_file": "keys.json"}]}))
    people = [
        {"name": "vic", "roles": ["viewer"], "password": password(site, "vic")},
        {"name": "grace", "roles": ["approver"], "password": password(site, "grace")},
        {"name": "linus", "tenant": OURS, "object_id": ADMIN},
    ]
    (home / "people.json").write_text(json.dumps({"people": people, "tenants": tenants}))
    values = {
        "DEPLOYR_BUNDLES": str(home / "bundles"),
        "DEPLOYR_BUNDLE_ARCHIVE": str(home / "runs"),
        "DEPLOYR_MODEL_PROOFS": str(proofs(site)),
        "DEPLOYR_DEPLOYMENTS": str(home / "deployments"),
        "DEPLOYR_BATCHES": str(home / "batches"),
        "DEPLOYR_STORE": f"sqlite:{home / 'store.sqlite'}",
        "DEPLOYR_AUDIT": f"folder:{home / 'audit'}",
        "DEPLOYR_ID_KEY": password(site, "ids"),
        "DEPLOYR_EMR_FHIR_BASE": f"{emr_url}/api/FHIR/R4",
        "DEPLOYR_EMR_VENDOR_BASE": emr_url,
        "DEPLOYR_CLOCK_FILE": str(clock),
        "DEPLOYR_JSON_CALLERS": callers,
        "DEPLOYR_CDS_CLIENTS": str(home / "clients.json"),
        "DEPLOYR_PUBLIC_BASE": public(site),
        "DEPLOYR_BPA_CALLERS": json.dumps({"alert": password(site, "alert")}),
        **CDA,
        "DEPLOYR_REGISTRY_PEOPLE": str(home / "people.json"),
        **settings,
    }
    (folder / "sites").mkdir(exist_ok=True)
    (folder / "sites" / f"{site}.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    return values


class Hospitals:
    """The app as a host loads it; `ask` goes by its routes."""

    def __init__(self, folder):
        self.folder = folder
        loaded = load_app(APP)
        self.functions = {each.name: each for each in loaded.functions}
        self._routes = routes_for(loaded.http, prefix="")
        self.sites = sys.modules[APP.stem].sites

    def store(self, site):
        return self.sites.applications[site].services.store

    async def ask(self, method, url, body=b"", **headers):
        """Ask at an address as a client would; 404 where nothing is there."""
        found = resolve(self._routes, method=method, raw_path=urlsplit(url).path.encode())
        if not isinstance(found, Matched):
            return SimpleNamespace(status=404, told=b"", headers={})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        request = func.HttpRequest(
            method, url, headers=sent if content else headers, route_params=dict(found.route_params), body=content
        )
        answer = await found.function.call(request)
        return SimpleNamespace(
            status=answer.status_code, told=answer.get_body(), headers={k.lower(): v for k, v in answer.headers.items()}
        )

    def audited(self, site):
        """Give who was told what, as the site's audit has it: who, what was said, and which site it says it is."""
        folder = self.folder / site / "audit"
        lines = [line for file in sorted(folder.glob("*.ndjson")) for line in file.read_text().splitlines()]
        found = []
        for event in map(json.loads, lines):
            agents = [each["who"].get("identifier", {}).get("value", "") for each in event["agent"]]
            who = next((each for each in agents if each and not each.endswith("/DEV")), "")
            found.append((who, event["outcomeDesc"].partition(":")[0], event["source"]["site"]))
        return found

    async def packets(self, site):
        return [
            packet
            for model in ("anemia", "hematocrit")
            for packet in await self.store(site).packets(model_id=model, after=None, limit=100)
        ]

    async def aclose(self):
        for application in self.sites.applications.values():
            await application.aclose()

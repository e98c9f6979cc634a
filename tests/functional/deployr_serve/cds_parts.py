"""What the tests of CDS Hooks share: schemas, an EMR's key, a policy with words, and drafts of orders."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
from cryptography.hazmat.primitives.asymmetric import ec

from mock_emr.cds_client import CdsClient, Reply, Signer

PUBLIC = "https://cds.hospital.example"
ISSUER = "https://emr.hospital.example/fhir"
KEY = ec.generate_private_key(ec.SECP384R1())
_APP = Path(__file__).parents[3] / "function_app.py"
_SCHEMAS = Path(__file__).parents[2] / "schemas" / "cds_hooks"

ADVISING = """\
schema_version: 1
model: {model}
mode: {mode}
threshold: {threshold}
groups: [cbc]
advisory:
  headline: "Repeat of {model} is likely normal: {{score_percent}}"
  detail: "Score **{{score}}** <img src=x onerror=alert(1)>"
  indicator: warning
  source_label: Laboratory stewardship
  acknowledge_reasons:
    - {{code: changed, display: The patient's state has changed}}
  links:
    - {{label: About this model, url: "https://models.hospital.example/hematocrit"}}
  suggestions:
    - label: Do not repeat it
      recommended: true
      actions:
        - {{kind: delete, description: Take the order back}}
"""


def validated(content, schema):
    jsonschema.validate(
        content,
        json.loads((_SCHEMAS / f"{schema}.json").read_text()),
        cls=jsonschema.Draft202012Validator,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )
    return content


def signer(**changes):
    return Signer(**{"issuer": ISSUER, "key": KEY, "key_id": "k1", **changes})


def let_in(folder, **client):
    """Write the file of one client, with its key pinned unless told otherwise, and give the settings."""
    (folder / "keys.json").write_bytes(signer().key_set())
    written = {"issuer": ISSUER, **(client or {"jwks_file": "keys.json"})}
    (folder / "clients.json").write_text(json.dumps({"clients": [written]}))
    return {"DEPLOYR_CDS_CLIENTS": str(folder / "clients.json"), "DEPLOYR_PUBLIC_BASE": PUBLIC}


def advise(folder, *models, mode="live", threshold=0.5):
    """Write deployment files, and give the setting."""
    deployments = folder / "deployments"
    deployments.mkdir(exist_ok=True)
    for model in models:
        text = ADVISING.format(model=model, mode=mode, threshold=threshold)
        (deployments / f"{model}.yaml").write_text(text)
    return {"DEPLOYR_DEPLOYMENTS": str(deployments)}


def client_of(app, *, fhir_base, signed_by=None):
    """Give the EMR's client of an app in this process, whose every message is checked against its schema."""

    async def send(method, url, headers, body):
        assert url.startswith(f"{PUBLIC}/cds-services")
        path = url.removeprefix(f"{PUBLIC}/cds-services").removeprefix("/")
        if body:
            validated(json.loads(body), "feedback" if path.endswith("/feedback") else "request")
        answer = await app.cds(method, path, headers=headers, body=body)
        said = {name.lower(): value for name, value in answer.headers.items()}
        reply = Reply(status=answer.status_code, headers=said, body=answer.get_body())
        if reply.status == 200 and reply.body:
            validated(reply.content, "response" if path else "discovery")
        return reply

    return CdsClient(PUBLIC, fhir_base=fhir_base, send=send, now=lambda: datetime.now(UTC), signer=signed_by)


def search_in(*resources):
    """Give the EMR's own search over these resources: by id, or all of a type."""

    async def search(query):
        kind, by_id, rest = re.match(r"([A-Za-z]+)([/?])(.*)", query).groups()
        found = [one for one in resources if one["resourceType"] == kind]
        if by_id == "/":
            return next((one for one in found if one["id"] == rest), None)
        entries = [{"resource": one, "search": {"mode": "match"}} for one in found]
        return {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}

    return search


def draft(draft_id="d1", *, code="57021-8", patient_id="p1"):
    return {
        "resourceType": "ServiceRequest",
        "id": draft_id,
        "status": "draft",
        "intent": "order",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{patient_id}"},
    }


def order_sign(*drafts, patient_id="p1", encounter_id="e1"):
    return {
        "userId": "Practitioner/dr1",
        "patientId": patient_id,
        "encounterId": encounter_id,
        "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in drafts]},
    }


@asynccontextmanager
async def hosted(tmp_path, *, host=None, **settings):
    """Run the app in a process of its own, and give its address. ``host``: of the settings file, such as CORS."""
    file = tmp_path / "local.settings.json"
    file.write_text(json.dumps({"IsEncrypted": False, "Host": host or {}, "Values": {}}))
    arguments = ("--app", str(_APP), "--port", "0", "--state", str(tmp_path), "--settings", str(file))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deployr_serve.local_host", *arguments),
        env={**os.environ, **settings},
        cwd=_APP.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = b""
        async for line in process.stdout:
            said += line
            _, found, rest = line.decode().partition("http://127.0.0.1:")
            if found:
                yield f"http://127.0.0.1:{rest.split()[0].strip('/')}"
                break
        else:
            raise AssertionError(f"the app did not start: {said.decode()}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()

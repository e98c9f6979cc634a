"""`deployr doctor` against the mock EMR: a healthy site is found healthy, each planted trouble by its name, no PHI."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import Console

from deployr_cli.doctor.run import Write, run_doctor
from deployr_cli.doctor.visit import Asked
from deployr_cli.failures import CommandFailed
from deployr_serve.adapters.client_keys import published, read_client_key
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.jwks import key_set
from mock_emr.assertion import keys_in
from mock_emr.faults import Rule
from mock_emr.scopes import ScopeRules
from tests.document_parts import example_bundle

CLIENT = "client-1"
PATIENT, ENCOUNTER, CSN = "canary-patient", "canary-encounter", "8812345"
PHI = (PATIENT, ENCOUNTER, CSN, "CanaryFamily", "CanaryGiven", "MRN-CANARY-1", "1950-03-04", "31.25")
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ROOT = Path(__file__).resolve().parents[3]


def _pem() -> bytes:
    return KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _jwks() -> bytes:
    return key_set((published(read_client_key(_pem(), password=None, algorithm="RS384", key_id=None)),))


@pytest.fixture
def chart(chart_of):
    """Give a chart with eight results, names, an MRN and a diagnosis; nothing in it is left out."""
    resources = chart_of(PATIENT, ENCOUNTER, "o1", CSN, "lab1", value=31.25, birth="1950-03-04")
    resources[0] |= {
        "name": [{"family": "CanaryFamily", "given": ["CanaryGiven"]}],
        "identifier": [{"system": "urn:mrn", "value": "MRN-CANARY-1", "type": {"text": "MRN"}}],
    }
    first = next(it for it in resources if it["resourceType"] == "Observation")
    more = [{**first, "id": f"more-{number}"} for number in range(7)]
    return [*resources, *more]


@pytest.fixture
async def site(emr_of, chart, bundles_folder, model_proofs, tmp_path):
    """Give a site that is healthy: `doctor` examines it, with changes to settings, what is asked, and the chart."""
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(_pem())

    class Site:
        def __init__(self):
            self.chart = chart
            self.emr = None

        async def start(self):
            self.emr = await emr_of(*self.chart, clients={CLIENT: keys_in(_jwks())})
            return self.emr

        async def doctor(self, *, environ=None, clock=None, write=None, now=None, columns=100, **asked):
            if self.emr is None:
                await self.start()
            settings = {
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_MODEL_PROOFS": str(model_proofs),
                "DEPLOYR_EMR_FHIR_BASE": f"{self.emr.url}/api/FHIR/R4",
                "DEPLOYR_EMR_VENDOR_BASE": self.emr.url,
                "DEPLOYR_EMR_CLIENT_ID": CLIENT,
                "DEPLOYR_EMR_KEY_FILE": str(key_file),
                **(environ or {}),
            }
            out, report = io.StringIO(), tmp_path / "report.json"
            fine = await asyncio.to_thread(
                run_doctor,
                None,
                Asked(**{"patient": PATIENT, "as_of": self.emr.parts.clock.now(), **asked}),
                write=write or Write(environment=None, confirm=lambda _: pytest.fail("nobody was to be asked")),
                json_file=report,
                console=Console(file=out, width=columns, force_terminal=False),
                clock=clock,
                environ=settings,
            )
            return Examined(fine, out.getvalue(), json.loads(report.read_bytes()))

    return Site()


class Examined:
    """What came out, with the state of each check by its name; nothing of it may name the patient."""

    def __init__(self, fine, text, report):
        self.fine, self.text, self.report = fine, text, report
        self.findings = {finding["check"]: finding for finding in report["findings"]}
        self.states = {check: finding["state"] for check, finding in self.findings.items()}
        for canary in PHI:
            assert canary not in text
            assert canary not in json.dumps(report)

    def failing(self):
        return [check for check, state in self.states.items() if state == "fail"]


def rewritten(emr, change, *, when=lambda _: True):
    """Let every JSON answer of the mock pass through ``change(scope, document)`` before it is sent."""
    inner = emr.app

    async def app(scope, receive, send):
        if not when(scope):
            await inner(scope, receive, send)
            return
        sent = []

        async def held(message):
            sent.append(message)

        await inner(scope, receive, held)
        document = change(scope, json.loads(b"".join(it.get("body", b"") for it in sent[1:])))
        body = msgspec.json.encode(document)
        headers = [it for it in sent[0]["headers"] if it[0] != b"content-length"]
        await send({**sent[0], "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    emr.app = app


class Shifted(SystemClock):
    """A machine whose clock is off; durations pass as they do."""

    def __init__(self, **off):
        self._off = timedelta(**off)

    def now(self):
        return super().now() - self._off


async def test_a_healthy_site_has_nothing_to_fix(site):
    found = await site.doctor()

    assert found.fine, found.text
    assert found.states == {
        "settings": "warn",  # the dev profile
        "model anemia": "ok",
        "model hematocrit": "ok",
        "server fhir": "warn",  # plain http, on loopback
        "clock fhir": "ok",
        "discovery": "ok",
        "key": "ok",
        "jwks": "skipped",
        "token": "ok",
        "scopes": "ok",
        "metadata": "ok",
        "search parameters": "ok",
        "search by POST": "ok",
        "search patient": "ok",
        "search labs": "ok",
        "search diagnoses": "ok",
        "search medications": "ok",
        "paging": "ok",
        "identifiers": "ok",
        "encounters": "ok",
        "facts anemia, hematocrit": "ok",
        "units anemia, hematocrit": "ok",
        "codes anemia, hematocrit": "ok",
        "vendor identifiers": "skipped",
        "vendor reads": "skipped",
        "write": "skipped",
    }
    assert "8 counted by the server" in found.findings["search labs"]["said"]
    assert "4 pages of 2 give the same 8" in found.findings["paging"]["said"]
    assert found.text.rstrip().endswith("20 ok, 0 to fix, 2 to look at, 4 skipped")
    assert not list(site.emr.parts.scores.cells())


async def test_the_documents_that_a_model_takes_are_read_and_counted_and_what_they_say_is_not_shown(
    site, bundles_folder, bundle_files
):
    example = example_bundle(bundle_files, kind="notes", model_id="pneumonia-notes")
    (bundles_folder / "pneumonia-notes").mkdir()
    for name, content in {**example.parts, "manifest.json": example.manifest.to_json()}.items():
        (bundles_folder / "pneumonia-notes" / name).write_bytes(content)
    note = {
        "resourceType": "DocumentReference",
        "id": "d1",
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "34117-2"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "content": [{"attachment": {"contentType": "text/plain", "data": "UG5ldW1vbmlhIENhbmFyeUZhbWlseQ=="}}],
    }
    [encounter] = [each for each in site.chart if each["id"] == ENCOUNTER]
    site.chart = [*site.chart, {**note, "date": encounter["period"]["start"]}]
    found = await site.doctor(columns=200)

    assert found.fine, found.text
    assert found.findings["documents pneumonia-notes"]["said"] == "admission_note.documents 1"
    assert "Binary, Condition, DocumentReference" in found.findings["model pneumonia-notes"]["said"]
    assert found.states["scopes"] == "ok"

    site.emr.parts.faults.put((Rule(route="DocumentReference", status=503),))
    assert (await site.doctor()).findings["documents pneumonia-notes"]["state"] == "fail"


async def test_without_a_patient_searches_are_skipped_with_what_to_pass(site):
    found = await site.doctor(patient=None)

    assert found.fine
    assert found.findings["searches"] == {
        "check": "searches",
        "state": "skipped",
        "said": "needs --patient, a test patient's FHIR id",
        "fix": "",
    }


async def test_wrong_settings_are_listed_each(site):
    found = await site.doctor(environ={"DEPLOYR_EMR_SEARCH": "both", "DEPLOYR_DEADLINE_S": "never"})

    assert not found.fine
    assert found.failing() == ["DEPLOYR_EMR_SEARCH", "DEPLOYR_DEADLINE_S"]


async def test_a_key_that_cannot_sign_is_named(site):
    found = await site.doctor(environ={"DEPLOYR_EMR_KEY_ALGORITHM": "ES384"})

    assert found.failing() == ["DEPLOYR_EMR_KEY_FILE"]


async def test_a_bundle_that_was_changed_is_named(site, bundles_folder):
    (bundles_folder / "anemia" / "features.json").write_bytes(b"{}")

    found = await site.doctor()

    assert found.failing() == ["model anemia"]
    assert found.states["facts hematocrit"] == "ok"


async def test_a_server_that_is_not_there_blocks_what_comes_after(site):
    found = await site.doctor(environ={"DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir"})

    assert "server fhir" in found.failing()
    assert found.findings["token"]["said"] == found.findings["searches"]["said"] == "after 'server fhir'"


async def test_a_wrong_client_id_is_found_at_the_token(site):
    found = await site.doctor(environ={"DEPLOYR_EMR_CLIENT_ID": "another"})

    assert found.failing() == ["token"]
    assert "invalid_client" in found.findings["token"]["said"]
    assert "DEPLOYR_EMR_CLIENT_ID" in found.findings["token"]["fix"]
    assert found.states["searches"] == "skipped"


async def test_a_missing_scope_is_named(site):
    emr = await site.start()
    allowed = (
        "system/Patient.rs system/Encounter.rs system/ServiceRequest.rs system/Observation.rs system/Medication.rs"
    )
    emr.parts.scopes.put(ScopeRules(enforced=True, allowed={CLIENT: f"{allowed} system/MedicationRequest.rs"}))

    found = await site.doctor()

    assert found.failing() == ["scopes", "search diagnoses", "facts anemia, hematocrit"]
    assert "Condition" in found.findings["scopes"]["said"]
    assert "system/Condition.rs" in found.findings["scopes"]["fix"]


@pytest.mark.parametrize(
    ("off", "state"), [({"seconds": 30}, "ok"), ({"minutes": 2}, "warn"), ({"minutes": 10}, "fail")]
)
async def test_a_skewed_clock_is_found(site, off, state):
    found = await site.doctor(clock=Shifted(**off))

    assert found.states["clock fhir"] == state


async def test_a_server_without_post_search_is_found_and_examined_by_get(site):
    emr = await site.start()
    inner = emr.app

    async def app(scope, receive, send):
        path = scope["path"].replace("/_search", "/nothing/here")
        await inner({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    emr.app = app
    found = await site.doctor()

    assert found.failing() == ["search by POST"]
    assert "DEPLOYR_EMR_SEARCH=get" in found.findings["search by POST"]["fix"]
    assert found.states["search labs"] == "ok"


async def test_pages_that_lose_a_match_are_found(site):
    emr = await site.start()

    def lose_one(scope, page):
        return {**page, "entry": page["entry"][1:]}

    rewritten(emr, lose_one, when=lambda scope: b"page=2" in scope["query_string"])
    found = await site.doctor()

    assert found.failing() == ["paging"]
    assert "emr-incomplete" in found.findings["paging"]["said"]


async def test_pages_that_repeat_a_match_without_a_total_are_found(site):
    emr = await site.start()
    first = []

    def repeat(scope, page):
        page.pop("total", None)
        if scope["method"] == "POST":
            first[:] = page.get("entry", ())
        elif first:
            page["entry"] = first
        return page

    rewritten(emr, repeat, when=lambda scope: "/Observation" in scope["path"])
    found = await site.doctor()

    assert "paging" in found.failing()


async def test_a_unit_without_a_conversion_is_found_with_its_spelling_and_count(site):
    odd = [it for it in site.chart if it["resourceType"] == "Observation"][:1]
    site.chart += [
        {**odd[0], "id": f"odd-{n}", "valueQuantity": {"value": 31.25, "unit": "mm[Hg]\x1b"}} for n in (1, 2)
    ]

    found = await site.doctor()

    assert found.failing() == ["units anemia, hematocrit"]
    said = found.findings["units anemia, hematocrit"]["said"]
    assert said == "2 of 10 results in units without a conversion: 4544-3 in 'mm[Hg]?' x2 (declared %)"


async def test_results_without_a_release_time_are_found(site):
    for resource in site.chart:
        resource.pop("issued", None)

    found = await site.doctor()

    assert found.failing() == ["facts anemia, hematocrit"]
    assert "labs.no_release_time 8" in found.findings["facts anemia, hematocrit"]["said"]


async def test_encounters_without_a_serial_number_are_found(site):
    found = await site.doctor(environ={"DEPLOYR_EMR_CSN_SYSTEM": "urn:another"})

    assert found.failing() == ["encounters"]
    assert (
        "0 of 1 encounter with a contact serial number; identifiers there: CSN ("
        in found.findings["encounters"]["said"]
    )


async def test_a_patient_whom_nobody_knows_is_said(site):
    found = await site.doctor(patient="canary-patient-2")

    assert "patient" in found.failing()
    assert "--patient" in found.findings["patient"]["fix"]


async def test_a_server_that_finds_nobody_by_an_id_alone_is_found(site):
    emr = await site.start()
    inner = emr.app

    async def app(scope, receive, send):
        asked = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        asked = re.sub(rb"\bpatient=(?!Patient)[^&]*", b"patient=nobody", asked)

        async def again():
            return {"type": "http.request", "body": asked, "more_body": False}

        await inner(scope, again, send)

    emr.app = app
    found = await site.doctor()

    assert "patient parameter" in found.failing()
    assert found.states["facts anemia, hematocrit"] == "warn"


async def test_the_published_key_set_is_compared(site):
    emr = await site.start()
    inner, body = emr.app, [_jwks()]

    async def app(scope, receive, send):
        if scope["path"] != "/.well-known/jwks.json":
            await inner(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body[0]})

    emr.app = app
    same = await site.doctor(jwks_url=f"{emr.url}/.well-known/jwks.json", patient=None)
    body[0] = b'{"keys": []}'
    gone = await site.doctor(jwks_url=f"{emr.url}/.well-known/jwks.json", patient=None)

    assert same.states["jwks"] == "ok"
    assert gone.failing() == ["jwks"]


# -- the vendor's services

BY_EPIC = {
    "DEPLOYR_EMR_READS": "labs=epic,patient=epic",
    "DEPLOYR_EMR_USER_ID": "CANARYUSER",
    "DEPLOYR_EMR_IDENTITY": "epic",
}


async def test_vendor_reads_are_tried_where_the_settings_choose_them(site):
    found = await site.doctor(environ=BY_EPIC)

    assert found.states["vendor identifiers"] == "ok", found.text
    assert "FHIR" in found.findings["vendor identifiers"]["said"]
    assert found.findings["vendor reads"]["said"].startswith("identity 1 in ")
    assert "labs 8 in" in found.findings["vendor reads"]["said"]
    assert "search labs" not in found.states
    assert "CANARYUSER" not in found.text


async def test_a_vendor_service_that_fails_is_found(site):
    emr = await site.start()
    emr.parts.faults.put([Rule(route="result-components", body="vendor-error")])

    found = await site.doctor(environ=BY_EPIC)

    assert "vendor reads" in found.failing()
    assert found.states["vendor identifiers"] == "ok"


# -- writing


async def test_a_test_score_is_written_only_when_asked_for(site):
    found = await site.doctor(write_test=True, encounter=CSN, write=Write(environment=None, confirm=lambda _: True))

    assert found.fine, found.text
    assert found.states["write"] == "ok"
    [cell] = site.emr.parts.scores.cells()
    assert (cell.csn, [row.score for row in cell.rows]) == (CSN, ["0"])


@pytest.mark.parametrize(
    ("environment", "repeated", "yes"),
    [("DEV", None, False), ("PROD", None, True), ("PROD", "prod", True), ("DEV", "TST", True)],
)
async def test_a_test_score_is_refused_unless_it_is_meant(site, environment, repeated, yes):
    with pytest.raises(CommandFailed):
        await site.doctor(
            environ={"DEPLOYR_ENVIRONMENT": environment},
            write_test=True,
            write=Write(environment=repeated, confirm=lambda _: yes),
        )
    assert not list(site.emr.parts.scores.cells())


async def test_an_encounter_of_somebody_else_is_refused(site, chart_of):
    site.chart += chart_of("p9", "e9", "o9", "999", "lab9", value=30.0, birth="1960-01-01")
    found = await site.doctor(write_test=True, encounter="999", write=Write(environment=None, confirm=lambda _: True))

    assert "encounters" in found.failing()
    assert not list(site.emr.parts.scores.cells())


# -- as a person runs it


async def test_the_command_says_it_in_its_exit_code_and_names_nobody(site, bundles_folder, tmp_path):
    emr = await site.start()
    file = tmp_path / "local.settings.json"
    values = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_EMR_FHIR_BASE": f"{emr.url}/api/FHIR/R4",
        "DEPLOYR_EMR_CLIENT_ID": CLIENT,
        "DEPLOYR_EMR_KEY_FILE": str(tmp_path / "key.pem"),
    }
    file.write_text(json.dumps({"IsEncrypted": False, "Values": values}))

    async def ran(*arguments, **environ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deployr_cli.main", "doctor", *arguments),
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "80", **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert not [canary for canary in PHI if canary in out.decode() + error.decode()]
        return process.returncode, out.decode(), error.decode()

    asked = ("--settings", str(file), "--patient", PATIENT, "--encounter", CSN, "--as-of", "2015-01-06T20:55:00Z")
    code, out, error = await ran(*asked)
    assert (code, error) == (0, ""), out
    code, out, error = await ran(*asked, DEPLOYR_EMR_CLIENT_ID="another")
    assert (code, error) == (1, "")
    assert "✗ token" in out
    code, out, error = await ran("--settings", str(tmp_path / "nowhere.json"))
    assert (code, out) == (2, "")
    assert error.startswith("deployr: ")


# -- the page that shows it


@pytest.mark.parametrize("columns", [80, 120])
async def test_no_line_is_wider_than_the_terminal(site, columns):
    found = await site.doctor(columns=columns)

    assert max(map(len, found.text.splitlines())) <= columns


async def test_every_check_of_the_transcript_in_the_docs_is_one_that_is_made(site):
    page = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    transcript = page.split("## Before go-live: deployr doctor")[1].split("```")[3]
    shown = re.findall(r"^[✓!✗·] (\S+(?: \S+)*)  ", transcript, re.MULTILINE)
    found = await site.doctor()

    assert len(shown) > 15
    made = {re.sub(r" (anemia, )?hematocrit$", "", check) for check in found.states}
    assert {re.sub(r" hematocrit$", "", check) for check in shown} <= made | {"search vitals"}

"""The two worked examples end to end: asked, fetched, read, scored, stored, replayed; and nothing of them is seen."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from deployr_core.bundle import MANIFEST_FILE
from deployr_core.documents import column_names
from deployr_core.packet import Abstained, Failed, Rejected, Scored
from deployr_serve.adapters.fhir_documents import FhirDocuments
from deployr_serve.core.explain import reasons_of
from deployr_serve.core.facts_kept import facts_of
from deployr_serve.core.replay import Verdict, replay, replay_facts
from mock_emr.faults import Rule
from tests.document_parts import CHEST, NOTE, example_bundle, made_picture
from tests.faults.test_no_phi_leaks import leaks, logs  # noqa: F401 the second is a fixture

CANARIES = {
    "word of the note": "CanaryWord",
    "name in the note": "CanaryKowalski",
    "document id": "CanaryDocument7",
    "patient id": "CanaryPatient7",
}
BINARY = "CanaryBinary7"
PATIENT = CANARIES["patient id"]
WORDS = f"Pneumonia with fever of Mrs {CANARIES['name in the note']}, {CANARIES['word of the note']}: pneumonia."
NOTES, FILMS = "pneumonia-notes", "pneumonia-films"
POLICY = "schema_version: 1\nmodel: {}\nmode: live\nthreshold: 0.5\nkeep_facts_days: 10000\n"
KEYS = "2026:" + "A" * 43 + "="


@pytest.fixture(scope="module")
def examples(bundle_files):
    return {
        NOTES: example_bundle(bundle_files, kind="notes", model_id=NOTES),
        FILMS: example_bundle(bundle_files, kind="pictures", model_id=FILMS, max_bytes=50_000),
    }


def document(doc_id, code, attachment, *, patient_id=PATIENT, date="2015-01-06T18:00:00Z", **changes):
    return {
        "resourceType": "DocumentReference",
        "id": doc_id,
        "status": "current",
        "type": {"coding": [{"system": code.system, "code": code.value}]},
        "subject": {"reference": f"Patient/{patient_id}"},
        "date": date,
        "content": [{"attachment": attachment}],
        **changes,
    }


def binary(binary_id, content, content_type, *, patient_id=PATIENT):
    return {
        "resourceType": "Binary",
        "id": binary_id,
        "contentType": content_type,
        "securityContext": {"reference": f"Patient/{patient_id}"},
        "data": base64.b64encode(content).decode(),
    }


def inline(content, content_type):
    digest = hashlib.sha1(content, usedforsecurity=False).digest()
    return {
        "contentType": content_type,
        "data": base64.b64encode(content).decode(),
        "size": len(content),
        "hash": base64.b64encode(digest).decode(),
    }


@pytest.fixture
async def emr(emr_of, chart_of):
    """Give an EMR: the first patient's latest note is a Binary of HTML, their film is inline; another's note is old."""
    film = made_picture(np.random.default_rng(3), ill=True)
    html = f"<html><body><h1>Admission</h1><p>{WORDS}</p></body></html>".encode()
    in_binary = {"contentType": "text/html", "url": f"Binary/{BINARY}", "size": len(html)}
    return await emr_of(
        *chart_of(PATIENT, "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        *chart_of("p2", "e2", "o2", "422", "lab2", value=41.0, birth="1960"),
        document(CANARIES["document id"], NOTE, in_binary),
        document("earlier", NOTE, inline(b"Fracture, plaster.", "text/plain"), date="2015-01-06T17:00:00Z"),
        document("later", NOTE, inline(b"Fracture, plaster.", "text/plain"), date="2015-01-06T20:55:00Z"),
        binary(BINARY, html, "text/html"),
        document("film", CHEST, inline(film, "image/png")),
        document("old", NOTE, inline(b"Pneumonia.", "text/plain"), patient_id="p2", date="2014-12-01T10:00:00Z"),
        document("scan", CHEST, inline(b"%PDF-1.7", "application/pdf"), patient_id="p2"),
    )


@pytest.fixture
def app(emr, app_of, bundles_folder, examples, tmp_path):
    for name, example in examples.items():
        folder = bundles_folder / name
        folder.mkdir()
        for file, content in {**example.parts, MANIFEST_FILE: example.manifest.to_json()}.items():
            (folder / file).write_bytes(content)
    (tmp_path / "deployments").mkdir()
    for name in examples:
        (tmp_path / "deployments" / f"{name}.yaml").write_text(POLICY.format(name))
    return app_of(
        emr.url,
        DEPLOYR_DEPLOYMENTS=str(tmp_path / "deployments"),
        DEPLOYR_FACTS_VAULT=f"sqlite:{tmp_path / 'facts.sqlite'}",
        DEPLOYR_FACTS_KEYS=KEYS,
        DEPLOYR_AUDIT=f"folder:{tmp_path / 'audit'}",
    )


async def asked(app, model, **fields):
    """Give the answer's status and body, and the packet."""
    response = await app.infer(model=model, **{"patientId": PATIENT, **fields})
    [packet] = await app.store.packets(model_id=model, after=None, limit=10)
    return response.status_code, json.loads(response.get_body()), packet


async def replayed(app, packet):
    """Score it again from its own columns, and from the facts that were kept."""
    bundle, services = app.application.services.models.bundle(packet.model.model_id), app.application.services
    kept = await services.vault.read(packet.packet_id, packet.facts_sha256, now=services.clock.now())
    return (
        replay(packet, bundle, installed={}, policy=None),
        replay_facts(packet, bundle, facts_of(kept), installed={}),
    )


# -- the worked examples


async def test_the_latest_note_is_fetched_read_and_scored_and_replays_to_the_bit(app, examples):
    status, body, packet = await asked(app, NOTES)
    outcome = packet.outcome
    assert (status, body["status"]) == (200, "scored")
    assert isinstance(outcome, Scored)
    bundle = app.application.services.models.bundle(NOTES)
    names = column_names(bundle.spec, bundle.documents)
    held = {names[place] for place in outcome.vector.indices}
    # What the note says of this vocabulary, and no word more; the features are there as well.
    terms = {name.rpartition("/")[2] for name in held if "/term/" in name}
    assert terms == {"pneumonia", "fever"} | ({"admission", "with", "of"} & set(bundle.documents.groups[0].terms))
    assert "labs/4544-3/count" in held
    # The estimator says the same of those columns.
    row = np.zeros((1, outcome.vector.size))
    row[0, list(outcome.vector.indices)] = outcome.vector.values
    assert outcome.score == pytest.approx(examples[NOTES].estimator.predict_proba(row)[0, 1], abs=1e-12)
    assert outcome.score > 0.5
    [seen] = outcome.documents
    assert (seen.group, seen.content_type) == ("admission_note", "text/html")
    assert seen.known_at.isoformat() == "2015-01-06T18:00:00+00:00"
    assert [each.resource for each in packet.fetches if each.name == "admission_note"] == [
        "DocumentReference",
        "Binary",
    ]
    told = [each.text for each in reasons_of(packet, app.application.services.models)]
    assert "Admission note: the word pneumonia (raises)" in told
    by_columns, by_facts = await replayed(app, packet)
    assert (by_columns.verdict, by_facts.verdict) == (Verdict.SAME, Verdict.SAME)
    assert by_facts.beside[-1] == "documents are not kept: their columns are the packet's own"


async def test_the_picture_is_fetched_unpacked_and_scored_and_replays_to_the_bit(app, examples):
    status, body, packet = await asked(app, FILMS)
    outcome = packet.outcome
    assert (status, body["status"]) == (200, "scored")
    row = np.zeros((1, outcome.vector.size))
    row[0, list(outcome.vector.indices)] = outcome.vector.values
    assert outcome.score == pytest.approx(examples[FILMS].estimator.predict_proba(row)[0, 1], abs=1e-12)
    assert outcome.score > 0.5
    assert "Chest film: picture" in {each.concept for each in outcome.contributions}
    assert [each.content_type for each in outcome.documents] == ["image/png"]
    assert [each.verdict for each in await replayed(app, packet)] == [Verdict.SAME, Verdict.SAME]


# -- without a document


@pytest.mark.parametrize(
    ("model", "reason", "coverage"),
    [
        # The only note is older than the look-back of 7 days.
        (NOTES, "no-document", {"admission_note.documents": 0}),
        (FILMS, "document-unreadable", {"chest_film.documents": 0, "chest_film.other_type": 1}),
    ],
)
async def test_none_one_too_old_and_one_that_cannot_be_read_are_told_apart_and_not_scored(app, model, reason, coverage):
    status, body, packet = await asked(app, model, patientId="p2", encounterId="e2", orderId="o2")
    assert (status, body["status"]) == (200, "abstained")
    assert isinstance(packet.outcome, Abstained)
    assert packet.outcome.reason == reason
    assert {
        name: count for name, count in packet.outcome.coverage.items() if "note" in name or "film" in name
    } == coverage
    assert [each.verdict for each in await replayed(app, packet)] == [Verdict.UNKNOWN, Verdict.SAME]


# -- faults


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule(route="Binary", status=500), "emr-unreachable"),
        (Rule(route="Binary", status=403), "emr-refused"),
        (Rule(route="Binary", body="truncated"), "emr-bad-response"),
        (Rule(route="DocumentReference", body="html"), "emr-bad-response"),
        (Rule(route="DocumentReference", body="restricted"), "restricted"),
        (Rule(route="DocumentReference", body="foreign-subject"), "wrong-patient"),
    ],
)
async def test_whatever_happens_to_documents_there_is_an_answer_and_a_packet_that_says_why(app, emr, rule, reason):
    emr.parts.faults.put((rule,))
    status, body, packet = await asked(app, NOTES)
    assert status in {200, 422, 500, 503}
    assert isinstance(packet.outcome, Failed | Abstained | Rejected)
    assert packet.outcome.reason == reason
    assert body


async def test_models_without_documents_do_not_ask_for_any(app, emr):
    await app.infer(patientId=PATIENT)
    assert not [each for each in emr.addresses if "DocumentReference" in each or "Binary" in each]


# -- nothing of them is seen


async def test_no_word_name_or_id_of_a_document_is_seen_anywhere(app, emr, logs, capfd, tmp_path):  # noqa: F811
    answers = []
    for rules in ((), (Rule(route="Binary", body="truncated"),), (Rule(route="Binary", status=404),)):
        emr.parts.faults.put(rules)
        for model in (NOTES, FILMS):
            response = await app.infer(model=model, patientId=PATIENT, idempotencyKey=f"{model}-{len(answers)}")
            answers.append(f"{response.headers} {response.get_body().decode()}")
    packets = [
        packet for model in (NOTES, FILMS) for packet in await app.store.packets(model_id=model, after=None, limit=10)
    ]
    assert [type(packet.outcome) for packet in packets].count(Scored) == 4
    out, err = capfd.readouterr()
    surfaces = {
        "logs": "\n".join(logs),
        "standard output": out,
        "standard error": err,
        "answers": "\n".join(answers),
        "addresses": "\n".join(emr.addresses),
        "audit": "".join(file.read_text() for file in (tmp_path / "audit").glob("*.ndjson")),
        "representations": repr((packets, [packet.outcome for packet in packets])),
        "file names": "\n".join(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")),
    }
    assert leaks(CANARIES, surfaces) == []
    # A Binary cannot be searched for, only read by its address, which is on the wire to the EMR and nowhere else.
    surfaces.pop("addresses")
    assert leaks({"binary id": BINARY}, surfaces) == []
    # The packets themselves know the patient, and nothing of the document.
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        bodies = " ".join(str(bytes(body)) for (body,) in db.execute("SELECT body FROM packets"))
    assert PATIENT in bodies
    kept_out = {name: canary for name, canary in CANARIES.items() if name != "patient id"} | {"binary id": BINARY}
    assert leaks(kept_out, {"packets": bodies}) == []


async def test_a_planted_leak_of_a_document_is_found(app, monkeypatch, logs):  # noqa: F811
    read = FhirDocuments._document

    async def chatty(self, dated, group, asking):
        logging.getLogger("deployr_serve.adapters.fhir_documents").debug("reading %s", dated.reference.id)
        found = await read(self, dated, group, asking)
        logging.getLogger("deployr_serve.adapters.fhir_documents").debug("read %s", found.content)
        return found

    monkeypatch.setattr(FhirDocuments, "_document", chatty)
    await app.infer(model=NOTES, patientId=PATIENT)
    assert leaks(CANARIES, {"logs": "\n".join(logs)}) == [
        "word of the note in logs",
        "name in the note in logs",
        "document id in logs",
    ]

"""A model's documents beside its facts: asked for at the same time, only where they are taken, and let go of after."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from deployr_core.bundle import open_bundle
from deployr_core.document_columns import Document, DocumentShortfall, Unusable
from deployr_core.packet import Abstained, Failed, FetchRecord, Mode, Scored
from deployr_serve.adapters.fhir_documents import FhirDocuments
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.models import why_not_taken
from deployr_serve.core.documents import FetchedDocuments
from deployr_serve.core.errors import EmrUnreachable, WrongPatient
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Handed
from deployr_serve.core.shadow import Shadows
from tests.document_parts import example_bundle

NOTE = b"Pneumonia, fever, cough."


@pytest.fixture(scope="module")
def of_notes(bundle_files):
    example = example_bundle(bundle_files, kind="notes", model_id="hematocrit")
    return open_bundle(example.manifest.to_json(), example.parts)


def searched(resource="DocumentReference"):
    return FetchRecord(resource=resource, resources=1, pages=1, milliseconds=1.0, name="admission_note")


class FakeDocuments:
    """Gives what it was made with; an exception is raised."""

    def __init__(self, *came, dropped=None):
        self._came = came
        self._dropped = dropped or {}
        self.asked = []

    async def fetch(self, patient_id, documents, *, as_of, budget, token):
        self.asked.append((patient_id, as_of, token))
        await asyncio.sleep(0)
        if isinstance(self._came[0] if self._came else None, BaseException):
            raise self._came[0]
        return FetchedDocuments(
            came={"admission_note": list(self._came)}, fetches=(searched(),), dropped=dict(self._dropped)
        )


def note(now, content=NOTE):
    return Document(content=content, content_type="text/plain", known_at=now, document_hash="d", content_hash="c")


@pytest.fixture
def ask(services_of, models_of, request_of, of_notes):
    async def run(documents, *, model=of_notes, request=None, **changes):
        services = replace(services_of(models=models_of(hematocrit=model), **changes), documents=documents)
        return (await infer(request or request_of(), services)).packet

    return run


async def test_facts_and_documents_make_one_vector_and_one_packet(ask, of_notes, now):
    documents = FakeDocuments(note(now), dropped={"admission_note.not_final": 2, "labs.status_not_final": 1})
    packet = await ask(documents)
    outcome = packet.outcome
    assert isinstance(outcome, Scored)
    assert outcome.vector.size == of_notes.manifest.n_features
    assert outcome.coverage["admission_note.documents"] == 1
    assert outcome.coverage["admission_note.not_final"] == 2
    assert outcome.coverage["labs.results"] == 1
    assert outcome.coverage["labs.status_not_final"] == 3  # 2 among the facts
    assert [each.document_hash for each in outcome.documents] == ["d"]
    assert packet.fetches == (searched(),)
    assert documents.asked == [("p1", now, None)]


async def test_a_lent_token_reads_the_documents_too(ask, now, request_of):
    documents = FakeDocuments(note(now))
    await ask(documents, request=replace(request_of(), handed=Handed(token="lent")))
    assert documents.asked == [("p1", now, "lent")]


async def test_a_model_without_documents_asks_for_none(ask, bundle, now):
    documents = FakeDocuments(note(now))
    packet = await ask(documents, model=bundle)
    assert (documents.asked, packet.outcome.documents) == ([], ())


@pytest.mark.parametrize(
    ("came", "reason"), [((), "no-document"), ((Unusable(why="other_type"),), "document-unreadable")]
)
async def test_without_a_usable_document_it_abstains_and_says_why(ask, came, reason):
    packet = await ask(FakeDocuments(*came))
    assert isinstance(packet.outcome, Abstained)
    assert (packet.outcome.reason, packet.outcome.coverage["admission_note.documents"]) == (reason, 0)


@pytest.mark.parametrize(("age", "reason"), [("300", "no-document"), ("3600", "stale")])
async def test_an_answer_about_documents_that_a_cache_held_for_too_long_is_stale(
    ask, client_of, transport_of, page_of, age, reason
):
    body = msgspec.json.encode(page_of())
    held = Response(status=200, content_type="application/fhir+json", body=body, headers={"age": age})
    packet = await ask(FhirDocuments(client_of(transport_of(held)), id_key=b"0123456789abcdef"))
    assert isinstance(packet.outcome, Abstained)
    assert packet.outcome.reason == reason


async def test_facts_that_a_cache_held_for_too_long_stay_stale_beside_documents_of_now(
    ask, now, source_of, fetched_of, lab_of
):
    source = source_of(replace(fetched_of(lab_of()), oldest_answer_s=3600.0))
    assert (await ask(FakeDocuments(note(now)), source=source)).outcome.reason == "stale"


async def test_a_failure_of_either_fetch_is_the_failure_of_the_request(ask, now, source_of):
    packet = await ask(FakeDocuments(EmrUnreachable("expected an answer")))
    assert packet.outcome == Failed(reason="emr-unreachable", retryable=True)
    packet = await ask(FakeDocuments(WrongPatient("expected this patient's")))
    assert packet.outcome.reason == "wrong-patient"
    packet = await ask(FakeDocuments(note(now)), source=source_of(EmrUnreachable("expected an answer")))
    assert packet.outcome == Failed(reason="emr-unreachable", retryable=True)


async def test_where_there_is_no_way_to_documents_the_model_is_not_available(ask):
    assert (await ask(None)).outcome == Failed(reason="model-unavailable", retryable=False)


async def test_who_follows_is_not_handed_the_documents(ask, services_of, models_of, request_of, of_notes, now):
    class Noting:
        models = models_of()

        async def follow(self, request, packet, fetched, *, champion):
            self.fetched = fetched

    shadows = Noting()
    services = services_of(models=models_of(hematocrit=of_notes))
    await infer(request_of(), replace(services, documents=FakeDocuments(note(now)), shadows=shadows))
    assert shadows.fetched.documents is None


async def test_a_shadow_that_takes_documents_reads_its_own(services_of, models_of, request_of, of_notes, now):
    policy = Policy(schema_version=1, model="hematocrit", mode=Mode.SILENT, shadows=("run-1",))
    services = replace(services_of(policies=(policy,)), documents=FakeDocuments(note(now)))
    shadows = Shadows(services, models=models_of(run_1=of_notes), needs=lambda spec: (spec,))
    champion = (await infer(request_of(), replace(services, shadows=shadows))).packet
    await shadows.settled()
    [packet] = await services.store.packets(model_id="run-1", after=None, limit=10)
    assert (packet.shadow_of, champion.outcome.documents) == (champion.packet_id, ())
    assert [each.document_hash for each in packet.outcome.documents] == ["d"]


def test_a_version_that_begins_or_ceases_to_take_documents_is_not_taken_while_the_app_runs(bundle, of_notes):
    with_them = (of_notes.manifest, of_notes.spec)
    without = (msgspec.structs.replace(bundle.manifest, score_name=of_notes.manifest.score_name), bundle.spec)
    assert why_not_taken(with_them, with_them, needs=lambda _: 0) is None
    for before, after in ((with_them, without), (without, with_them)):
        assert "start the app again" in why_not_taken(before, after, needs=lambda _: 0)


def test_every_reason_for_want_of_a_document_is_in_the_glossary():
    glossary = (Path(__file__).parents[3] / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert all(f"| `{each}` |" in glossary for each in DocumentShortfall)

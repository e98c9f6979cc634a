"""Which documents are asked for, which of them are believed to be this patient's, and where nothing is fetched from."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.document_columns import Unusable, example_of
from deployr_core.documents import Documents, NoteTerms
from deployr_core.keyed_hash import keyed_hash
from deployr_serve.adapters.fhir_documents import FhirDocuments
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.scopes import parse_scopes
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrTooLarge,
    EmrUnreachable,
    InsufficientScope,
    ModelUnavailable,
    Restricted,
    WrongPatient,
)

BASE = "https://emr.example/api/FHIR/R4"
KEY = b"0123456789abcdef"
NOTE, RADIOLOGY = Code(LOINC, "34117-2"), Code("http://hospital.example/kinds", "radiology")
TEXT = b"No cough."


def notes(**changes):
    given = {"name": "notes", "types": (NOTE,), "lookback_days": 7, "terms": ("cough",)}
    return NoteTerms(**{**given, **changes})


def declared(*groups):
    """Give a declaration of groups of notes; what the examples say does not matter here."""
    examples = tuple(example_of(group, "text/plain", b"cough") for group in groups)
    return Documents(schema_version=1, groups=groups, examples=examples)


def sha1(content):
    """Give what an attachment announces its bytes by."""
    return hashlib.sha1(content, usedforsecurity=False).digest()


def concept(code):
    return {"coding": [{"system": code.system, "code": code.value}]}


def attachment(content=TEXT, content_type="text/plain", **changes):
    return {"contentType": content_type, "data": base64.b64encode(content).decode(), **changes}


def elsewhere(url, content_type="text/plain", **changes):
    return {"contentType": content_type, "url": url, **changes}


def reference(*attachments, doc_id="d1", patient_id="p1", date="2015-01-06T18:00:00Z", **changes):
    return {
        "resourceType": "DocumentReference",
        "id": doc_id,
        "status": "current",
        "type": concept(NOTE),
        "subject": {"reference": f"Patient/{patient_id}"},
        "date": date,
        "content": [{"attachment": each} for each in attachments or (attachment(),)],
        **changes,
    }


def binary(content=TEXT, content_type="text/plain", **changes):
    held = {"contentType": content_type, "data": base64.b64encode(content).decode(), **changes}
    return {"resourceType": "Binary", "id": "b1", **held}


@pytest.fixture
def emr_of(page_of, transport_of):
    """Give a function that makes an EMR of these references; ``answer`` answers everything else, or is raised."""

    def make(*references, answer=None):
        def told(request):
            if request.url.endswith("/_search"):
                return page_of(*references)
            said = answer(request) if callable(answer) else answer
            return json.dumps(said).encode() if isinstance(said, dict) else said

        return transport_of(told)

    return make


@pytest.fixture
def fetch(client_of, now):
    async def run(emr, *groups, token=None, credentials=None, as_of=now, **client):
        source = FhirDocuments(client_of(emr, **client), id_key=KEY, credentials=credentials)
        return await source.fetch("p1", declared(*(groups or (notes(),))), as_of=as_of, budget=None, token=token)

    return run


async def came_of(fetch, emr, group=None):
    fetched = await fetch(emr, *(() if group is None else (group,)))
    return fetched.came["notes"], fetched


async def test_what_is_asked_follows_from_the_declaration_and_no_id_of_the_patient_stands_in_an_address(fetch, emr_of):
    emr = emr_of(reference())
    await fetch(emr, notes(categories=(RADIOLOGY,)))
    (request,) = emr.requests
    assert request.url == f"{BASE}/DocumentReference/_search"
    assert dict(request.form) == {
        "patient": "p1",
        "status": "current",
        "type": "http://loinc.org|34117-2",
        "category": "http://hospital.example/kinds|radiology",
        "date": "ge2014-12-30T20:55:00Z",  # 7 days
        "_count": request.form[-1][1],
    }


async def test_what_is_inline_is_taken_as_it_is_and_told_of_by_hashes_alone(fetch, emr_of):
    (found,), fetched = await came_of(fetch, emr_of(reference()))
    assert (found.content, found.content_type, found.known_at.isoformat()) == (
        TEXT, "text/plain", "2015-01-06T18:00:00+00:00",
    )  # fmt: skip
    assert found.document_hash == keyed_hash(KEY, "document", "d1")[:32]
    assert found.content_hash == keyed_hash(KEY, "document-content", hashlib.sha256(TEXT).hexdigest())[:32]
    assert "cough" not in repr((found, fetched))
    assert [(each.resource, each.name, each.resources) for each in fetched.fetches] == [
        ("DocumentReference", "notes", 1)
    ]


async def test_the_answer_that_a_cache_held_longest_says_how_old_they_are(fetch, page_of, transport_of):
    body = json.dumps(page_of()).encode()
    held = [
        Response(status=200, content_type="application/fhir+json", body=body, headers={"age": age})
        for age in ("3600", "7")
    ]
    fetched = await fetch(transport_of(*held), notes(), notes(name="others"))
    assert fetched.oldest_answer_s == 3600.0


async def test_what_is_in_a_binary_is_read_from_there_as_a_resource(fetch, emr_of):
    emr = emr_of(reference(elsewhere("Binary/b1")), answer=binary(TEXT, "text/plain;charset=utf-8"))
    (found,), fetched = await came_of(fetch, emr)
    assert (found.content, found.charset) == (TEXT, "utf-8")
    request = emr.requests[-1]
    assert (request.method, request.url) == ("GET", f"{BASE}/Binary/b1")
    assert request.most_bytes == 1_000_000 * 4 // 3 + 64_000
    assert [each.resource for each in fetched.fetches] == ["DocumentReference", "Binary"]


async def test_what_is_in_a_binary_may_come_as_its_bytes_too(fetch, emr_of):
    html = b"<p>caf\xe9</p>"

    def raw(_):
        headers = {"content-type": "text/html; charset=ISO-8859-1", "x-security-context": "Patient/p1"}
        return Response(status=200, content_type="text/html", body=html, headers=headers)

    emr = emr_of(reference(elsewhere(f"{BASE}/Binary/b1/_history/2", "text/html")), answer=raw)
    (found,), _ = await came_of(fetch, emr)
    assert (found.content, found.content_type, found.charset) == (html, "text/html", "ISO-8859-1")
    assert emr.requests[-1].url == f"{BASE}/Binary/b1/_history/2"


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/api/FHIR/R4/Binary/b1",
        "https://emr.example.attacker.example/api/FHIR/R4/Binary/b1",
        "//elsewhere.example/Binary/b1",
        "http://emr.example/api/FHIR/R4/Binary/b1",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "Binary/b1?x=1",
        "Binary/../Patient/p2",
        "Binary/..",
        "Binary/b1/_history/..",
        "Binary/b1/_history/2/x",
        "Binary/b1/../../Patient",
        "../../../Binary/b1",
        "Patient/p1",
        "Binary/b1#x",
        "Binary/%2e%2e",
        "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
        "",
    ],
)
async def test_nothing_is_fetched_but_from_the_servers_own_binary(fetch, emr_of, url):
    emr = emr_of(reference(elsewhere(url)))
    (found,), _ = await came_of(fetch, emr)
    assert found == Unusable(why="elsewhere")
    assert all(request.url.endswith("/_search") for request in emr.requests)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (attachment(content_type="application/pdf"), "other_type"),
        (attachment(content_type="image/png"), "other_type"),
        (attachment(size=8), "size_differs"),
        (attachment(size=10_001), "too_large"),
        (attachment(b"x" * 10_001), "too_large"),
        (attachment(hash=base64.b64encode(sha1(b"other")).decode()), "hash_differs"),
        (attachment(hash="no base64!"), "not_base64"),
        (attachment(data="no base64!"), "not_base64"),
        ({"contentType": "text/plain"}, "no_content"),
    ],
)
async def test_what_is_not_as_announced_or_not_as_declared_is_not_used(fetch, emr_of, held, why):
    (found,), fetched = await came_of(fetch, emr_of(reference(held)), notes(max_bytes=10_000))
    assert found == Unusable(why=why)
    assert len(fetched.fetches) == 1


async def test_what_is_as_announced_is_used(fetch, emr_of):
    announced = {"size": len(TEXT), "hash": base64.b64encode(sha1(TEXT)).decode()}
    (found,), _ = await came_of(fetch, emr_of(reference(attachment(**announced))))
    assert found.content == TEXT


async def test_of_several_attachments_the_first_of_a_declared_type_is_read(fetch, emr_of):
    several = (attachment(b"%PDF", "application/pdf"), attachment(b"<p>a</p>", "text/html"), attachment(b"b"))
    (found,), _ = await came_of(fetch, emr_of(reference(*several)))
    assert (found.content, found.content_type) == (b"<p>a</p>", "text/html")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (binary(content_type="application/pdf"), "other_type"),
        (binary(data="no base64!"), "not_base64"),
        (EmrTooLarge("expected less"), "too_large"),
        (Response(status=404, content_type="text/html", body=b""), "missing"),
        (Response(status=410, content_type="text/html", body=b""), "missing"),
    ],
)
async def test_a_binary_that_is_not_there_or_not_as_declared_is_not_used(fetch, emr_of, answer, why):
    (found,), fetched = await came_of(fetch, emr_of(reference(elsewhere("Binary/b1")), answer=answer))
    assert found == Unusable(why=why)
    assert [each.resource for each in fetched.fetches] == ["DocumentReference", "Binary"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status=503, content_type="text/html", body=b""), EmrUnreachable),
        (Response(status=403, content_type="text/html", body=b""), EmrRefused),
        (b'{"resourceType": "Patient"}', EmrBadResponse),
        (b"not json", EmrBadResponse),
        (EmrUnreachable("expected an answer"), EmrUnreachable),
    ],
)
async def test_a_binary_that_nobody_can_tell_about_is_a_failure_and_not_a_missing_document(
    fetch, emr_of, answer, error
):
    with pytest.raises(error) as raised:
        await fetch(emr_of(reference(elsewhere("Binary/b1")), answer=answer))
    assert raised.value.fetches[0].resource == "DocumentReference"
    assert "b1" not in str(raised.value)


async def test_a_binary_behind_break_the_glass_is_withheld(fetch, emr_of):
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "suppressed"}]}
    answer = Response(status=403, content_type="application/fhir+json", body=json.dumps(outcome).encode())
    with pytest.raises(Restricted):
        await fetch(emr_of(reference(elsewhere("Binary/b1")), answer=answer))


@pytest.mark.parametrize("context", ["Patient/p2", f"{BASE}/Patient/p2", "DocumentReference/d2"])
async def test_a_binary_that_says_that_it_is_somebody_elses_ends_it(fetch, emr_of, context):
    answer = binary(securityContext={"reference": context})
    with pytest.raises(WrongPatient):
        await fetch(emr_of(reference(elsewhere("Binary/b1")), answer=answer))
    raw = Response(status=200, content_type="text/plain", body=TEXT, headers={"x-security-context": context})
    with pytest.raises(WrongPatient):
        await fetch(emr_of(reference(elsewhere("Binary/b1")), answer=raw))


@pytest.mark.parametrize("context", ["Patient/p1", "DocumentReference/d1", "Encounter/e7"])
async def test_a_binary_that_says_that_it_is_this_patients_is_read(fetch, emr_of, context):
    answer = binary(securityContext={"reference": context})
    (found,), _ = await came_of(fetch, emr_of(reference(elsewhere("Binary/b1")), answer=answer))
    assert found.content == TEXT


async def test_a_reference_about_somebody_else_ends_it_and_one_about_nobody_is_left_out(fetch, emr_of):
    with pytest.raises(WrongPatient):
        await fetch(emr_of(reference(), reference(doc_id="d2", patient_id="p2")))
    came, fetched = await came_of(fetch, emr_of(reference(subject=None)))
    assert (came, fetched.dropped) == ([], {"any.no_subject": 1})


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"status": "superseded"}, {"notes.not_final": 1}),
        ({"docStatus": "entered-in-error"}, {"notes.not_final": 1}),
        ({"docStatus": "preliminary"}, {"notes.not_final": 1}),
        ({"date": None}, {"notes.no_date": 1}),
        ({"type": concept(RADIOLOGY)}, {}),
        ({"type": None}, {}),
    ],
)
async def test_what_was_not_asked_for_or_is_not_final_is_no_candidate_whatever_a_server_finds(
    fetch, emr_of, changes, dropped
):
    changed = {name: value for name, value in reference(**changes).items() if value is not None}
    came, fetched = await came_of(fetch, emr_of(changed))
    assert (came, fetched.dropped) == ([], dropped)


async def test_docs_that_are_amended_count(fetch, emr_of):
    came, _ = await came_of(fetch, emr_of(reference(docStatus="amended")))
    assert len(came) == 1


async def test_only_what_was_known_strictly_before_the_instant_and_within_the_look_back_is_seen(fetch, emr_of, now):
    def at(instant, doc_id):
        return reference(attachment(doc_id.encode()), doc_id=doc_id, date=instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    week = timedelta(days=7)
    held = (
        at(now - timedelta(milliseconds=1), "just-before"),
        at(now, "at"),
        at(now + timedelta(hours=1), "after"),
        at(now - week, "first"),
        at(now - week - timedelta(seconds=1), "too-old"),
    )
    came, _ = await came_of(fetch, emr_of(*held), notes(most=5))
    assert [each.content for each in came] == [b"just-before", b"first"]


async def test_the_latest_are_taken_latest_first_and_of_one_instant_by_their_ids(fetch, emr_of):
    held = (
        reference(attachment(b"b"), doc_id="b", date="2015-01-06T10:00:00Z"),
        reference(attachment(b"a"), doc_id="a", date="2015-01-06T10:00:00Z"),
        reference(attachment(b"c"), doc_id="c", date="2015-01-05T10:00:00Z"),
    )
    came, _ = await came_of(fetch, emr_of(*held), notes(most=2))
    assert [each.content for each in came] == [b"b", b"a"]


async def test_groups_are_searched_apart(fetch, page_of, transport_of):
    def told(request):
        is_radiology = "radiology" in dict(request.form)["type"]
        return page_of(
            reference(attachment(b"b"), doc_id="d2", type=concept(RADIOLOGY)) if is_radiology else reference()
        )

    fetched = await fetch(transport_of(told), notes(), notes(name="reports", types=(RADIOLOGY,)))
    assert {name: [each.content for each in came] for name, came in fetched.came.items()} == {
        "notes": [TEXT],
        "reports": [b"b"],
    }


async def test_a_lent_token_reads_in_place_of_our_own_credentials(fetch, emr_of):
    emr = emr_of(reference(elsewhere("Binary/b1")), answer=binary())
    await fetch(emr, token="lent")
    assert {request.headers["Authorization"] for request in emr.requests} == {"Bearer lent"}


async def test_nothing_is_asked_where_less_is_granted_than_is_needed(fetch, emr_of):
    class Granting:
        def __init__(self, scope):
            self._scope = scope

        async def granted(self, *, budget=None):
            return parse_scopes(self._scope)

    emr = emr_of(reference())
    with pytest.raises(InsufficientScope, match="Binary"):
        await fetch(emr, credentials=Granting("system/DocumentReference.rs"))
    assert emr.requests == []
    await fetch(emr, credentials=Granting("system/DocumentReference.rs system/Binary.read"))


async def test_a_server_of_another_version_is_refused_before_it_is_asked(fetch, emr_of):
    emr = emr_of(reference())
    with pytest.raises(ModelUnavailable):
        await fetch(emr, fhir_version="STU3")
    assert emr.requests == []


async def test_a_reference_that_is_none_spoils_the_answer_and_is_not_repeated(fetch, emr_of):
    with pytest.raises(EmrBadResponse) as raised:
        await fetch(emr_of({**reference(), "content": "secret words"}))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None

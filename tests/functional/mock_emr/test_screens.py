"""The screens over HTTP: what they show, that nothing hostile becomes HTML, that orders are signed whatever happens."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import jwt
import msgspec
import pytest
from lxml import html
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mock_emr.hosting import listening
from tests.functional.mock_emr.conftest import Caller, Reply, Running

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
SUBJECT = {"reference": "Patient/p1"}
STAY = {"reference": "Encounter/e1"}
CARD = {
    "uuid": "c1",
    "summary": f"Repeat is likely normal {HOSTILE}",
    "indicator": "critical",
    "detail": f"Score **{HOSTILE}**\n\n- <script>alert(2)</script>",
    "source": {"label": HOSTILE},
    "suggestions": [
        {"uuid": "s1", "label": f"Take it back {HOSTILE}", "actions": [{"type": "delete", "resourceId": "x"}]}
    ],
    "overrideReasons": [{"code": "changed", "system": "urn:r", "display": HOSTILE}],
}
TWO_RULES = '[{"route": "Patient", "name": "a", "status": 500}, {"route": "*", "delay_ms": 5}]'
SCORES = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"


def result(number: int, value: float, flag: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"l{number}",
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "4544-3"}], "text": f"Hematocrit {HOSTILE}"},
        "subject": SUBJECT,
        "effectiveDateTime": f"2015-01-06T1{number}:00:00Z",
        "valueQuantity": {"value": value, "unit": "%"},
        "interpretation": [{"coding": [{"code": flag}]}],
        "referenceRange": [{"low": {"value": 35}, "high": {"value": 47}}],
    }


CHART: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"given": [HOSTILE], "family": "Lee"}],
        "gender": "female",
        "birthDate": "1950-03-04",
    },
    {"resourceType": "Patient", "id": "p2"},
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "in-progress",
        "identifier": [{"type": {"text": "CSN"}, "value": "42"}],
        "subject": SUBJECT,
        "period": {"start": "2015-01-06T09:00:00Z"},
        "location": [{"location": {"display": f"Ward {HOSTILE}"}}],
    },
    {
        "resourceType": "ServiceRequest",
        "id": "o1",
        "status": "completed",
        "intent": "order",
        "code": {"coding": [{"system": "http://loinc.org", "code": "58410-2"}], "text": f"CBC {HOSTILE}"},
        "subject": SUBJECT,
        "encounter": STAY,
        "authoredOn": "2015-01-06T09:30:00Z",
    },
    result(0, 30.5, "L"),
    result(1, 36.5, "N"),
]


@pytest.fixture
async def emr(running_over: Running) -> AsyncIterator[Caller]:
    """Give a caller of an EMR at noon with one patient in hospital, whose every word is hostile."""
    async with running_over(*CHART) as caller:
        yield caller


async def page(emr: Caller, path: str, *, status: int = 200) -> Any:
    """Read a page: it keeps every rule that holds for all of them, and is given as a tree."""
    reply = await emr.get(path)
    assert reply.status == status, reply.body
    return checked(reply)


def checked(reply: Reply) -> Any:
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["cache-control"] == "no-store"
    text = reply.body.decode()
    assert "<img" not in text
    assert "<script>" not in text
    tree = html.fromstring(text)
    assert tree.get("lang") == "en"
    assert len(tree.xpath("//main")) == len(tree.xpath("//h1 | //dialog//h2[@id='advisory-title']")[:1]) == 1
    for held in tree.xpath("//@src | //link/@href"):
        assert held.startswith(("/screens/", "data:,")), held
    # No style, script or handler of its own stands in a page: the policy would stop it.
    assert not tree.xpath("//@style | //style | //@*[starts-with(name(), 'on')] | //script[not(@src)]")
    ids = tree.xpath("//@id")
    assert len(ids) == len(set(ids))
    for field in tree.xpath("//input[not(@type='hidden')] | //select | //textarea"):
        assert field.xpath("ancestor::label"), html.tostring(field)
    for name in ("aria-labelledby", "aria-describedby", "aria-details", "popovertarget"):
        for text in tree.xpath(f"//@{name}"):
            assert set(text.split()) <= set(ids)
    return tree


def words(tree: Any, path: str = "//main") -> str:
    return re.sub(r"\s+", " ", " ".join(tree.xpath(f"{path}//text()"))).strip()


async def send(emr: Caller, path: str, **form: str) -> Reply:
    """Send a form as a browser does, and follow nothing."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": emr.url}
    return await emr.call("POST", path, data=urlencode(form), headers=headers, allow_redirects=False)


Answer = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def bridge(emr: Caller, answer: Answer, **settings: Any) -> AsyncIterator[list[tuple[str, Any]]]:
    """Run a bridge that answers so, and tell the EMR where; gives what it was asked."""
    asked: list[tuple[str, Any]] = []

    async def take(request: Request) -> Response:
        asked.append((request.url.path, await request.body()))
        return await answer(request)

    async with listening(lambda _: Starlette(routes=[Route("/{rest:path}", take, methods=["POST"])])) as address:
        sent = {"address": address, "services": ["cbc-order-sign"], **settings}
        reply = await emr.call("PUT", "/admin/bridge", data=json.dumps(sent))
        assert reply.status == 200, reply.body
        yield asked


async def advising(request: Request) -> Response:
    return JSONResponse({} if request.url.path.endswith("feedback") else {"cards": [CARD]})


async def sign(emr: Caller) -> Reply:
    reply = await send(emr, "/patients/p1/order", test="http://loinc.org|58410-2", stay="e1")
    assert reply.status == 303, reply.body
    return reply


async def orders(emr: Caller) -> list[str]:
    """Give the status of each order that was made by order entry."""
    writes = (await emr.get("/admin/writes")).json()
    return [one["status"] for one in writes["resources"] if one["resourceType"] == "ServiceRequest"]


async def test_the_start_leads_to_the_list_of_those_in_hospital(emr: Caller) -> None:
    assert (await emr.get("/", allow_redirects=False)).headers["location"] == "/patients"
    listed = await page(emr, "/patients")
    [row] = listed.xpath("//table[contains(@class, 'patients')]/tbody/tr")
    assert f"{HOSTILE} Lee" in row.text_content()
    assert "64, female" in row.text_content()
    everybody = await page(emr, "/patients?who=all")
    assert len(everybody.xpath("//table/tbody/tr")) == 2
    assert "Nobody is called that" in words(await page(emr, "/patients?words=zzz"))
    assert len((await page(emr, "/patients?words=LEE&page=9")).xpath("//table/tbody/tr")) == 1


async def test_a_score_is_shown_with_its_trend_its_features_values_and_contributions(emr: Caller) -> None:
    for job, score in (("j1", "25"), ("j2", "37")):
        body = {
            "EntityId": [{"ID": "42", "Type": "CSN"}],
            "ScoreDisplayed": "HCT",
            "Outputs": {
                "1": {"Scores": {"HCT": {"Values": [score]}}, "Features": {HOSTILE: {"Contributions": ["-0.5"]}}}
            },
            "Raw": {HOSTILE: {"Values": ["9.8", HOSTILE]}},
        }
        path = f"{SCORES}?modelId=SHC.HCT_ABNORMAL@1&jobId={job}"
        assert (await emr.call("POST", path, data=msgspec.json.encode(body))).status == 200
    for path in ("/patients", "/patients/p1"):
        shown = await page(emr, path)
        [button] = shown.xpath("//button[@popovertarget]")
        assert re.sub(r"\s+", " ", button.text_content()).strip() == "Hct abnormal: 37 ▲"
        popover = words(shown, f"//*[@id='{button.get('popovertarget')}']")
        assert "Up by 12 since the score before. Written 2015-01-06 12:00." in popover
        assert f"{HOSTILE} 9.8, {HOSTILE} −0.50" in popover
        [label] = shown.xpath("//*[@popover]//svg[@role='img']/@aria-label")
        assert label == "Trend. 2 scores, from 25 to 37"


async def test_the_chart_shows_what_there_is_now_and_no_more(emr: Caller) -> None:
    chart = await page(emr, "/patients/p1?span=everything")
    assert f"Hematocrit {HOSTILE}" in words(chart)
    # The second result is of 11:00; both are there by noon.
    assert "36.5 %" in words(chart)
    assert len(chart.xpath("//polyline")) == 1
    await send(emr, "/operator/clock", do="set", now="2015-01-06T10:30:00")
    earlier = words(await page(emr, "/patients/p1"))
    assert "30.5 %" in earlier
    assert "36.5" not in earlier
    await page(emr, "/patients/nobody", status=404)


async def test_what_the_bridge_wrote_stands_in_chart_and_in_basket(emr: Caller) -> None:
    risk = {
        "resourceType": "RiskAssessment",
        "status": "final",
        "subject": SUBJECT,
        "prediction": [{"outcome": {"text": f"Abnormal {HOSTILE}"}, "probabilityDecimal": 0.4}],
    }
    headers = {"Content-Type": "application/fhir+json"}
    reply = await emr.call("POST", "/api/FHIR/R4/RiskAssessment", data=json.dumps(risk), headers=headers)
    assert reply.status == 201
    message = {
        "PatientID": "p1",
        "PatientIDType": "FHIR",
        "Recipients": [{"ID": HOSTILE, "IDType": "External", "IsPool": True}],
        "MessageText": ["Consider", HOSTILE],
        "SenderID": "x",
        "MessageType": "Staff Message",
    }
    reply = await emr.call("POST", "/api/epic/2014/Common/Utility/SENDMESSAGE/Message", data=json.dumps(message))
    assert reply.status == 200, reply.body
    assert f"Abnormal {HOSTILE}: 40%" in words(await page(emr, "/patients/p1"))
    assert HOSTILE in words(await page(emr, "/in-basket"), "//article")


async def test_an_order_without_a_bridge_is_signed_and_there_for_whoever_reads(emr: Caller) -> None:
    assert (await sign(emr)).headers["location"] == "/patients/p1?said=signed"
    assert "The order is signed." in words(await page(emr, "/patients/p1?said=signed"))
    found = await emr.fhir("ServiceRequest?patient=p1&status=active")
    assert [entry["resource"]["encounter"] for entry in found["entry"]] == [STAY]


async def test_an_advisory_stands_in_the_way_until_a_reason_is_given_and_the_reason_is_reported(emr: Caller) -> None:
    async with bridge(emr, advising) as asked:
        address = (await sign(emr)).headers["location"]
        assert await orders(emr) == []
        advisory = await page(emr, address)
        assert HOSTILE in words(advisory, "//dialog//h3")
        assert "<script>alert(2)</script>" in words(advisory, "//dialog")
        without = await send(emr, address, sign="1")
        assert without.status == 422
        assert "Choose a reason" in words(checked(without))
        signed = await send(emr, address, sign="1", **{"reason-1": "changed", "comment": "as discussed"})
        assert signed.headers["location"] == "/patients/p1?said=signed"
    assert await orders(emr) == ["active"]
    [(path, call), (told_to, told)] = asked
    assert (path, told_to) == ("/cds-services/cbc-order-sign", "/cds-services/cbc-order-sign/feedback")
    [entry] = json.loads(call)["context"]["draftOrders"]["entry"]
    assert entry["resource"]["status"] == "draft"
    [outcome] = json.loads(told)["feedback"]
    assert (outcome["card"], outcome["outcome"]) == ("c1", "overridden")
    assert outcome["overrideReason"] == {
        "reason": {"code": "changed", "system": "urn:r"},
        "userComment": "as discussed",
    }
    # Answered once, it cannot be answered again.
    await page(emr, address, status=404)
    assert (await send(emr, address, sign="1", **{"reason-1": "changed"})).status == 404
    wire = words(await page(emr, "/operator/wire"))
    assert '"userComment": "as discussed"' in wire


async def test_calls_of_services_are_signed_with_the_key_that_is_published(emr: Caller) -> None:
    tokens = []

    async def noting(request: Request) -> Response:
        tokens.append((request.headers["authorization"].removeprefix("Bearer "), str(request.url)))
        return await advising(request)

    async with bridge(emr, noting):
        await sign(emr)
    [(token, address)] = tokens
    [key] = jwt.PyJWKSet.from_dict((await emr.get("/.well-known/jwks.json")).json()).keys
    # The EMR's real clock stands still in tests.
    claims = jwt.decode(
        token, key, algorithms=["ES384"], audience=address, options={"verify_exp": False, "verify_iat": False}
    )
    assert claims["iss"] == f"{emr.url}/api/FHIR/R4"
    assert token not in (await emr.get("/operator/wire")).body.decode()


async def test_taking_up_a_suggestion_signs_nothing_and_is_reported_as_accepted(emr: Caller) -> None:
    async with bridge(emr, advising) as asked:
        address = (await sign(emr)).headers["location"]
        taken = await send(emr, address, take="s1")
        assert taken.headers["location"] == "/patients/p1?said=taken-back"
    assert await orders(emr) == []
    [outcome] = json.loads(asked[1][1])["feedback"]
    assert (outcome["outcome"], outcome["acceptedSuggestions"]) == ("accepted", [{"id": "s1"}])


async def late(request: Request) -> Response:
    """Answer when the other side has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


def says(content: bytes, status: int = 200) -> Answer:
    async def answer(_: Request) -> Response:
        return Response(content, status_code=status, media_type="application/json")

    return answer


SILENCES: Mapping[str, Answer] = {
    "no advice": says(b'{"cards":[]}'),
    "an error": says(b"{}", 500),
    "cards, but of an error": says(json.dumps({"cards": [CARD]}).encode(), 503),
    "no JSON": says(b"<html>Sorry</html>"),
    "another JSON": says(b"[1]"),
    "not UTF-8": says(b"\xff\xfe\x00"),
    "a flood": says(b"[" * 1_000_001),
    "deep JSON": says(b"[" * 500_000),
    "too late": late,
}


@pytest.mark.parametrize("way", ["cds-hooks", "bpa"])
@pytest.mark.parametrize("silence", SILENCES)
async def test_whatever_comes_instead_of_advice_the_order_is_signed_as_if_nobody_had_been_asked(
    emr: Caller, silence: str, way: str
) -> None:
    async with bridge(emr, SILENCES[silence], wait_s=1.0, way=way) as asked:
        assert (await sign(emr)).headers["location"] == "/patients/p1?said=signed"
        assert len(asked) == 1
    assert await orders(emr) == ["active"]


async def test_nobody_at_the_address_is_a_silence_too(emr: Caller) -> None:
    async with bridge(emr, advising):
        pass
    assert (await sign(emr)).headers["location"] == "/patients/p1?said=signed"
    assert "The clinician saw nothing unusual" in words(await page(emr, "/operator/wire"))


def alert(outcome: str, inside: str = "") -> bytes:
    start = '<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="1">'
    return f"{start}<Outcome>{outcome}</Outcome>{inside}</AdvisoryResponse>".encode()


ADVISING_ALERT = alert(
    "advise",
    "<PacketId>p1</PacketId><Headline>Likely normal &lt;img&gt;</Headline><Detail>Score **0.7**</Detail>"
    '<Reasons><Reason feature="f" contribution="1">Hematocrit 41</Reason></Reasons>'
    '<AcknowledgeReasons><Reason code="changed">Changed</Reason></AcknowledgeReasons>',
)


async def test_an_alert_asks_about_the_filed_order_and_its_acknowledgement_is_reported(emr: Caller) -> None:
    async with bridge(emr, says(ADVISING_ALERT), way="bpa", services=["hematocrit"], login="alerts:secret") as asked:
        address = (await sign(emr)).headers["location"]
        assert await orders(emr) == ["active"]
        assert "Hematocrit 41" in words(await page(emr, address), "//dialog")
        await send(emr, address, sign="1", **{"reason-1": "changed"})
        [(path, document), (told_to, told)] = asked
        assert (path, told_to) == ("/api/bpa/hematocrit", "/api/bpa/acknowledgements")
        assert b'extension="p1"' in document
        assert (json.loads(told)["packetId"], json.loads(told)["reason"]) == ("p1", "changed")
        removing = (await sign(emr)).headers["location"]
        await send(emr, removing, take="remove")
    assert await orders(emr) == ["active", "revoked"]
    wire = words(await page(emr, "/operator/wire"))
    assert "secret" not in wire
    assert "Authorization: (" in wire


async def test_the_clock_is_set_stepped_run_and_paused_from_the_screen(emr: Caller) -> None:
    assert (await send(emr, "/operator/clock", do="set", now="2015-01-07T08:00:00")).status == 303
    assert (await send(emr, "/operator/clock", do="1 hour")).status == 303
    assert "2015-01-07 09:00:00" in words(await page(emr, "/operator"), "//*[@id='clock']")
    await send(emr, "/operator/clock", do="set", now="2015-01-06T10:30:00")
    await send(emr, "/operator/clock", do="next")
    # The second result.
    assert "2015-01-06 11:00:00" in words(await page(emr, "/operator"), "//*[@id='clock']")
    await send(emr, "/operator/clock", do="run", rate="60")
    assert "It runs at 60 times real time." in words(await page(emr, "/operator"))
    await send(emr, "/operator/clock", do="pause")
    await send(emr, "/operator/clock", do="set", now="2016-01-01T00:00:00")
    assert "It stands." in words(await page(emr, "/operator"))
    for wrong in (
        {"do": "set", "now": "soon"},
        {"do": "run", "rate": "x"},
        {"do": "run", "rate": "0"},
        {"do": "hop"},
        {"do": "next"},
    ):
        reply = await send(emr, "/operator/clock", **wrong)
        assert reply.status == 422
        assert "The clock was left as it is" in words(checked(reply))


async def test_faults_are_added_listed_removed_and_cleared_from_the_screen(emr: Caller) -> None:
    await send(emr, "/operator/faults", do="add", route="Observation", status="503", times="1", body="", delay_ms="")
    assert (await emr.get("/api/FHIR/R4/Observation?patient=p1")).status == 503
    await send(emr, "/operator/faults", do="json", rules=TWO_RULES)
    listed = await page(emr, "/operator")
    assert len(listed.xpath("//ul[@class='rules']/li")) == 2
    await send(emr, "/operator/faults", do="remove", name="a")
    assert len((await page(emr, "/operator")).xpath("//ul[@class='rules']/li")) == 1
    await send(emr, "/operator/faults", do="clear")
    assert "None: every call is answered" in words(await page(emr, "/operator"))
    for wrong in (
        {"route": "Observation", "status": "99"},
        {"route": "x", "body": "pie"},
        {"do": "json", "rules": "["},
    ):
        reply = await send(emr, "/operator/faults", **wrong)
        assert reply.status == 422
        assert "No rule was added" in words(checked(reply))


async def test_the_journal_shows_calls_without_their_values(emr: Caller) -> None:
    await emr.get("/api/FHIR/R4/Observation?patient=p1")
    await emr.get("/api/FHIR/R4/Observation")
    journal = await page(emr, "/operator/journal")
    assert len(journal.xpath("//tbody/tr")) == 2
    assert "p1" not in words(journal)
    assert len((await page(emr, "/operator/journal?only=failed")).xpath("//tbody/tr")) == 1
    assert len((await page(emr, "/operator/journal?words=patient")).xpath("//tbody/tr")) == 0
    await send(emr, "/operator/faults", do="json", rules='[{"route": "Patient", "name": "down", "status": 500}]')
    await emr.get("/api/FHIR/R4/Patient/p1")
    [faulty] = (await page(emr, "/operator/journal?only=faulty")).xpath("//tbody/tr")
    assert "fault down" in words(faulty, ".")


async def test_where_the_bridge_is_can_be_set_from_the_screen_and_its_login_is_never_shown(emr: Caller) -> None:
    form = {"address": "http://127.0.0.1:1", "way": "bpa", "services": "a, b", "wait_s": "2", "login": "u:secret"}
    assert (await send(emr, "/operator/bridge", **form)).status == 303
    assert "secret" not in (await emr.get("/operator")).body.decode()
    shown = (await emr.get("/admin/bridge")).json()["bridge"]
    assert (shown["services"], shown["login"]) == (["a", "b"], "set")
    assert (await send(emr, "/operator/bridge", **{**form, "address": "ftp://x"})).status == 422
    await send(emr, "/operator/bridge", do="clear", wait_s="1")
    assert (await emr.get("/admin/bridge")).json() == {"bridge": None}
    assert (await emr.call("PUT", "/admin/bridge", data="{}")).status == 400


@pytest.mark.parametrize("path", ["/patients/p1/order", "/operator/clock", "/operator/faults", "/operator/bridge"])
async def test_a_form_of_another_sites_page_is_refused(emr: Caller, path: str) -> None:
    for origin in ("https://elsewhere.example", "null"):
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": origin}
        form = {"test": "http://loinc.org|58410-2", "stay": "e1", "do": "clear", "wait_s": "1"}
        reply = await emr.call("POST", path, data=urlencode(form), headers=headers, allow_redirects=False)
        assert reply.status == 422
        assert "of this EMR's own pages" in words(checked(reply)) or "own pages" in words(checked(reply))
    assert await orders(emr) == []


async def test_style_and_script_are_the_mocks_own_and_nothing_else_is_handed_out(emr: Caller) -> None:
    for name, kind in (("screens.css", "text/css"), ("screens.js", "text/javascript")):
        reply = await emr.get(f"/screens/{name}")
        assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (200, kind)
        assert b"http" not in reply.body
    assert (await emr.get("/screens/pages.py")).status == 404


async def test_real_patients_are_shown_by_id_alone(running_over: Running, eicu_folder: Any) -> None:
    import gzip

    with gzip.open(eicu_folder / "Patient.ndjson.gz") as lines:
        patients = [json.loads(next(lines)) for _ in range(3)]
    async with running_over(*patients) as caller:
        listed = await page(caller, "/patients?who=all")
        assert [one.text for one in listed.xpath("//tbody//a")] == [one["id"] for one in patients]

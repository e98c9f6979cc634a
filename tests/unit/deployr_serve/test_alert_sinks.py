"""The sinks, each against a server on loopback: what is sent, what its answers mean, and what is never said."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from email import message_from_string, policy
from email.headerregistry import Address

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fhirclient.models.communication import Communication

from deployr_core.monitoring.alert_rules import Severity
from deployr_core.monitoring.alerting import Notice, What, key_of
from deployr_serve.adapters.alert_sinks import AlertCommunication, AlertLog, AlertMail, AlertWebhook, Posted, signed
from deployr_serve.adapters.alert_sinks import MailServer as Server
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.http import AiohttpTransport, Response
from deployr_serve.adapters.outputs_fhir import FhirWriter
from deployr_serve.adapters.threads import DaemonThreads
from deployr_serve.core.alert_desk import Message
from deployr_serve.core.errors import AlertRefused, AlertUnsent, EmrUnreachable
from deployr_serve.outputs.alert_messages import link_of, slack_blocks, teams_card, text_of, title_of
from tests.unit.deployr_serve.smtp import MailServer
from tests.unit.deployr_serve.test_tls import Authority

DASHBOARD = "https://dash.example"
KEY = b"k" * 32
SECRET = "s3cret-of-the-url"


@pytest.fixture
def notice_of(now):
    def make(what=What.BEGUN, *, rule="failures", model="hematocrit", part="", severity=Severity.PAGE):
        key = key_of(rule, model, part)
        return Notice(
            notice_id=f"{key}.{what}",
            what=what,
            key=key,
            rule=rule,
            model=model,
            part=part,
            severity=severity,
            said="In the last hour 30 of 60 (50.0 %) <b>&.",
            begun_at=now - timedelta(minutes=10),
            at=now,
        )

    return make


@pytest.fixture
def message_of(notice_of, now):
    def make(*notices, is_test=False):
        return Message(
            message_id="alerts.test.1",
            site="test",
            environment="TEST",
            at=now,
            notices=notices or (notice_of(),),
            is_test=is_test,
        )

    return make


@asynccontextmanager
async def listening(status=200):
    """Give a server's URL, with a secret in it, and the requests that it got."""
    got = []

    async def handle(request):
        got.append((dict(request.headers), await request.read()))
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    app = web.Application()
    app.router.add_post("/hook", handle)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("/hook")) + f"?sig={SECRET}", got
    finally:
        await server.close()


@pytest.fixture
async def transport(clock):
    made = AiohttpTransport(timeout_s=5.0, clock=clock)
    yield made
    await made.aclose()


# -- webhooks


def webhook(url, transport, clock, *, render=None, name="teams"):
    renders = render or (lambda message: Posted(body=teams_card(message, dashboard=DASHBOARD)))
    return AlertWebhook(name, url=url, render=renders, transport=transport, clock=clock)


async def test_teams_gets_an_adaptive_card_that_links_to_the_panel(message_of, notice_of, transport, clock):
    async with listening(202) as (url, got):
        await webhook(url, transport, clock).send(message_of(notice_of(), notice_of(rule="store", model="")))
    headers, body = got[0]
    attachment = json.loads(body)["attachments"][0]
    card = attachment["content"]
    assert json.loads(body)["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"][0]["text"] == "[PAGE] deployr TEST at test: alerts, 2 new"
    assert "Many requests fail: hematocrit" in [block["text"] for block in card["body"]]
    assert [action["url"] for action in card["actions"]] == [
        f"{DASHBOARD}/model?model=hematocrit&panel=reasons",
        DASHBOARD,
    ]
    assert headers["Content-Type"] == "application/json"


async def test_slack_gets_blocks_whose_words_are_no_markup(message_of, transport, clock):
    async with listening() as (url, got):
        render = lambda message: Posted(body=slack_blocks(message, dashboard=DASHBOARD))  # noqa: E731
        await webhook(url, transport, clock, render=render, name="slack").send(message_of())
    sent = json.loads(got[0][1])
    assert sent["blocks"][0]["text"]["type"] == "plain_text"
    section = sent["blocks"][1]["text"]["text"]
    assert "(50.0 %) &lt;b&gt;&amp;." in section
    assert f"<{DASHBOARD}/model?model=hematocrit&amp;panel=reasons|Open the panel>" in section


async def test_a_webhook_of_ones_own_gets_signed_json(message_of, transport, clock):
    async with listening() as (url, got):
        await webhook(url, transport, clock, render=signed(KEY, dashboard=None, clock=clock)).send(message_of())
    headers, body = got[0]
    timestamp = headers["X-Deployr-Timestamp"]
    expected = hmac.new(KEY, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Deployr-Signature"] == f"v1={expected}"
    assert headers["Idempotency-Key"] == "alerts.test.1"
    record = json.loads(body)
    assert (record["type"], record["version"], record["is_test"]) == ("alerts", 1, False)
    assert record["alerts"][0] | {"said": ""} == {
        "id": "failures/hematocrit.begun",
        "what": "begun",
        "alert": "failures/hematocrit",
        "rule": "failures",
        "model": "hematocrit",
        "part": None,
        "severity": "page",
        "begun_at": "2015-01-06T20:45:00Z",
        "at": "2015-01-06T20:55:00Z",
        "said": "",
        "means": "The share of failed requests is far above what it was in the weeks before.",
        "do": record["alerts"][0]["do"],
        "link": None,
    }


@pytest.mark.parametrize(
    ("status", "error"), [(500, AlertUnsent), (429, AlertUnsent), (400, AlertRefused), (302, AlertRefused)]
)
async def test_an_answer_that_is_no_success_is_an_error_without_the_url(message_of, transport, clock, status, error):
    async with listening(status) as (url, got):
        with pytest.raises(error) as refused:
            await webhook(url, transport, clock).send(message_of())
    assert len(got) == 1
    assert SECRET not in repr(refused.value)


async def test_nobody_there_is_an_error_without_the_url(message_of, transport, clock, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EmrUnreachable) as refused:
        await webhook(f"http://127.0.0.1:1/hook?sig={SECRET}", transport, clock).send(message_of())
    assert SECRET not in repr(refused.value) + caplog.text


# -- mail


def mail(port, clock, *, tls=None, user=None, password=None):
    server = Server(
        host="127.0.0.1",
        port=port,
        tls=tls,
        sender=Address(addr_spec="alerts@example.org"),
        recipients=(Address(addr_spec="ana@example.org"), Address(addr_spec="ben@example.org")),
        user=user,
        password=password,
    )
    return AlertMail(server, dashboard=DASHBOARD, threads=DaemonThreads(), clock=clock)


async def test_a_mail_goes_to_everybody_over_tls_with_the_password(message_of, clock, tmp_path):
    authority = Authority(tmp_path)
    trusted = ssl.create_default_context(cafile=str(authority.file))
    server = MailServer(tls=authority.server_context())
    async with server.running() as port:
        await mail(port, clock, tls=trusted, user="alerts", password=SECRET).send(message_of())
    got = message_from_string(server.mails[0].removesuffix(".\r\n"), policy=policy.default)
    assert got["Subject"] == "[PAGE] deployr TEST at test: Many requests fail: hematocrit"
    assert got["To"] == "ana@example.org, ben@example.org"
    assert got["Message-ID"] == "<alerts.test.1@example.org>"
    assert got["Auto-Submitted"] == "auto-generated"
    assert f"{DASHBOARD}/model?model=hematocrit&panel=reasons" in got.get_content()
    assert len(server.recipients) == 2
    assert (server.was_tls, server.logins) == ([True], [f"\0alerts\0{SECRET}"])


async def test_nothing_is_mailed_to_a_server_whose_certificate_is_not_trusted(message_of, clock, tmp_path):
    server = MailServer(tls=Authority(tmp_path).server_context())
    async with server.running() as port:
        with pytest.raises(AlertRefused):
            await mail(port, clock, tls=ssl.create_default_context(), user="a", password=SECRET).send(message_of())
    assert (server.mails, server.logins) == ([], [])


async def test_nothing_is_mailed_without_tls_where_it_is_asked_for(message_of, clock):
    server = MailServer()
    async with server.running() as port:
        with pytest.raises(AlertRefused):
            await mail(port, clock, tls=ssl.create_default_context()).send(message_of())
    assert server.mails == []


@pytest.mark.parametrize(
    ("begins", "answer", "error"),
    [
        ("AUTH", f"535 no, not {SECRET}", AlertRefused),
        ("DATA", "451 later", AlertUnsent),
        ("RCPT", "550 nobody of that name", AlertUnsent),
        ("MAIL", "421 too busy", AlertUnsent),
    ],
)
async def test_what_the_server_says_no_to_is_an_error_without_its_words(
    message_of, clock, tmp_path, begins, answer, error
):
    authority = Authority(tmp_path)
    server = MailServer(tls=authority.server_context(), refuse=(begins, answer))
    trusted = ssl.create_default_context(cafile=str(authority.file))
    async with server.running() as port:
        with pytest.raises(error) as refused:
            await mail(port, clock, tls=trusted, user="alerts", password=SECRET).send(message_of())
    assert SECRET not in repr(refused.value)


async def test_a_recipient_that_is_refused_is_counted_and_keeps_the_mail_from_nobody_else(message_of, clock, caplog):
    server = MailServer(refuse=("RCPT TO:<BEN", "550 nobody of that name"))
    async with server.running() as port:
        await mail(port, clock).send(message_of())
    assert len(server.mails) == 1
    assert [each for each in caplog.messages if "alert-mail-refused" in each] == [
        "alert=alert-mail-refused message=alerts.test.1 refused=1 of=2 places=2 answers=550"
    ]
    assert "example.org" not in caplog.text


async def test_a_server_that_is_not_there_is_an_error(message_of, clock):
    with pytest.raises(AlertUnsent):
        await mail(1, clock).send(message_of())


# -- FHIR


class FhirServer:
    """Takes Communications, conditionally or not."""

    def __init__(self, *, conditional):
        self.conditional, self.held, self.forms = conditional, [], []

    async def send(self, request):
        if request.url.endswith("/metadata"):
            kind = {
                "type": "Communication",
                "interaction": [{"code": "create"}],
                "conditionalCreate": self.conditional,
            }
            return answered({"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "resource": [kind]}]})
        if request.url.endswith("/_search"):
            self.forms.append(request.form)
            return answered({"resourceType": "Bundle", "entry": [{"resource": each} for each in self.held]})
        if not (self.held and "If-None-Exist" in request.headers):
            self.held.append(json.loads(request.body))
        return Response(status=201, content_type="", body=b"")


def answered(content):
    return Response(status=200, content_type="application/fhir+json", body=msgspec.json.encode(content))


@pytest.mark.parametrize("conditional", [True, False])
async def test_a_communication_to_staff_is_created_once_and_is_about_no_patient(message_of, clock, conditional):
    server = FhirServer(conditional=conditional)
    writer = FhirWriter(base="https://emr.example/R4", transport=server, credentials=NoCredentials())
    sink = AlertCommunication(writer, recipients=("Group/on-call",), dashboard=DASHBOARD, clock=clock)
    await sink.send(message_of())
    await sink.send(message_of())
    assert len(server.held) == 1
    resource = server.held[0]
    assert Communication(resource).as_json() == resource
    assert "subject" not in resource
    assert resource["recipient"] == [{"reference": "Group/on-call"}]
    assert (resource["priority"], resource["status"]) == ("urgent", "completed")
    assert all([name for name, _ in form] == ["identifier"] for form in server.forms)


# -- the log, and the words


async def test_the_log_has_a_line_of_names_and_instants_for_each_notice(message_of, notice_of, caplog):
    caplog.set_level(logging.INFO)
    await AlertLog().send(message_of(notice_of(), notice_of(What.ENDED, rule="spool", model="")))
    assert caplog.messages == [
        "alert=failures event=begun severity=page model=hematocrit part=- since=2015-01-06T20:45:00Z",
        "alert=spool event=ended severity=page model=- part=- since=2015-01-06T20:45:00Z",
    ]
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "INFO"]


def test_titles_count_what_is_new_goes_on_and_is_over(message_of, notice_of):
    assert title_of(message_of()) == "[PAGE] deployr TEST at test: Many requests fail: hematocrit"
    several = message_of(
        notice_of(severity=Severity.WARN), notice_of(What.REMINDER, model="b"), notice_of(What.ENDED, model="c")
    )
    assert title_of(several) == "[PAGE] deployr TEST at test: alerts, 1 new, 1 going on, 1 over"
    assert title_of(message_of(notice_of(What.ENDED))).startswith("[NOTE]")


def test_a_trial_message_says_so_in_every_shape(message_of, notice_of):
    message = message_of(notice_of(), is_test=True)
    shapes = (teams_card(message, dashboard=None), slack_blocks(message, dashboard=None))
    for text in (title_of(message), *(shape.decode() for shape in shapes)):
        assert "[TEST]" in text
        assert "nothing has happened" in text
    assert "Nothing has happened" in text_of(message, dashboard=None)


def test_a_flood_is_cut_short_and_says_where_the_rest_is(message_of, notice_of):
    message = message_of(*(notice_of(model=f"m{number:03d}") for number in range(200)))
    assert text_of(message, dashboard=None).endswith("And 180 more: deployr alerts list")
    slack = json.loads(slack_blocks(message, dashboard=DASHBOARD))
    assert len(slack["blocks"]) <= 50
    assert sum(len(block["text"]["text"]) for block in slack["blocks"]) < 13_000
    assert len(teams_card(message, dashboard=DASHBOARD)) < 28_000


def test_links_are_of_a_panel_or_of_the_page_of_all(notice_of):
    assert link_of(notice_of(model="a b"), DASHBOARD) == f"{DASHBOARD}/model?model=a+b&panel=reasons"
    assert link_of(notice_of(rule="spool", model=""), DASHBOARD) == DASHBOARD
    assert link_of(notice_of(), None) is None

"""A model that answers over HTTP is asked within its time, past a circuit, and is never let to stop the others."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import ipaddress
import json
import logging
import math
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from deployr_cli.bundle import bundle_app
from deployr_cli.failures import CommandFailed
from deployr_core import bundle as bundles
from deployr_core.elsewhere import PredictorFile
from deployr_core.packet import Failed, Scored
from deployr_core.scoring import ModelAway, ModelUnusable, ScoreInvalid
from deployr_dev.elsewhere import answered_elsewhere
from deployr_serve.adapters.models import BundleFolder
from deployr_serve.adapters.predictors import LONGEST_ANSWER, Address, Predictors
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.infer import infer
from deployr_serve.core.replay import Verdict, replay
from deployr_serve.predictor_bootstrap import reach_of
from deployr_serve.settings import read_settings

EXAMPLE = Path(__file__).parents[3] / "docs/examples/predictor/app.py"
WITHOUT, WITH_ONE = 1.0 / (1.0 + math.exp(1.0)), 1.0 / (1.0 + math.exp(0.5))
NET = PredictorFile(predictor="net-a")
TOKEN = "hidden-token-0123456789"
CANARY = b'{"rows": [{"canary-feature": 4711.0}]}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.seen.append((self.path, dict(self.headers.items()), body))
        if server.hangs:
            server.let_go.wait()
            return
        status, headers, content = server.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def far():
    """Give a server that answers what it is told, or hangs until the test's end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen, server.hangs, server.let_go = [], False, threading.Event()
    server.answer = (200, {}, b'{"rows": [[0.5]]}')
    server.url = f"http://127.0.0.1:{server.server_port}/predict"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask_of(clock):
    """Give a function that makes the way to a server."""

    def make(url, *, token=None, file=NET, **options):
        return Predictors({"net-a": Address(url=url, token=token)}, clock=clock, **options).reach(file)

    return make


def test_it_is_posted_json_with_its_token(far, ask_of):
    ask = ask_of(far.url, token=TOKEN)
    far.answer = (200, {"X-Model-Version": "net 3"}, b'{"rows": [[0.5]]}')
    assert ask(b"{}").answered_by == "net 3"
    assert ask(b"{}").body == b'{"rows": [[0.5]]}'
    path, headers, body = far.seen[0]
    assert (path, body) == ("/predict", b"{}")
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_one_that_says_that_it_is_not_available_may_be_later(far, ask_of, status):
    far.answer = (status, {}, b"secret words")
    with pytest.raises(ModelAway, match=f"got status {status}$"):
        ask_of(far.url)(b"{}")


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 422, 500])
def test_one_that_refuses_is_a_failure_and_is_not_followed_anywhere(far, ask_of, status):
    far.answer = (status, {"Location": "http://127.0.0.1:1/"}, b"secret words")
    with pytest.raises(ScoreInvalid, match=f"got status {status}$"):
        ask_of(far.url)(b"{}")
    assert len(far.seen) == 1


def test_an_endless_answer_is_not_read_to_its_end(far, ask_of):
    far.answer = (200, {}, b" " * (LONGEST_ANSWER + 70_000))
    with pytest.raises(ScoreInvalid, match="at most 1000000 bytes"):
        ask_of(far.url)(b"{}")


def test_one_that_hangs_is_waited_for_no_longer_than_its_time(far, ask_of):
    far.hangs = True
    with pytest.raises(ModelAway, match=r"within 0\.05 s"):
        ask_of(far.url, timeout_s=0.05)(b"{}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://[::1]/predict", ("::1", 80)),
        ("https://[2001:db8::5]/predict", ("2001:db8::5", 443)),
        ("http://[::1]:9000/predict", ("::1", 9000)),
        ("https://models.example.org", ("models.example.org", 443)),
    ],
)
def test_an_address_without_a_port_is_its_schemes(ask_of, monkeypatch, url, expected):
    called = []

    def refuse(address, *_, **__):
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ModelAway):
        ask_of(url)(b"{}")
    assert called == [expected]


def test_one_that_is_not_there_is_left_alone_for_a_while_and_tried_again(far, ask_of, clock, caplog):
    url = far.url
    far.answer = (503, {}, b"")
    ask = ask_of(url)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            with pytest.raises(ModelAway, match="503"):
                ask(CANARY)
        with pytest.raises(ModelAway, match="circuit is open"):
            ask(CANARY)
    assert len(far.seen) == 5
    assert [record.getMessage() for record in caplog.records] == [
        "predictor net-a does not answer: it is left alone for 5 s"
    ]
    clock.pass_time(5.0)
    far.answer = (200, {}, b'{"rows": [[0.5]]}')
    assert ask(CANARY).body
    assert ask(CANARY).body


def test_neither_features_nor_tokens_stand_in_what_is_raised(far, ask_of):
    told = []
    for status in (302, 400, 500, 503):
        far.answer = (status, {}, CANARY + TOKEN.encode())
        with pytest.raises((ModelAway, ScoreInvalid)) as caught:
            ask_of(far.url, token=TOKEN)(CANARY)
        told.append(f"{caught.value!r} {caught.value.__cause__!r}")
    told.append(repr(Address(url=far.url, token=TOKEN)))
    assert not any(word in text for text in told for word in ("canary", "4711", TOKEN))


def test_what_speaks_no_tls_is_not_asked_over_https(far, ask_of):
    with pytest.raises(ModelAway, match="expected net-a to take the connection"):
        ask_of(far.url.replace("http:", "https:"))(b"{}")
    assert far.seen == []


def test_a_predictor_without_an_address_or_without_databricks_token_is_refused(ask_of):
    with pytest.raises(ModelUnusable, match="address of net-b in DEPLOYR_PREDICTORS"):
        ask_of("http://127.0.0.1:1/", file=PredictorFile(predictor="net-b"))
    with pytest.raises(ModelUnusable, match="token of net-a in DEPLOYR_PREDICTOR_TOKENS"):
        ask_of("http://127.0.0.1:1/", file=PredictorFile(predictor="net-a", protocol="databricks"))


async def test_a_hospitals_own_authority_is_trusted_where_it_is_named_and_only_there(tmp_path, ask_of):
    file, context = own_authority(tmp_path)

    async def answer(_):
        return web.json_response({"rows": [[0.5]]})

    app = web.Application()
    app.router.add_post("/", answer)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context)
    url = f"https://127.0.0.1:{server.port}/"
    trusting, strict = ask_of(url, ca_file=file), ask_of(url)
    assert json.loads((await asyncio.to_thread(trusting, b"{}")).body) == {"rows": [[0.5]]}
    with pytest.raises(ModelAway, match="take the connection"):
        await asyncio.to_thread(strict, b"{}")
    await server.close()


def own_authority(folder):
    """Give a self-signed certificate for 127.0.0.1 as a file, and a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(shown)
    (folder / "server.pem").write_bytes(private + shown)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


# -- settings

LEAST = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1/fhir"}


def test_addresses_and_tokens_are_read_by_name(clock):
    settings = read_settings(
        {
            **LEAST,
            "DEPLOYR_PREDICTORS": "net-a=https://models.example.org/a, net-b=http://127.0.0.1:9000/predict",
            "DEPLOYR_PREDICTOR_TOKENS": f"net-a={TOKEN}=",
        }
    ).predictors
    assert settings.urls == {"net-a": "https://models.example.org/a", "net-b": "http://127.0.0.1:9000/predict"}
    assert settings.tokens == {"net-a": f"{TOKEN}="}
    assert TOKEN not in repr(settings)
    assert reach_of(settings, clock=clock) is not None
    assert reach_of(read_settings(LEAST).predictors, clock=clock) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOYR_PREDICTORS", "https://models.example.org"),
        ("DEPLOYR_PREDICTORS", "net-a=ftp://models.example.org"),
        ("DEPLOYR_PREDICTORS", f"net-a=https://me:{TOKEN}@models.example.org"),
        ("DEPLOYR_PREDICTORS", "net-a=https://a.example.org,net-a=https://b.example.org"),
        ("DEPLOYR_PREDICTOR_TOKENS", f"net-a={TOKEN}"),
        ("DEPLOYR_PREDICTOR_TOKENS", "short"),
        ("DEPLOYR_PREDICTOR_TIMEOUT_S", "0"),
        ("DEPLOYR_PREDICTOR_VERSION_HEADER", "a b"),
        ("DEPLOYR_PREDICTOR_CA_FILE", "nowhere.pem"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_and_no_secret_is_repeated(name, value):
    with pytest.raises(SettingsInvalid, match=name) as caught:
        read_settings({**LEAST, name: value})
    assert TOKEN not in str(caught.value)


def test_production_asks_for_tls():
    with pytest.raises(SettingsInvalid, match="DEPLOYR_PREDICTORS: expected https"):
        read_settings({**LEAST, "DEPLOYR_PROFILE": "prod", "DEPLOYR_PREDICTORS": "net-a=http://models.example.org"})


# -- the example, asked for a patient


@pytest.fixture
def example():
    """Serve the example, and give its module and its address."""
    spec = importlib.util.spec_from_file_location("example_predictor", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = uvicorn.Config(module.app, log_level="warning")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield module, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def models_elsewhere(bundle_files, tmp_path, clock):
    """Give a function that writes a bundle of the example's model and opens it with an address."""

    def make(url, **file):
        manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
        predictor = PredictorFile(predictor="net-a", tolerance=1e-12, **file)
        changed, parts = answered_elsewhere(
            manifest,
            bundle_files,
            predictor,
            outputs=((WITHOUT,), (WITH_ONE,)),
            training=manifest.training,
            evaluation=manifest.evaluation,
        )
        folder = tmp_path / "hematocrit"
        folder.mkdir(exist_ok=True)
        for name, content in {bundles.MANIFEST_FILE: changed.to_json(), **parts}.items():
            (folder / name).write_bytes(content)
        reach = Predictors({"net-a": Address(url=url, token=TOKEN)}, clock=clock).reach
        refused = dict.fromkeys  # Trying it out in a child would need its address there, and proves nothing.
        return BundleFolder(tmp_path, reach=reach, refused=lambda found: refused(found, "was tried out in a child"))

    return make


@pytest.mark.parametrize(
    ("path", "file"),
    [("/predict", {}), ("/invocations", {"protocol": "mlflow"}), ("/invocations", {"protocol": "databricks"})],
)
async def test_a_patient_is_scored_by_the_example_and_the_packet_says_by_which_model(
    example, models_elsewhere, services_of, request_of, path, file
):
    module, base = example
    models = models_elsewhere(base + path, **file)
    assert models.deployed() == {"hematocrit": None}
    outcome = (await infer(request_of(), services_of(models=models))).packet.outcome
    assert isinstance(outcome, Scored)
    assert outcome.score == pytest.approx(WITH_ONE, abs=1e-12)
    assert outcome.answered_by == module.NAME


async def test_a_replay_says_that_the_model_was_exchanged_or_cannot_be_asked(
    example, models_elsewhere, services_of, request_of, monkeypatch
):
    module, base = example
    models = models_elsewhere(base + "/predict")
    packet = (await infer(request_of(), services_of(models=models))).packet
    bundle = models.bundle("hematocrit")
    same = replay(packet, bundle, installed={}, policy=None)
    assert same.verdict is Verdict.SAME
    assert any("scored elsewhere, by example-net 1.0.0" in each for each in same.beside)
    monkeypatch.setattr(module, "NAME", "example-net 2.0.0")
    exchanged = replay(packet, bundle, installed={}, policy=None)
    assert exchanged.verdict is Verdict.UNKNOWN
    assert exchanged.why_unknown is not None
    assert "example-net 1.0.0 then, example-net 2.0.0 now" in exchanged.why_unknown
    monkeypatch.setattr(module, "NAME", "example-net 1.0.0")
    monkeypatch.setattr(module, "risk", lambda _: 0.25)
    other = replay(packet, bundle, installed={}, policy=None)
    assert (other.verdict, other.differences) == (Verdict.DIFFERS, ("score",))


async def test_a_patient_whose_features_stand_in_it_is_all_that_leaves(far, models_elsewhere, services_of, request_of):
    rows = json.dumps({"rows": [[WITHOUT], [WITH_ONE]]}).encode()
    far.answer = (200, {}, rows)
    models = models_elsewhere(far.url)
    far.answer = (200, {}, b'{"rows": [[0.5]]}')
    answer = await infer(request_of(patient_id="canary-patient", order_id="canary-order"), services_of(models=models))
    assert isinstance(answer.packet.outcome, Scored)
    assert answer.packet.outcome.answered_by is None
    path, headers, body = far.seen[-1]
    sent = json.loads(body)
    assert set(sent) == {"n_features", "rows", "spec_sha256"}
    assert set(sent["rows"][0].values()) == {1.0, 30.0}
    told = f"{path} {headers} {body!r}"
    ids = ("canary", answer.packet.packet_id, "correlation-1", "2015-01", '"e1"')
    assert not any(each in told for each in ids)


async def test_a_model_that_is_away_fails_so_that_it_may_be_asked_again(far, models_elsewhere, services_of, request_of):
    far.answer = (503, {}, b"")
    models = models_elsewhere(far.url)
    assert models.deployed() == {"hematocrit": None}
    services = services_of(models=models)
    failed = await infer(request_of(), services)
    assert failed.packet.outcome == Failed(reason="predictor-unavailable", retryable=True)


async def test_a_model_that_hangs_fails_at_the_deadline_and_others_are_answered_meanwhile(
    far, models_elsewhere, models_of, bundle, services_of, request_of
):
    far.answer = (200, {}, json.dumps({"rows": [[WITHOUT], [WITH_ONE]]}).encode())
    slow = models_elsewhere(far.url).bundle("hematocrit")
    far.hangs = True
    services = services_of(models=models_of(hematocrit=slow, anemia=bundle), deadline_s=0.3)
    failed = await infer(request_of(), services)
    assert failed.packet.outcome in {
        Failed(reason="predictor-unavailable", retryable=True),
        Failed(reason="deadline", retryable=True),
    }
    services = services_of(models=models_of(hematocrit=slow, anemia=bundle))
    assert isinstance((await infer(request_of(model_id="anemia"), services)).packet.outcome, Scored)


def test_another_models_answers_come_with_its_training_and_evaluation(bundle_files):
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    with pytest.raises(ValueError, match="together"):
        answered_elsewhere(manifest, bundle_files, NET, outputs=((0.5,), (0.5,)))
    moved, parts = answered_elsewhere(manifest, bundle_files, NET)
    assert moved.evaluation == manifest.evaluation
    assert msgspec.json.decode(parts[bundles.GOLDEN_FILE]) == msgspec.json.decode(bundle_files[bundles.GOLDEN_FILE])


def test_a_bundle_is_verified_where_its_model_answers(example, models_elsewhere, tmp_path):
    _, base = example
    models_elsewhere(base + "/predict")

    def verified(*at):
        return CliRunner().invoke(bundle_app, ["verify", str(tmp_path / "hematocrit"), *at])

    assert verified("--at", base + "/predict").output.startswith("ok: hematocrit")
    assert "ok: 0 models" in CliRunner().invoke(bundle_app, ["prove", str(tmp_path)]).output
    for at in ((), ("--at", base + "/nowhere"), ("--at", "http://127.0.0.1:1/"), ("--at", "nowhere")):
        assert isinstance(verified(*at).exception, CommandFailed)

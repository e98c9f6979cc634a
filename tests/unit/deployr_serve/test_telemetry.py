"""What telemetry tells: steps, codes, durations; and what it never does, whoever wrote it there."""

from __future__ import annotations

import asyncio
import gzip
import threading
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import StatusCode

from deployr_core.packet import FetchRecord
from deployr_serve import telemetry_bootstrap
from deployr_serve.adapters.http import Request, Response
from deployr_serve.adapters.telemetry import NamingTransport, parent_of
from deployr_serve.adapters.telemetry_allowed import Allowed
from deployr_serve.core.errors import EmrTimeout, ServeError, SettingsInvalid
from deployr_serve.core.watch import NOT_WATCHED, Level, Step
from deployr_serve.settings import read_settings
from deployr_serve.telemetry_bootstrap import open_telemetry
from deployr_serve.telemetry_settings import Protocol, TelemetrySettings, telemetry_too_weak_for_production
from tests.conftest import FakeClock
from tests.telemetry_kept import Kept

SETTINGS = TelemetrySettings(protocol=Protocol.OTLP, where="http://127.0.0.1:1", share=1.0, identity=None)
CANARY = "CanaryPatient7"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def kept(monkeypatch):
    kept = Kept()
    monkeypatch.setattr(telemetry_bootstrap, "exporters_of", lambda *_: kept.exporters)
    return kept


@pytest.fixture
def telemetry(kept, clock):
    opened = open_telemetry(
        SETTINGS, clock=clock, models=lambda: {"hematocrit": None}, outputs=("score-column",), environment="DEV"
    )
    yield opened
    opened.close()


def test_of_several_sites_each_says_which_it_is_in_spans_and_metrics(kept, clock):
    opened = open_telemetry(SETTINGS, clock=clock, models=dict, outputs=(), environment="DEV", site="north")
    with opened.watch.step(Step.SCORE):
        pass
    opened.flush()
    opened.close()
    assert [span.resource.attributes["service.namespace"] for span in kept.spans()] == ["north"]
    [measured] = [resource for batch in kept.exporters[1].batches for resource in batch.resource_metrics]
    assert measured.resource.attributes["service.namespace"] == "north"


def allowed():
    return Allowed(models=lambda: {"hematocrit": None}, outputs=("score-column",))


def test_a_step_is_a_span_in_the_one_around_it_and_a_measurement(telemetry, kept, clock):
    with telemetry.watch.step(Step.INFERENCE, channel="json") as noted:
        with telemetry.watch.step(Step.SCORE):
            pass
        noted.note(model="hematocrit", outcome="scored")
    telemetry.flush()
    score, inference = kept.spans()
    assert (score.name, inference.name) == ("score", "inference")
    assert score.parent.span_id == inference.context.span_id
    assert dict(inference.attributes) == {
        "deployr.step": "inference",
        "deployr.channel": "json",
        "deployr.model": "hematocrit",
        "deployr.outcome": "scored",
    }
    assert {(name, point.attributes["deployr.step"], point.count) for name, point in kept.points()} == {
        ("deployr.step.duration", "score", 1),
        ("deployr.step.duration", "inference", 1),
    }


def test_durations_are_those_of_the_clock_port(telemetry, kept, clock):
    with telemetry.watch.step(Step.RELAY):
        asyncio.run(clock.sleep(1.5))
    telemetry.flush()
    [(_, point)] = kept.points()
    assert point.sum == 1.5


def test_an_error_is_told_by_its_reason_or_its_class_and_never_by_its_text(telemetry, kept):
    for error in (EmrTimeout(f"about {CANARY}"), RuntimeError(f"about {CANARY}")):
        with pytest.raises(type(error)), telemetry.watch.step(Step.FETCH):
            raise error
    telemetry.flush()
    first, second = kept.spans()
    assert first.attributes["deployr.reason"] == "emr-timeout"
    assert second.attributes["deployr.error"] == "RuntimeError"
    assert {span.status.status_code for span in kept.spans()} == {StatusCode.ERROR}
    assert CANARY not in kept.text()


def test_each_search_is_a_span_with_the_times_that_it_had(telemetry, kept, now):
    record = FetchRecord(
        resource="Observation",
        resources=3,
        pages=1,
        milliseconds=42.0,
        name="labs",
        started_at=now,
        error="emr-timeout",
    )
    with telemetry.watch.step(Step.FETCH):
        telemetry.watch.fetched((record,))
    telemetry.flush()
    search, fetch = kept.spans()
    assert search.parent.span_id == fetch.context.span_id
    assert search.end_time - search.start_time == timedelta(milliseconds=42) // timedelta(microseconds=1) * 1000
    assert search.attributes["deployr.resource"] == "Observation"
    assert search.attributes["deployr.reason"] == "emr-timeout"


def test_each_kind_of_record_that_is_asked_for_is_told_by_its_name():
    named = ("Patient", "Observation", "DocumentReference", "Binary", "Coverage", "UnitCensus")
    assert [allowed().attributes({"resource": each}) for each in named] == [
        {"deployr.resource": each} for each in named
    ]


def test_levels_are_gauges(telemetry, kept):
    telemetry.watch.level(Level.DELIVERIES_PENDING, 3)
    telemetry.watch.level(Level.DELIVERIES_PENDING, 2)
    telemetry.flush()
    assert [(name, point.value) for name, point in kept.points()] == [("deployr.deliveries-pending", 2)]


# -- the allow-list


def test_a_value_that_is_not_on_the_list_leaves_as_other_and_a_name_that_is_not_leaves_not():
    said = allowed().attributes(
        {
            "model": CANARY,
            "reason": "smith",
            "resource": CANARY,
            "output": "1234567",
            "patient": CANARY,
            "channel": "json",
        }
    )
    assert said == {
        "deployr.model": "other",
        "deployr.reason": "other",
        "deployr.resource": "other",
        "deployr.output": "other",
        "deployr.channel": "json",
    }


def test_every_reason_code_that_has_a_class_is_on_the_list():
    waiting, reasons = [ServeError], set()
    while waiting:
        kind = waiting.pop()
        reasons.add(kind.reason)
        waiting += kind.__subclasses__()
    assert len(reasons) > 30
    for reason in reasons:
        assert allowed().attributes({"reason": reason}) == {"deployr.reason": reason}


@pytest.mark.parametrize("value", [7, 1.5, ["json"], b"json", {"json": 1}])
def test_only_text_is_a_value(value):
    assert allowed().attributes({"channel": value}) == {"deployr.channel": "other"}


@pytest.mark.parametrize(
    ("given", "leaves"),
    [
        ("6f9619ff-8b86-4011-b42d-00c04fc964ff", "6f9619ff-8b86-4011-b42d-00c04fc964ff"),
        ("MRN-970031415926", "other"),
        ("97003141-5926-1000-8000-000000000000", "other"),
    ],
)
def test_a_correlation_id_leaves_only_if_it_was_drawn_by_chance(given, leaves):
    assert allowed().attributes({"correlation_id": given}) == {"deployr.correlation_id": leaves}


def test_what_stock_instrumentation_would_write_does_not_leave(telemetry, kept):
    """As the instrumentation of requests does: whole addresses as names and attributes, exceptions with their texts."""
    provider = telemetry.watch._tracer
    with telemetry.watch.step(Step.FETCH):
        ours = trace.get_current_span()
        ours.set_attribute("http.url", f"https://emr.example/Patient?_id={CANARY}")
        ours.set_attribute("deployr.reason", CANARY)
        ours.add_event("exception", {"exception.message": CANARY})
        ours.set_status(StatusCode.ERROR, CANARY)
        with provider.start_as_current_span(f"GET https://emr.example/Patient?_id={CANARY}") as foreign:
            foreign.set_attribute("url.full", f"https://emr.example/Patient?_id={CANARY}")
            foreign.record_exception(RuntimeError(CANARY))
    telemetry.flush()
    foreign, ours = kept.spans()
    assert CANARY not in kept.text()
    assert (foreign.name, dict(foreign.attributes), foreign.events) == ("other", {}, ())
    assert ours.attributes["deployr.reason"] == "other"
    assert ours.status.description is None


def test_measurements_of_others_and_attributes_off_the_list_do_not_leave(telemetry, kept):
    meter = telemetry.watch._durations
    meter.record(1.0, {"deployr.reason": CANARY, "http.url": CANARY})
    telemetry.flush()
    [(name, point)] = kept.points()
    assert (name, dict(point.attributes), tuple(point.exemplars)) == (
        "deployr.step.duration",
        {"deployr.reason": "other"},
        (),
    )
    assert CANARY not in kept.text()


def test_the_processs_own_providers_stay_as_they_were(telemetry):
    """Whatever instruments a package by itself finds none to record with."""
    with trace.get_tracer("opentelemetry.instrumentation.requests").start_as_current_span("GET") as span:
        assert not span.is_recording()


# -- W3C trace context


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-00000000000000000000970031415926-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000970031415926-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    ],
)
def test_what_is_no_trace_or_could_be_a_number_of_somebodys_is_not_taken_on(given):
    assert parent_of(given) is None


def test_a_callers_trace_is_gone_on_with_and_named_to_the_emr(telemetry, kept):
    sent = []

    class Network:
        async def send(self, request):
            sent.append(request)
            return Response(status=200, content_type="", body=b"")

    async def ask():
        caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
        with telemetry.watch.joined(caller), telemetry.watch.step(Step.FETCH):
            await NamingTransport(Network(), telemetry.watch).send(
                Request(method="GET", url="https://emr.example/", headers={"Accept": "x"})
            )
        await NamingTransport(Network(), telemetry.watch).send(Request(method="GET", url="https://emr.example/"))

    asyncio.run(ask())
    telemetry.flush()
    [span] = kept.spans()
    assert f"{span.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert sent[0].headers == {
        "Accept": "x",
        "traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{span.context.span_id:016x}-01",
    }
    assert "traceparent" not in sent[1].headers


# -- off


def test_when_nobody_watches_nothing_is_made():
    step = NOT_WATCHED.step(Step.SCORE)
    assert step is NOT_WATCHED.step(Step.INFERENCE, channel="json")
    with step as noted:
        noted.note(model="hematocrit")
    assert not NOT_WATCHED.is_on
    assert NOT_WATCHED.traceparent() is None


# -- settings, and what goes over the wire


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    """Give a collector of OTLP over HTTP on loopback, with the last body by path."""
    server = HTTPServer(("127.0.0.1", 0), _Collector)
    server.bodies = {}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_otlp_sends_spans_and_metrics_and_of_an_errors_text_no_byte(collector, clock):
    settings = replace(SETTINGS, where=f"http://127.0.0.1:{collector.server_port}")
    telemetry = open_telemetry(settings, clock=clock, models=dict, outputs=(), environment="DEV")
    with pytest.raises(RuntimeError), telemetry.watch.step(Step.FETCH, reason=CANARY):
        raise RuntimeError(CANARY)
    telemetry.close()
    sent = ExportTraceServiceRequest.FromString(gzip_or_plain(collector.bodies["/v1/traces"]))
    [resource] = sent.resource_spans
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "service.name": "deployr",
        "deployment.environment.name": "DEV",
    }
    assert [span.name for span in resource.scope_spans[0].spans] == ["fetch"]
    assert b"deployr.step.duration" in gzip_or_plain(collector.bodies["/v1/metrics"])
    assert not [path for path, body in collector.bodies.items() if CANARY.encode() in gzip_or_plain(body)]


def gzip_or_plain(body):
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def read(**given):
    return read_settings(
        {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example", **given}
    ).telemetry


def test_telemetry_is_off_unless_it_is_asked_for():
    assert read() is None
    assert read(DEPLOYR_TELEMETRY="none") is None


def test_a_collector_is_taken_with_its_share():
    telemetry = read(DEPLOYR_TELEMETRY="otlp:https://collector.example:4318/", DEPLOYR_TELEMETRY_SHARE="0.25")
    assert (telemetry.protocol, telemetry.where, telemetry.share) == (
        Protocol.OTLP,
        "https://collector.example:4318",
        0.25,
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"DEPLOYR_TELEMETRY": "jaeger"}, "DEPLOYR_TELEMETRY"),
        ({"DEPLOYR_TELEMETRY": "otlp:collector"}, "DEPLOYR_TELEMETRY"),
        ({"DEPLOYR_TELEMETRY": "azure"}, "APPLICATIONINSIGHTS_CONNECTION_STRING"),
        ({"DEPLOYR_TELEMETRY_SHARE": "1.5"}, "DEPLOYR_TELEMETRY_SHARE"),
    ],
)
def test_what_is_wrong_is_named(given, name):
    with pytest.raises(SettingsInvalid, match=f"{name}: expected"):
        read(**given)


@pytest.mark.parametrize(("where", "is_weak"), [("http://collector", True), ("http://127.0.0.1:4318", False)])
def test_prod_takes_https_or_a_collector_on_this_machine(where, is_weak):
    settings = replace(SETTINGS, where=where)
    assert bool(telemetry_too_weak_for_production(settings)) is is_weak


def test_a_connection_string_that_is_none_is_refused_without_repeating_it():
    settings = replace(SETTINGS, protocol=Protocol.AZURE, where="secret-that-is-no-string")
    with pytest.raises(SettingsInvalid) as refused:
        open_telemetry(settings, clock=FakeClock(), models=dict, outputs=(), environment="DEV")
    assert "secret" not in str(refused.value)

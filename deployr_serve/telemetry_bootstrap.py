"""Puts telemetry together: providers of our own, each behind the allow-list, and one `Watch` over them.

They are never made the process's own providers: what other packages would record by themselves finds none to record
with. The allow-list holds for what does get there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from deployr_serve.adapters.telemetry import TracedWatch
from deployr_serve.adapters.telemetry_allowed import Allowed
from deployr_serve.adapters.telemetry_exporters import SCOPE, AllowedMetrics, AllowedSpans
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock
from deployr_serve.telemetry_settings import Protocol, TelemetrySettings

_EVERY_MS = 60_000
"""How often metrics are sent."""

Exporters = tuple[SpanExporter, MetricExporter]


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """What is told, and how to send the rest of it and let go."""

    watch: TracedWatch
    flush: Callable[[], object]
    close: Callable[[], object]


def open_telemetry(
    settings: TelemetrySettings,
    *,
    clock: Clock,
    models: Callable[[], Collection[str]],
    outputs: Collection[str],
    environment: str,
    site: str | None = None,
) -> Telemetry:
    """Give it; nothing is connected to before there is something to send.

    Args:
        settings: where it is sent.
        clock: durations are measured on it.
        models: gives the ids that are deployed now, and may be named.
        outputs: the ways out, which may be named.
        environment: of the EMR.
        site: whose it is, where several are served; None where it is alone.

    Raises:
        SettingsInvalid: the packages that it needs are not installed, or the connection string is none.
    """
    allowed = Allowed(models=models, outputs=outputs)
    # Not Resource.create(): that adds what stands in the environment, and the process's command line.
    whose = {} if site is None else {"service.namespace": site}
    resource = Resource({"service.name": SCOPE, "deployment.environment.name": environment, **whose})
    tracers = TracerProvider(resource=resource, sampler=TraceIdRatioBased(settings.share), shutdown_on_exit=True)
    spans, metrics = exporters_of(settings, tracers)
    tracers.add_span_processor(BatchSpanProcessor(AllowedSpans(spans, allowed=allowed, resource=resource)))
    reader = PeriodicExportingMetricReader(
        AllowedMetrics(metrics, allowed=allowed, resource=resource), export_interval_millis=_EVERY_MS
    )
    meters = MeterProvider([reader], resource=resource, exemplar_filter=AlwaysOffExemplarFilter())
    watch = TracedWatch(tracers.get_tracer(SCOPE), meters.get_meter(SCOPE), clock=clock, allowed=allowed)

    def flush() -> None:
        tracers.force_flush()
        meters.force_flush()

    def close() -> None:
        tracers.shutdown()
        meters.shutdown()

    return Telemetry(watch=watch, flush=flush, close=close)


def exporters_of(settings: TelemetrySettings, tracers: TracerProvider) -> Exporters:
    """Give what sends spans, and what sends metrics.

    Raises:
        SettingsInvalid: see `open_telemetry`.
    """
    try:
        return _otlp(settings) if settings.protocol is Protocol.OTLP else _azure(settings, tracers)
    except ImportError:
        expected = "expected the packages of deployr[telemetry]"
        raise SettingsInvalid(f"settings: DEPLOYR_TELEMETRY: {expected}") from None


def _otlp(settings: TelemetrySettings) -> Exporters:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return (
        OTLPSpanExporter(endpoint=f"{settings.where}/v1/traces"),
        OTLPMetricExporter(endpoint=f"{settings.where}/v1/metrics"),
    )


def _azure(settings: TelemetrySettings, tracers: TracerProvider) -> Exporters:
    from azure.identity import DefaultAzureCredential
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter

    options = {} if settings.identity is None else {"managed_identity_client_id": settings.identity}
    credential = DefaultAzureCredential(**options)
    told = {"connection_string": settings.where, "credential": credential, "disable_offline_storage": True}
    try:
        # Told of the provider, because it would ask the process's own for its resource.
        return AzureMonitorTraceExporter(**told, tracer_provider=tracers), AzureMonitorMetricExporter(**told)
    except ValueError:
        # Its message may repeat the connection string.
        problem = (
            "settings: APPLICATIONINSIGHTS_CONNECTION_STRING: expected a connection string of Application Insights"
        )
        raise SettingsInvalid(problem) from None

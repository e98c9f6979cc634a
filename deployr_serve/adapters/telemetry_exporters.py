"""In front of every exporter: spans and measurements as they may leave, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData, ResourceMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status

from deployr_serve.adapters.telemetry_allowed import OTHER, Allowed
from deployr_serve.core.watch import Level, Step

SCOPE = "deployr"
"""By this name our own spans and measurements are told from those of other packages."""
DURATION = "deployr.step.duration"
METRICS = frozenset({DURATION, *(f"deployr.{level.value}" for level in Level)})
_STEPS = frozenset(Step)


class AllowedSpans(SpanExporter):
    """Hands spans on with names, times and ids, and of attributes what `Allowed` lets out.

    Events go: that is where exceptions' texts stand. So do links' and contexts' trace state, and the description of a
    status. Of a span that another package made nothing is left but its time and place: its name may be an address.
    """

    def __init__(self, inner: SpanExporter, *, allowed: Allowed, resource: Resource) -> None:
        self._inner = inner
        self._allowed = allowed
        self._resource = resource

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        return self._inner.export([self._cleaned(span) for span in spans])

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter`."""
        return self._inner.force_flush(timeout_millis)

    def _cleaned(self, span: ReadableSpan) -> ReadableSpan:
        scope = span.instrumentation_scope
        ours = scope is not None and scope.name == SCOPE and span.name in _STEPS
        return ReadableSpan(
            name=span.name if ours else OTHER,
            context=_bare(span.context),
            parent=_bare(span.parent),
            resource=self._resource,
            attributes=self._allowed.again(span.attributes) if ours else {},
            kind=span.kind,
            instrumentation_scope=InstrumentationScope(SCOPE if ours else OTHER),
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
        )


class AllowedMetrics(MetricExporter):
    """Hands our own measurements on, told apart by what `Allowed` lets out; those of other packages stay here.

    Exemplars go: they carry attributes of single measurements.
    """

    def __init__(self, inner: MetricExporter, *, allowed: Allowed, resource: Resource) -> None:
        # As the reader asks for them, of any exporter.
        super().__init__(
            preferred_temporality=inner._preferred_temporality,  # noqa: SLF001
            preferred_aggregation=inner._preferred_aggregation,  # noqa: SLF001
        )
        self._inner = inner
        self._allowed = allowed
        self._resource = resource

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """See `MetricExporter`."""
        resources = [self._cleaned(each) for each in metrics_data.resource_metrics]
        return self._inner.export(MetricsData(resource_metrics=resources), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """See `MetricExporter`."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """See `MetricExporter`."""
        self._inner.shutdown(timeout_millis, **kwargs)

    def _cleaned(self, measured: ResourceMetrics) -> ResourceMetrics:
        scopes = [
            replace(
                scope,
                scope=InstrumentationScope(SCOPE),
                metrics=[self._measured(metric) for metric in scope.metrics if metric.name in METRICS],
                schema_url="",
            )
            for scope in measured.scope_metrics
            if scope.scope.name == SCOPE
        ]
        return replace(measured, resource=self._resource, scope_metrics=scopes, schema_url="")

    def _measured(self, metric: Any) -> Any:
        points = [
            replace(point, attributes=self._allowed.again(point.attributes), exemplars=())
            for point in metric.data.data_points
        ]
        return replace(metric, data=replace(metric.data, data_points=points))


def _bare(context: SpanContext | None) -> SpanContext | None:
    """Give a context without its state, in which other systems may write what they like."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, is_remote=context.is_remote, trace_flags=context.trace_flags)

"""Exporters that keep what they are given, for the tests of telemetry."""

from __future__ import annotations

from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class KeptMetrics(MetricExporter):
    """Keeps every batch of measurements; each batch tells of what was new since the one before."""

    def __init__(self):
        delta = AggregationTemporality.DELTA
        super().__init__(preferred_temporality={Counter: delta, Histogram: delta})
        self.batches = []

    def export(self, metrics_data, timeout_millis=10_000, **_):
        self.batches.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **_):
        pass

    def points(self):
        """Give each point with its metric's name."""
        return [
            (metric.name, point)
            for batch in self.batches
            for resource in batch.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


class Kept:
    """What left, once it is flushed."""

    def __init__(self):
        self.exporters = InMemorySpanExporter(), KeptMetrics()

    def spans(self):
        return self.exporters[0].get_finished_spans()

    def points(self):
        return self.exporters[1].points()

    def text(self):
        """Give everything that left, as text, with all that an exporter could read of it."""
        spans = [f"{span.to_json()} {span.context} {span.parent} {span.resource.to_json()}" for span in self.spans()]
        return "\n".join([*spans, *(batch.to_json() for batch in self.exporters[1].batches)])

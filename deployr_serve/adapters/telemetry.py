"""A `Watch` that makes OpenTelemetry spans and measurements of what it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from opentelemetry import context, trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, Tracer

from deployr_core.packet import FetchRecord
from deployr_serve.adapters.http import Request, Response, Transport
from deployr_serve.adapters.telemetry_allowed import MEASURED, PREFIX, Allowed
from deployr_serve.adapters.telemetry_exporters import DURATION
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Clock
from deployr_serve.core.watch import Level, Noted, Step, Watch

BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_MEASURED = frozenset(PREFIX + name for name in MEASURED)
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")
_A_LETTER = re.compile("[a-f]")


class _Step:
    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self.said: dict[str, str] = {}

    def note(self, **about: str) -> None:
        self.said.update(self._allowed.attributes(about))


class TracedWatch:
    """See `deployr_serve.core.watch.Watch`. Every step is a span, and a measurement of how long it took.

    Args:
        tracer: makes the spans.
        meter: takes the measurements.
        clock: durations are measured on it.
        allowed: what may be said.
    """

    is_on = True

    def __init__(self, tracer: Tracer, meter: Meter, *, clock: Clock, allowed: Allowed) -> None:
        self._tracer = tracer
        self._clock = clock
        self._allowed = allowed
        self._durations = meter.create_histogram(DURATION, unit="s", explicit_bucket_boundaries_advisory=BOUNDS_S)
        self._levels = {level: meter.create_gauge(PREFIX + level.value) for level in Level}

    @contextmanager
    def step(self, step: Step, **about: str) -> Iterator[Noted]:
        """See `Watch`."""
        started = self._clock.monotonic()
        noted = _Step(self._allowed)
        noted.note(step=step, **about)
        with self._tracer.start_as_current_span(
            step.value, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield noted
            except BaseException as error:
                if isinstance(error, ServeError):
                    noted.note(reason=error.reason)
                else:
                    noted.note(error=type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                span.set_attributes(noted.said)
                self._measure(self._clock.monotonic() - started, noted.said)

    def fetched(self, records: Sequence[FetchRecord]) -> None:
        """See `Watch`. The searches are over: their spans are made with the times at which they were."""
        for record in records:
            if record.started_at is None:
                continue
            said = self._allowed.attributes(
                {"step": Step.SEARCH, "resource": record.resource, "reason": record.error or ""}
            )
            ended_at = record.started_at + timedelta(milliseconds=record.milliseconds)
            span = self._tracer.start_span(Step.SEARCH.value, attributes=said, start_time=_ns(record.started_at))
            if record.error:
                span.set_status(StatusCode.ERROR)
            span.end(_ns(ended_at))
            self._measure(record.milliseconds / 1000, said)

    def level(self, level: Level, value: float) -> None:
        """See `Watch`."""
        self._levels[level].set(value)

    @contextmanager
    def joined(self, traceparent: str | None) -> Iterator[None]:
        """See `Watch`."""
        caller = parent_of(traceparent)
        if caller is None:
            yield
            return
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(caller)))
        try:
            yield
        finally:
            context.detach(token)

    def traceparent(self) -> str | None:
        """See `Watch`; both ids were drawn by chance, here or by a caller."""
        at = trace.get_current_span().get_span_context()
        return f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}" if at.is_valid else None

    def _measure(self, seconds: float, said: dict[str, str]) -> None:
        self._durations.record(seconds, {name: value for name, value in said.items() if name in _MEASURED})


class NamingTransport:
    """A `Transport` that tells the server of which trace a request is a part, by ``traceparent`` alone.

    ``tracestate`` and ``baggage`` are never sent: they could carry anything.
    """

    def __init__(self, inner: Transport, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    async def send(self, request: Request) -> Response:
        """See `Transport`."""
        named = self._watch.traceparent()
        if named is not None:
            request = replace(request, headers={**request.headers, "traceparent": named})
        return await self._inner.send(request)


def parent_of(traceparent: str | None) -> SpanContext | None:
    """Give the span that a caller names, or None where it names none that can be taken on.

    An id of decimal digits alone may be somebody's number, padded: it is not taken on. Of ids drawn by chance that
    costs one span id in 1,800. Whether the caller keeps its own trace does not decide whether we keep ours.

    Source: W3C Trace Context, section 3.2.2, version 00.
    """
    found = _TRACEPARENT.match(traceparent or "")
    if found is None or not all(_A_LETTER.search(each) for each in found.groups()):
        return None
    trace_id, span_id = (int(each, 16) for each in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000

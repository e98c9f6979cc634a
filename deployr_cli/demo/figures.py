"""What the demo measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
import numpy as np

from deployr_core.bundle import Estimate
from deployr_core.metrics import NotMeasurable, auroc_interval
from deployr_core.packet import Delivery, DeliveryState, InferencePacket, Label, Observed, Scored


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Latency(_Figures, frozen=True, kw_only=True):
    """Milliseconds from sending an order to having its answer, as its caller saw them."""

    p50: float
    p95: float


class ParityFigures(_Figures, frozen=True, kw_only=True):
    """Features compared between the packets (over FHIR) and the warehouse, and how many were the same to the bit."""

    orders: int
    features_compared: int
    features_equal: int


class Rerun(_Figures, frozen=True, kw_only=True):
    """What the same replay, done again, added. It must add nothing."""

    new_packets: int
    new_labels: int
    new_writes: int


class DemoFigures(_Figures, frozen=True, kw_only=True):
    """The figures that ``--json`` writes. ``failed``: orders that got no score. ``unfinished``: records left open."""

    inferences: int
    failed: int
    unfinished: int
    labels_observed: int
    labels_censored: int
    score_rows: int
    auroc_retrospective: Estimate
    auroc_prospective: Estimate | None
    latency_ms: Latency
    parity: ParityFigures
    rerun: Rerun

    @property
    def complaints(self) -> tuple[str, ...]:
        """Say what went wrong, in words; empty if nothing did."""
        checks = (
            (self.inferences > 0, "no inference was made"),
            (self.failed == 0, f"{self.failed} orders got no score"),
            (self.unfinished == 0, f"{self.unfinished} packets or deliveries were left unfinished"),
            (self.labels_observed > 0, "no label was observed"),
            (self.auroc_prospective is not None, "the prospective AUROC could not be measured"),
            (self.rerun == Rerun(new_packets=0, new_labels=0, new_writes=0), "the second run added something"),
        )
        return tuple(complaint for is_fine, complaint in checks if not is_fine)


def prospective_auroc(packets: Sequence[InferencePacket], labels: Sequence[Label], *, seed: int) -> Estimate | None:
    """Measure scored packets against their observed labels; None where the labels cannot carry it."""
    observed = {
        label.packet_id: label.outcome.value
        for label in labels
        if isinstance(label.outcome, Observed) and isinstance(label.outcome.value, float)
    }
    rows = [
        (observed[packet.packet_id], packet.outcome.score, packet.subject.patient_id)
        for packet in packets
        if isinstance(packet.outcome, Scored) and packet.packet_id in observed
    ]
    if not rows:
        return None
    values, scores, patients = zip(*rows, strict=True)
    _, patient_numbers = np.unique(np.array(patients), return_inverse=True)
    try:
        interval = auroc_interval(
            np.array(values), np.array(scores), patient_numbers, rng=np.random.default_rng(seed), resamples=1000
        )
    except NotMeasurable:
        return None
    return Estimate(value=interval.value, low=interval.low, high=interval.high)


def unfinished(packets: Sequence[InferencePacket], deliveries: Sequence[Delivery | None]) -> int:
    """Count packets without a terminal state, and deliveries that did not arrive or are not there."""
    open_packets = sum(not packet.is_terminal for packet in packets)
    return open_packets + sum(delivery is None or delivery.state is not DeliveryState.SENT for delivery in deliveries)


def latency(milliseconds: Sequence[float]) -> Latency:
    """Give the median and the 95th percentile."""
    ordered = sorted(milliseconds)
    return Latency(p50=round(statistics.median(ordered), 2), p95=round(ordered[int(len(ordered) * 0.95)], 2))

"""What is kept of a measurement of several hosts, in benchmarks/scale_out.json; the capacity plan rests on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks.scale_drill import Scaled
from benchmarks.scale_hosts import HOSTS
from benchmarks.scale_load import Phase
from benchmarks.scale_order import Order

_IDLE_LOAD = 0.5
RESULTS = Path(__file__).parent / "scale_out.json"


class PhaseKept(msgspec.Struct, frozen=True, kw_only=True):
    """One phase: scores a second, times to the score in ms, and processor time of an inference, in ms, by process."""

    requests: int
    a_second: float
    p50_ms: float
    p95_ms: float
    slowest_ms: float
    processor_ms: dict[str, float]
    refusals: dict[str, int]


class BatchKept(msgspec.Struct, frozen=True, kw_only=True):
    """The slot: patients a second, and processor time of a patient, in ms, by process."""

    patients: int
    chunks: int
    put_twice: int
    a_second: float
    processor_ms: dict[str, float]


class OrderKept(msgspec.Struct, frozen=True, kw_only=True):
    """See `benchmarks.scale_order.Order`."""

    models: int
    processor_ms: float
    calls: dict[str, float]
    sent_bytes: dict[str, float]


class HouseKept(msgspec.Struct, frozen=True, kw_only=True):
    """See `benchmarks.scale_drill.Scaled`. ``lost`` and ``twice`` are of packets and of scores in the EMR."""

    hosts: int
    calm: PhaseKept
    most: PhaseKept | None
    killed: PhaseKept
    kills: int
    idle_s: dict[str, float]
    batch: BatchKept
    wanted: int
    lost: int
    twice: int
    sent_again: int
    taken_over: int
    memory_mb: float
    emr_calls: float


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement. ``load_before``: the machine's load before it began, on so many ``cores``."""

    cores: int
    load_before: float
    houses: tuple[HouseKept, ...]
    orders: tuple[OrderKept, ...]

    @property
    def was_busy(self) -> bool:
        """Tell whether the machine did something else at the same time."""
        return self.load_before > _IDLE_LOAD * self.cores


def kept(scaled: Iterable[Scaled], *, cores: int, load_before: float) -> Kept:
    """Give what is kept."""
    scaled = tuple(scaled)
    return Kept(
        cores=cores,
        load_before=round(load_before, 2),
        houses=tuple(_house(each) for each in scaled),
        orders=tuple(_order(order) for each in scaled for order in each.orders),
    )


def read_kept(file: Path = RESULTS) -> Kept:
    """Give the last measurement."""
    return msgspec.json.decode(file.read_bytes(), type=Kept)


def write_kept(measured: Kept, file: Path = RESULTS) -> None:
    """Keep a measurement."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")


def a_host_second(phase: PhaseKept) -> float:
    """Give how many inferences the hosts make with a second of processor time of theirs."""
    return 1000 / phase.processor_ms[HOSTS]


def _house(each: Scaled) -> HouseKept:
    batch, counts = each.batch, each.counts
    return HouseKept(
        hosts=each.hosts,
        calm=_phase(each.calm),
        most=None if each.most is None else _phase(each.most),
        killed=_phase(each.killed),
        kills=each.kills,
        idle_s={name: round(used, 4) for name, used in each.idle_s.items()},
        batch=BatchKept(
            patients=batch.patients,
            chunks=batch.chunks,
            put_twice=batch.put_twice,
            a_second=round(batch.patients / batch.seconds, 2),
            processor_ms={name: round(used / batch.patients * 1000, 2) for name, used in batch.used_s.items()},
        ),
        wanted=counts.wanted,
        lost=counts.lost,
        twice=counts.twice + counts.written_twice,
        sent_again=counts.sent_again,
        taken_over=sum(counts.taken_over.values()),
        memory_mb=round(each.memory_mb, 1),
        emr_calls=round(each.emr_calls, 2),
    )


def _phase(phase: Phase) -> PhaseKept:
    return PhaseKept(
        requests=len(phase.answers),
        a_second=round(phase.a_second, 2),
        p50_ms=round(phase.percentile_ms(50), 1),
        p95_ms=round(phase.percentile_ms(95), 1),
        slowest_ms=round(max(each.latency_ms for each in phase.answers), 1),
        processor_ms={name: round(used / len(phase.answers) * 1000, 2) for name, used in phase.used_s.items()},
        refusals=dict(phase.refusals),
    )


def _order(order: Order) -> OrderKept:
    return OrderKept(
        models=order.models,
        processor_ms=round(order.processor_ms, 2),
        calls=dict(order.calls),
        sent_bytes=dict(order.sent_bytes),
    )

"""What the tests of label extraction share: an EMR whose patients' outcomes are given, and models by their rules."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from deployr_core.label_rules import outputs_of
from deployr_serve.core.outcome_source import OutcomeFacts


class FakeOutcomes:
    """What has become of each patient; an exception is raised. ``costs_s`` of the clock's time is what a read takes."""

    def __init__(self, *, costs_s=0.0, clock=None, **patients):
        self.patients = patients
        self._costs_s = costs_s
        self._clock = clock
        self.asked = []
        self.lanes = set()
        self.underway = self.peak = 0

    async def outcomes(self, patient_id, needs, *, budget=None):
        self.asked.append((patient_id, needs))
        self.lanes.add(budget.lane)
        self.underway += 1
        self.peak = max(self.peak, self.underway)
        await asyncio.sleep(0)
        self.underway -= 1
        if self._clock is not None:
            self._clock.pass_time(self._costs_s)
        found = self.patients.get(patient_id, OutcomeFacts())
        if isinstance(found, BaseException):
            raise found
        return found


@pytest.fixture
def outcomes_of():
    return FakeOutcomes


@pytest.fixture
def abnormal(lab_of, now):
    """Give a function that makes the outcome of an order: drawn 1 h and released 2 h after it, under its range."""

    def make(order_id, *, after=timedelta(0), **changes):
        return lab_of(
            **{
                "fact_id": f"lab-{order_id}",
                "at": now + after + timedelta(hours=1),
                "known_at": now + after + timedelta(hours=2),
                "reference_low": 35.0,
                "reference_high": 47.0,
                "order_id": order_id,
                **changes,
            }
        )

    return make


@pytest.fixture
def with_rule(bundle):
    """Give a function that gives the bundle with another label rule."""

    def make(rule, **outputs):
        task = msgspec.structs.replace(bundle.manifest.task, rule=rule, outputs=outputs_of(rule, **outputs))
        means = dict.fromkeys(task.outputs.names, 0.5)
        manifest = msgspec.structs.replace(
            bundle.manifest,
            task=task,
            training=msgspec.structs.replace(bundle.manifest.training, label_means=means),
            evaluation=msgspec.structs.replace(bundle.manifest.evaluation, label_means=means),
        )
        return msgspec.structs.replace(bundle, manifest=manifest)

    return make


@pytest.fixture
def services(services_of):
    return services_of()


@pytest.fixture
def store_packets(services, packet_of):
    async def run(*packets):
        for packet in packets:
            await services.store.create(packet)

    return run

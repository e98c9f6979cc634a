"""Two workers on one store: whatever is asked of both at once is answered, assigned and written once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from deployr_core.packet import Mode
from deployr_core.trial import Arm, PermutedBlocks, RandomizationUnit, Trial
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.deciding import ADVISED, ASSIGNMENT, STRATUM
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy, Suppression

REQUESTS = 50


def policy_of(*, arms):
    trial = Trial(
        trial_id="t",
        version=1,
        unit=RandomizationUnit.PATIENT,
        arms=arms,
        method=PermutedBlocks(sizes=(2, 4)),
    )
    return Policy(
        schema_version=1,
        model="hematocrit",
        mode=Mode.TRIAL,
        threshold=0.5,
        trial=trial,
        suppression=Suppression(hours=24),
    )


BOTH_SHOW = (Arm(name="short", shows=True), Arm(name="long", shows=True))
HALF_SHOW = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))


@pytest.fixture
async def two_workers(services_of, output_of, tmp_path):
    """Give a function that makes the services of two workers, each with its own connection to the one file."""
    stores = [SqliteStore(tmp_path / "store.sqlite") for _ in range(2)]

    def make(policy):
        emr = output_of()
        workers = [services_of(store=store, outputs=(emr,), policies=(policy,), deadline_s=60.0) for store in stores]
        return workers, emr

    yield make
    for store in stores:
        await store.aclose()


async def test_fifty_identical_requests_make_one_packet_one_assignment_and_one_write(two_workers, request_of, now):
    workers, emr = two_workers(policy_of(arms=BOTH_SHOW))
    answers = await asyncio.gather(*(infer(request_of(), workers[n % 2]) for n in range(REQUESTS)))
    assert len({answer.packet.packet_id for answer in answers}) == 1
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: REQUESTS - 1}
    assert len({answer.packet.outcome.decision.assignment.arm for answer in answers}) == 1
    store = workers[0].store
    assert len(await store.packets(model_id="hematocrit", after=None, limit=10)) == 1
    assert [len(await store.records(kind, now=now)) for kind in (ASSIGNMENT, STRATUM, ADVISED)] == [1, 1, 1]
    assert len(emr.sent) == 1


async def test_fifty_orders_of_one_patient_are_in_one_arm_and_one_of_them_is_advised(two_workers, request_of, now):
    workers, emr = two_workers(policy_of(arms=BOTH_SHOW))
    answers = await asyncio.gather(*(infer(request_of(order_id=f"o{n}"), workers[n % 2]) for n in range(REQUESTS)))
    decisions = [answer.packet.outcome.decision for answer in answers]
    assert len({decision.assignment.arm for decision in decisions}) == 1
    assert Counter(decision.why for decision in decisions) == {"advised": 1, "suppressed-recently": REQUESTS - 1}
    assert len(emr.sent) == 1
    assert len(await workers[0].store.records(ASSIGNMENT, now=now)) == 1


async def test_fifty_patients_get_fifty_places_and_stay_balanced(two_workers, request_of, now):
    workers, emr = two_workers(policy_of(arms=HALF_SHOW))
    answers = await asyncio.gather(
        *(infer(request_of(patient_id=f"p{n}"), workers[n % 2]) for n in range(REQUESTS)),
    )
    arms = Counter(answer.packet.outcome.decision.assignment.arm for answer in answers)
    # Blocks of at most 4: no more than 2 apart from the half, wherever the last one was cut.
    assert abs(arms["control"] - REQUESTS // 2) <= 2
    assert len(emr.sent) == arms["advisory"]
    [counter] = (await workers[1].store.records(STRATUM, now=now)).values()
    assert counter.content == b'{"taken":50}'

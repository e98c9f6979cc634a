"""The process dies while it decides: the unit still has one arm, the advisory is still given once."""

from __future__ import annotations

import pytest

from deployr_core.packet import DeliveryState, Mode, Scored
from deployr_core.trial import Arm, PermutedBlocks, RandomizationUnit, Trial
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.deciding import ADVISED, ASSIGNMENT, STRATUM
from deployr_serve.core.deliver import relay
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy, Suppression

LEASE_S = 16.0
POLICY = Policy(
    schema_version=1,
    model="hematocrit",
    mode=Mode.TRIAL,
    threshold=0.5,
    trial=Trial(
        trial_id="t",
        version=1,
        unit=RandomizationUnit.PATIENT,
        arms=(Arm(name="short", shows=True), Arm(name="long", shows=True)),
        method=PermutedBlocks(sizes=(2, 4)),
    ),
    suppression=Suppression(hours=24),
)


class Killed(BaseException):
    """The process is gone: nothing that catches Exception runs any more."""


class DyingRecords:
    """Dies before or after a record of one kind is made."""

    def __init__(self, store, kind, when):
        self._store, self._kind, self._when = store, kind, when

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def create_record(self, kind, record_id, content, *, now, expires_at=None):
        if kind == self._kind and self._when == "before":
            raise Killed
        made = await self._store.create_record(kind, record_id, content, now=now, expires_at=expires_at)
        if kind == self._kind:
            raise Killed
        return made


@pytest.fixture
async def open_store(tmp_path):
    """Give a function that opens the one file, as a process does that has just started."""
    opened = []

    def make():
        opened.append(SqliteStore(tmp_path / "store.sqlite"))
        return opened[-1]

    yield make
    for store in opened:
        await store.aclose()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [STRATUM, ASSIGNMENT, ADVISED])
async def test_wherever_it_dies_there_is_one_arm_one_advisory_and_one_score(
    services_of, request_of, output_of, open_store, clock, now, kind, when
):
    emr, store = output_of(), open_store()
    dying = services_of(store=store, records=DyingRecords(store, kind, when), outputs=(emr,), policies=(POLICY,))
    with pytest.raises(Killed):
        await infer(request_of(), dying)
    assert emr.sent == []
    held = [record.content for record in (await store.records(ASSIGNMENT, now=now)).values()]

    clock.pass_time(LEASE_S + 1)
    services = services_of(store=open_store(), outputs=(emr,), policies=(POLICY,))
    answer = await infer(request_of(), services)
    clock.pass_time(61)
    await relay(store=services.store, models=services.models, outputs=(emr,), clock=clock, switches=services.switches)
    assert isinstance(answer.packet.outcome, Scored)
    decision = answer.packet.outcome.decision
    assert (decision.why, decision.advise) == ("advised", True)
    stored = [record.content for record in (await services.store.records(ASSIGNMENT, now=now)).values()]
    assert len(stored) == 1
    assert held in ([], stored)
    [delivery] = emr.scores
    assert (await services.store.read_delivery(delivery)).state is DeliveryState.SENT
    other = await infer(request_of(order_id="o2"), services)
    assert other.packet.outcome.decision.why == "suppressed-recently"
    assert other.packet.outcome.decision.assignment.arm == decision.assignment.arm
    [counter] = (await services.store.records(STRATUM, now=now)).values()
    # A place that nobody got an arm for is wasted, and only that.
    wasted = {(STRATUM, "after"), (ASSIGNMENT, "before")}
    assert counter.content == (b'{"taken":2}' if (kind, when) in wasted else b'{"taken":1}')

"""The process dies at any point of an inference; after a restart the evidence is whole and the EMR has one score."""

from __future__ import annotations

import pytest

from deployr_core.packet import DeliveryState, Scored
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.deliver import relay
from deployr_serve.core.infer import infer

LEASE_S = 16.0


class Killed(BaseException):
    """The process is gone: nothing that catches Exception runs any more."""


class Dying:
    """Passes calls on to what it wraps, and dies before or after the first call of one method."""

    def __init__(self, wrapped, method, when):
        self._wrapped = wrapped
        self._method = method
        self._when = when

    def __getattr__(self, name):
        found = getattr(self._wrapped, name)
        if name != self._method:
            return found

        async def die(*arguments, **named):
            if self._when == "before":
                raise Killed
            await found(*arguments, **named)
            raise Killed

        return die


POINTS = [
    (kind, method, when)
    for kind, method in (("store", "create"), ("store", "replace"), ("output", "send"), ("store", "save_delivery"))
    for when in ("before", "after")
]


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


@pytest.fixture
def die_at(services_of, request_of, open_store):
    """Give a function that asks once, and dies at that point."""

    async def run(kind, method, when, *, output, source=None):
        store = open_store()
        services = services_of(
            store=Dying(store, method, when) if kind == "store" else store,
            outputs=(Dying(output, method, when) if kind == "output" else output,),
            source=Dying(source, method, when) if kind == "source" else source,
        )
        with pytest.raises(Killed):
            await infer(request_of(), services)
        await store.aclose()

    return run


async def run_relay(services):
    await relay(
        store=services.store,
        models=services.models,
        outputs=services.outputs,
        clock=services.clock,
        switches=services.switches,
    )


async def settled(services, request):
    """Ask again and let the relay run, twice, as time goes by; give the last answer."""
    answer = None
    for _ in range(2):
        answer = await infer(request, services)
        services.clock.pass_time(61)
        await run_relay(services)
    return answer


@pytest.mark.parametrize(("kind", "method", "when"), POINTS, ids=["-".join(point) for point in POINTS])
async def test_wherever_the_process_dies_there_is_one_packet_and_one_score(
    services_of, request_of, output_of, open_store, die_at, clock, kind, method, when
):
    emr = output_of()
    await die_at(kind, method, when, output=emr)
    clock.pass_time(LEASE_S + 1)
    services = services_of(store=open_store(), outputs=(emr,))
    answer = await settled(services, request_of())
    [packet] = await services.store.packets(model_id="hematocrit", after=None, limit=10)
    assert packet == answer.packet
    assert isinstance(packet.outcome, Scored)
    delivery = await services.store.read_delivery(f"{packet.packet_id}.score-column")
    assert delivery.state is DeliveryState.SENT
    assert set(emr.sent) == {delivery.delivery_id}
    assert emr.scores == {delivery.delivery_id: 3 / 4}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_process_that_dies_while_fetching_leaves_nothing_but_its_claim(
    services_of, request_of, output_of, open_store, die_at, source_of, fetched_of, lab_of, clock, when
):
    emr = output_of()
    await die_at("source", "fetch", when, output=emr, source=source_of(fetched_of(lab_of())))
    clock.pass_time(LEASE_S + 1)
    services = services_of(store=open_store(), outputs=(emr,))
    answer = await settled(services, request_of())
    assert [attempt.reason for attempt in answer.packet.earlier_attempts] == ["lease-expired"]
    assert list(emr.scores.values()) == [3 / 4]


@pytest.mark.parametrize(
    ("kind", "method", "when", "stored", "sends"),
    [
        ("store", "create", "before", None, 0),
        ("store", "create", "after", "Received", 0),
        ("store", "replace", "before", "Received", 0),
        ("store", "replace", "after", "Scored", 0),
        ("output", "send", "before", "Scored", 0),
        ("output", "send", "after", "Scored", 1),
        ("store", "save_delivery", "before", "Scored", 1),
        ("store", "save_delivery", "after", "Scored", 1),
    ],
)
async def test_at_the_moment_of_death_no_score_is_in_the_emr_without_its_packet(
    output_of, open_store, die_at, kind, method, when, stored, sends
):
    emr = output_of()
    await die_at(kind, method, when, output=emr)
    packets = await open_store().packets(model_id="hematocrit", after=None, limit=10)
    assert [type(packet.outcome).__name__ for packet in packets] == ([stored] if stored else [])
    assert len(emr.sent) == sends


async def test_a_relay_that_dies_after_sending_sends_the_same_delivery_again(
    services_of, request_of, output_of, open_store, die_at, clock
):
    emr = output_of()
    await die_at("output", "send", "before", output=emr)
    clock.pass_time(61)
    dying = services_of(store=open_store(), outputs=(Dying(emr, "send", "after"),))
    with pytest.raises(Killed):
        await run_relay(dying)
    services = services_of(store=open_store(), outputs=(emr,))
    await settled(services, request_of())
    [packet] = await services.store.packets(model_id="hematocrit", after=None, limit=10)
    assert emr.sent == [f"{packet.packet_id}.score-column"] * 2
    assert emr.scores == {f"{packet.packet_id}.score-column": 3 / 4}

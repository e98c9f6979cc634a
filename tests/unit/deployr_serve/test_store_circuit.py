"""A dead store is left alone, tried out by nobody's request, and used again as soon as it is back."""

from __future__ import annotations

import asyncio

import pytest

from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.store_circuit import in_circuit
from deployr_serve.core.errors import RecordChanged, StoreUnavailable


class Down(MemoryStore):
    """Counts its calls, and answers none while it is down."""

    def __init__(self):
        super().__init__()
        self.is_down, self.hangs, self.calls = True, False, []

    async def _answer(self, name):
        self.calls.append(name)
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_down:
            raise StoreUnavailable("expected a store that can be read and written", why="throttled")

    async def read(self, packet_id):
        await self._answer("read")
        return await super().read(packet_id)

    async def packets(self, **named):
        await asyncio.sleep(0)
        return await super().packets(**named)

    async def check(self):
        await self._answer("check")


@pytest.fixture
async def opened(clock):
    """Give a store behind a circuit that three failures in a row have opened."""
    inner = Down()
    store = in_circuit(inner, clock=clock, within_s=60.0)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.read("p01")
    yield store, inner
    await store.aclose()


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("expected it to happen")


async def test_three_failures_in_a_row_spare_the_others_the_waiting(opened):
    store, inner = opened
    asked = inner.calls.count("read")
    with pytest.raises(StoreUnavailable, match="its circuit is open") as caught:
        await store.read("p01")
    assert (inner.calls.count("read"), caught.value.why) == (asked, "throttled") == (3, "throttled")


async def test_an_open_circuit_is_told_to_the_operator_once(opened, caplog):
    _, _ = opened
    assert [record.getMessage() for record in caplog.get_records("setup")] == ["alert=store-unavailable"]


async def test_the_store_is_used_again_as_soon_as_it_can_be_written_to(opened):
    store, inner = opened
    await until(lambda: inner.calls.count("check") > 2)
    with pytest.raises(StoreUnavailable):
        await store.read("p01")
    inner.is_down = False
    checks = inner.calls.count("check")
    await until(lambda: inner.calls.count("check") > checks)
    await asyncio.sleep(0)
    assert await store.read("p01") is None


async def test_one_answer_between_failures_keeps_the_circuit_closed(clock):
    inner = Down()
    store = in_circuit(inner, clock=clock, within_s=60.0)
    for is_down in (True, True, False, True, True):
        inner.is_down = is_down
        try:
            await store.read("p01")
        except StoreUnavailable:
            assert is_down
    inner.is_down = False
    assert await store.read("p01") is None
    await store.aclose()


async def test_a_refusal_by_the_store_is_an_answer(clock, packet_of):
    store = in_circuit(MemoryStore(), clock=clock, within_s=60.0)
    for _ in range(10):
        with pytest.raises(RecordChanged):
            await store.replace(packet_of(), etag="1")
    assert await store.read("p01") is None
    await store.aclose()


async def test_a_store_that_hangs_is_waited_for_no_longer_than_allowed(clock):
    inner = Down()
    inner.hangs = True
    store = in_circuit(inner, clock=clock, within_s=0.001)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="within its share of the deadline"):
            await store.read("p01")
    with pytest.raises(StoreUnavailable, match="its circuit is open"):
        await store.read("p01")
    await store.aclose()


async def test_reading_through_many_may_take_longer(clock):
    store = in_circuit(Down(), clock=clock, within_s=0.0)
    assert await store.packets(model_id="hematocrit", after=None, limit=10) == ()
    await store.aclose()

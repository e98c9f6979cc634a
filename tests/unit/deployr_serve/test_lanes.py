"""Who gets a connection, and who waits for one."""

from __future__ import annotations

import asyncio

import pytest

from deployr_serve.adapters.lanes import Lanes
from deployr_serve.core.errors import EmrThrottled, EmrTimeout
from deployr_serve.core.ports import Lane

CLICK, BATCH = Lane.CLICK, Lane.BATCH


@pytest.fixture
def lanes_of(clock):
    def make(connections, batch_connections, **options):
        return Lanes(connections=connections, batch_connections=batch_connections, clock=clock, **options)

    return make


@pytest.fixture
def enter(clock):
    """Give a function that begins to wait for a slot, and comes back when nothing more happens by itself."""

    async def start(lanes, lane, *, within_s=60.0):
        task = asyncio.ensure_future(lanes.enter(lane, deadline=clock.monotonic() + within_s))
        await _settle()
        return task

    return start


async def _settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def ends(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_batch_takes_its_own_share_and_no_more(lanes_of, enter):
    lanes = lanes_of(4, 2)
    batch = [await enter(lanes, BATCH) for _ in range(3)]
    assert [task.done() for task in batch] == [True, True, False]
    clicks = [await enter(lanes, CLICK) for _ in range(3)]
    assert [task.done() for task in clicks] == [True, True, False]
    await ends(*batch, *clicks)


async def test_clicks_may_take_all(lanes_of, enter):
    lanes = lanes_of(3, 2)
    clicks = [await enter(lanes, CLICK) for _ in range(3)]
    batch = await enter(lanes, BATCH)
    assert [task.done() for task in clicks] == [True] * 3
    assert not batch.done()
    await ends(batch)


async def test_a_slot_that_comes_free_goes_to_a_click_before_a_batch_that_waits_longer(lanes_of, enter):
    lanes = lanes_of(2, 1)
    held = [await enter(lanes, CLICK), await enter(lanes, CLICK)]
    batch, click = await enter(lanes, BATCH), await enter(lanes, CLICK)
    assert all(task.done() for task in held)
    lanes.leave(CLICK)
    await _settle()
    assert (batch.done(), click.done()) == (False, True)
    lanes.leave(CLICK)
    await _settle()
    assert batch.done()


async def test_within_a_lane_the_one_who_waits_longest_comes_first(lanes_of, enter):
    lanes = lanes_of(2, 1)
    await enter(lanes, BATCH)
    first, second = await enter(lanes, BATCH), await enter(lanes, BATCH)
    lanes.leave(BATCH)
    await _settle()
    assert (first.done(), second.done()) == (True, False)
    await ends(second)


async def test_waiting_ends_at_the_deadline_and_leaves_the_line(lanes_of, enter):
    lanes = lanes_of(1, 1)
    await enter(lanes, CLICK)
    late = await enter(lanes, CLICK, within_s=0.02)
    patient = await enter(lanes, CLICK)
    with pytest.raises(EmrTimeout):
        await late
    lanes.leave(CLICK)
    await _settle()
    assert patient.done()


async def test_a_deadline_that_has_passed_is_not_waited_for(lanes_of, enter):
    lanes = lanes_of(1, 1)
    await enter(lanes, CLICK)
    with pytest.raises(EmrTimeout):
        await (await enter(lanes, CLICK, within_s=-1.0))


async def test_when_too_many_wait_one_more_is_turned_away_at_once(lanes_of, enter):
    lanes = lanes_of(2, 1, most_waiting=2)
    batch = [await enter(lanes, BATCH) for _ in range(3)]
    with pytest.raises(EmrThrottled):
        await (await enter(lanes, BATCH))
    assert (await enter(lanes, CLICK)).done()  # the lines are apart
    clicks = [await enter(lanes, CLICK) for _ in range(2)]
    with pytest.raises(EmrThrottled):
        await (await enter(lanes, CLICK))
    await ends(*batch, *clicks)


async def test_one_who_goes_away_while_waiting_loses_no_slot(lanes_of, enter):
    lanes = lanes_of(1, 1)
    await enter(lanes, CLICK)
    gone, patient = await enter(lanes, CLICK), await enter(lanes, CLICK)
    await ends(gone)
    lanes.leave(CLICK)
    await _settle()
    assert patient.done()


@pytest.mark.parametrize("gone_first", [True, False], ids=["gone, then given", "given, then gone"])
async def test_one_who_goes_away_as_the_slot_is_given_passes_it_on(lanes_of, enter, gone_first):
    lanes = lanes_of(1, 1)
    await enter(lanes, CLICK)
    gone, next_one = await enter(lanes, CLICK), await enter(lanes, CLICK)
    for step in (gone.cancel, lambda: lanes.leave(CLICK))[:: 1 if gone_first else -1]:
        step()
    await _settle()
    assert gone.cancelled()
    assert next_one.done()
    lanes.leave(CLICK)
    assert (await enter(lanes, CLICK)).done()

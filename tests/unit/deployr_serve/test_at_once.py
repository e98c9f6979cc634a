"""What may be done at once is awaited without a timer; what waits is bounded, cancelled and told of as by ``await``."""

from __future__ import annotations

import asyncio

import pytest

from deployr_serve.adapters.at_once import within


async def test_what_never_waits_sets_no_timer(monkeypatch):
    def no_timer(_):
        raise AssertionError("expected no timer")

    async def work():
        return 7

    monkeypatch.setattr(asyncio, "timeout", no_timer)
    assert await within(work(), 1.0) == 7


async def test_what_fails_at_once_fails_as_it_is():
    async def work():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await within(work(), 1.0)


async def test_what_waits_several_times_gives_what_it_came_to():
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))

    async def work():
        return await first + await asyncio.shield(second)

    task = asyncio.ensure_future(within(work(), None))
    await asyncio.sleep(0)
    first.set_result(1)
    await asyncio.sleep(0)
    second.set_result(2)
    assert await task == 3


async def test_an_error_that_is_waited_for_reaches_the_work():
    failing = asyncio.get_running_loop().create_future()

    async def work():
        try:
            await failing
        except KeyError:
            return "met"

    task = asyncio.ensure_future(within(work(), None))
    await asyncio.sleep(0)
    failing.set_exception(KeyError("gone"))
    assert await task == "met"


async def test_what_takes_too_long_is_ended():
    ended = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        await within(work(), 0.0)
    assert ended == [True]


async def test_a_cancellation_reaches_the_work_which_may_finish_first():
    begun, allowed = asyncio.Event(), asyncio.get_running_loop().create_future()
    done = []

    async def work():
        try:
            begun.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await allowed
            done.append("cleaned up")
            raise

    task = asyncio.ensure_future(within(work(), None))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    allowed.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["cleaned up"]

"""How often a caller may ask, how it proves who it is, and what it is answered in time."""

from __future__ import annotations

import asyncio
import base64

import pytest

from deployr_serve.core.allowance import Allowance
from deployr_serve.core.basic import basic_caller
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import InProgress
from deployr_serve.core.in_time import InTime
from deployr_serve.triggers.correlation import correlation_id

CALLERS = {"epic": "correct horse battery", "zoë": "pässword of 16 letters"}


def test_a_caller_may_ask_its_burst_at_once_and_then_as_its_rate_allows():
    allowance = Allowance(per_s=2.0, burst=3)
    assert [allowance.wait_s("a", now=100.0) for _ in range(4)] == [0, 0, 0, 1]
    # Half a second brings one request, at two a second.
    assert [allowance.wait_s("a", now=100.5) for _ in range(2)] == [0, 1]


def test_a_long_pause_brings_no_more_than_the_burst():
    allowance = Allowance(per_s=2.0, burst=3)
    allowance.wait_s("a", now=0.0)
    assert [allowance.wait_s("a", now=1000.0) for _ in range(4)] == [0, 0, 0, 1]


def test_one_callers_flood_is_no_other_callers():
    allowance = Allowance(per_s=0.1, burst=1)
    assert [allowance.wait_s("a", now=0.0), allowance.wait_s("a", now=0.0), allowance.wait_s("b", now=0.0)] == [
        0,
        10,
        0,
    ]


@pytest.mark.parametrize("user", CALLERS)
def test_a_caller_is_known_by_its_own_password_alone(user):
    for password in CALLERS.values():
        header = "basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if password == CALLERS[user]:
            assert basic_caller(header, CALLERS) == user
        else:
            with pytest.raises(CallerRefused):
                basic_caller(header, CALLERS)


def test_without_callers_nobody_is_known():
    with pytest.raises(CallerRefused):
        basic_caller("Basic " + base64.b64encode(b":").decode(), {})


@pytest.mark.parametrize("given", [None, "", "a b", "a\n", "é", "x" * 65, "a;b"])
def test_a_correlation_id_that_is_not_fit_for_a_log_is_replaced(given):
    assert correlation_id(given, fresh=lambda: "fresh") == "fresh"


def test_a_correlation_id_that_is_fit_is_kept():
    assert correlation_id("Alert-1_2.3", fresh=lambda: "fresh") == "Alert-1_2.3"


async def test_work_that_is_done_in_time_gives_its_answer_or_its_error():
    async def work(error=None):
        if error is not None:
            raise error
        return 1

    in_time = InTime()
    assert await in_time.wait(work(), within_s=5) == 1
    with pytest.raises(KeyError):
        await in_time.wait(work(KeyError("a")), within_s=5)


async def test_work_that_is_not_done_in_time_goes_on():
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work():
        await go_on.wait()
        done.set()

    in_time = InTime()
    with pytest.raises(InProgress):
        await in_time.wait(work(), within_s=0.01)
    go_on.set()
    async with asyncio.timeout(5):
        await done.wait()

"""Builders that the unit tests of the local host share."""

import inspect

import pytest

from deployr_serve.local_host.keys import AuthLevel
from deployr_serve.local_host.loading import HttpFunction, TimerFunction


async def _nothing(req):
    return None


@pytest.fixture
def http_function():
    def build(route="models", *, name="infer", methods=None, call=_nothing, takes_context=False):
        return HttpFunction(
            name=name,
            route=route,
            methods=methods and frozenset(methods),
            auth_level=AuthLevel.ANONYMOUS,
            call=call,
            parameter="req",
            takes_context=takes_context,
            is_async=inspect.iscoroutinefunction(call),
        )

    return build


@pytest.fixture
def timer_function():
    def build(call, *, run_on_startup=False, use_monitor=True):
        return TimerFunction(
            name="nightly",
            schedule="see the test",
            run_on_startup=run_on_startup,
            use_monitor=use_monitor,
            call=call,
            parameter="timer",
            takes_context=False,
            is_async=inspect.iscoroutinefunction(call),
        )

    return build

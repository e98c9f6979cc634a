"""Awaiting what may be done at once."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

_T = TypeVar("_T")


async def within(work: Coroutine[Any, Any, _T], limit_s: float | None) -> _T:
    """Await the work for no longer than that; what never waits for anything costs no timer.

    Raises:
        TimeoutError: it waited for longer.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    async with asyncio.timeout(limit_s):
        return await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, _T], waits_for: Any) -> Generator[Any, Any, _T]:
    """Go on with what has begun to wait, as ``await`` would."""
    while True:
        try:
            try:
                came = yield waits_for
            except BaseException as error:  # noqa: BLE001 thrown in from outside, as a cancellation is, for the work to meet
                waits_for = work.throw(error)
            else:
                waits_for = work.send(came)
        except StopIteration as done:
            result: _T = done.value
            return result

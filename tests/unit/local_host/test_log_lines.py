"""Lines of the host's log: written when nobody waits for them, in the order in which they were told, and never lost."""

from __future__ import annotations

import asyncio
import io
import logging
import threading

import pytest

from deployr_serve.local_host.log_lines import AfterAnswers


@pytest.fixture
def handler():
    made = AfterAnswers()
    made.setStream(io.StringIO())
    return made


@pytest.fixture
def log(handler):
    made = logging.getLogger("deployr.test-of-log-lines")
    made.setLevel(logging.INFO)
    made.addHandler(handler)
    yield made
    made.removeHandler(handler)


@pytest.fixture
def written(handler):
    return lambda: handler.stream.getvalue().splitlines()


async def test_what_is_told_on_the_loop_is_written_when_the_loop_comes_round(log, written):
    log.info("one")
    log.info("two")
    assert written() == []
    await asyncio.sleep(0)
    assert written() == ["one", "two"]
    log.info("three")
    await asyncio.sleep(0)
    assert written() == ["one", "two", "three"]


async def test_a_warning_is_written_at_once_after_what_was_told_before_it(log, written):
    log.info("one")
    log.warning("two")
    assert written() == ["one", "two"]
    await asyncio.sleep(0)
    assert written() == ["one", "two"]


async def test_a_thread_waits_for_no_loop_and_keeps_the_order(log, written):
    log.info("one")
    thread = threading.Thread(target=log.info, args=("two",))
    thread.start()
    # Here and now: the loop does not come round meanwhile.
    thread.join()
    assert written() == ["one", "two"]


def test_elsewhere_than_on_a_loop_a_line_is_written_at_once(log, written):
    log.info("one")
    assert written() == ["one"]


async def test_a_line_says_what_was_so_when_it_was_told(log, written):
    counts = {"failed": 1}
    log.info("counts=%s", counts)
    counts["failed"] = 2
    await asyncio.sleep(0)
    assert written() == ["counts={'failed': 1}"]


def test_what_still_waits_is_written_when_the_process_ends(handler, log, written):
    async def ends():
        log.info("one")
        log.info("two")
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(ends())
    loop.run_forever()
    assert task.done()
    loop.close()
    # As `logging.shutdown` does.
    handler.flush()
    assert written() == ["one", "two"]

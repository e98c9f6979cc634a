"""Repeats, circuits and lanes around one transport: first with a scripted one, then over real loopback sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from deployr_serve.adapters.breaker import BreakerPolicy
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import AiohttpTransport, Request, Response, error_of_status
from deployr_serve.adapters.resilience import ResilientTransport
from deployr_serve.adapters.retry import RetryPolicy
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrThrottled,
    EmrTimeout,
    EmrTooLarge,
    EmrUnreachable,
    TryLater,
)
from deployr_serve.core.ports import Budget, Lane

URL = "https://emr.example/fhir/Patient/_search"
NEVER_OPENS = BreakerPolicy(in_a_row=10**6, least_calls=10**6)


@dataclass
class Script:
    """A transport that gives these answers in turn, the last one for ever; ``Hangs`` uses up what it is given."""

    clock: object
    answers: list[object]
    sent: list[Request] = field(default_factory=list)
    given_s: list[float] = field(default_factory=list)

    async def send(self, request):
        self.sent.append(request)
        self.given_s.append(round(request.budget.deadline - self.clock.monotonic(), 6))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is HANGS:
            self.clock.pass_time(self.given_s[-1])
            raise EmrTimeout("hangs")
        if isinstance(answer, BaseException):
            raise answer
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return Response(status=status, content_type="", body=b"", headers=headers)


HANGS = object()


@pytest.fixture
def over(clock):
    """Give a function that makes a resilient transport over these answers, and the script; chance always says 1/2."""

    def make(*answers, draw=0.5, **options):
        script = Script(clock, list(answers))
        options = {"timeout_s": 8.0, "circuits": NEVER_OPENS, **options}
        return ResilientTransport(script, clock=clock, draw=lambda: draw, **options), script

    return make


def read(url=URL, **options):
    return Request(method="POST", url=url, repeatable=True, **options)


def write(url=URL, **options):
    return Request(method="POST", url=url, **options)


async def failure(transport, request):
    """Give the error that is raised, or that the answer's status amounts to; None for success."""
    try:
        return error_of_status(await transport.send(request))
    except TryLater as error:
        return error


# -- repeats


async def test_an_answer_that_heals_is_given_with_how_often_it_was_asked_for(over):
    transport, script = over(503, EmrUnreachable("x"), 200)
    response = await transport.send(read())
    assert (response.status, response.requests, len(script.sent)) == (200, 3, 3)


async def test_an_answer_that_does_not_heal_is_given_as_it_is_after_two_repeats(over):
    transport, script = over((503, {"retry-after": "1"}))
    response = await transport.send(read())
    assert (response.status, response.requests, len(script.sent)) == (503, 3, 3)
    error = error_of_status(response)
    assert (error.retry_after_s, error.requests) == (1, 3)


async def test_an_error_that_does_not_heal_says_how_often_it_was_tried(over):
    transport, _ = over(EmrUnreachable("x"))
    with pytest.raises(EmrUnreachable) as caught:
        await transport.send(read())
    assert caught.value.requests == 3


@pytest.mark.parametrize("answer", [200, 400, 401, 403, 404, 410, 422, 500])
async def test_what_will_not_heal_is_asked_for_once(over, answer):
    transport, script = over(answer)
    assert (await transport.send(read())).status == answer
    assert len(script.sent) == 1


@pytest.mark.parametrize("answer", [503, 429, EmrTimeout("x"), EmrUnreachable("x"), EmrBadResponse("x")])
async def test_a_write_is_never_repeated(over, answer):
    transport, script = over(answer)
    error = await failure(transport, write())
    assert (error.requests, len(script.sent)) == (1, 1)


async def test_an_answer_that_was_cut_off_is_asked_for_once_more(over):
    transport, script = over(EmrBadResponse("cut off"))
    with pytest.raises(EmrBadResponse):
        await transport.send(read())
    assert len(script.sent) == 2


async def test_an_answer_that_is_too_large_is_not_asked_for_again(over):
    transport, script = over(EmrTooLarge("x"))
    with pytest.raises(EmrTooLarge):
        await transport.send(read())
    assert len(script.sent) == 1


async def test_the_back_off_is_slept_on_the_clock(over, clock):
    transport, _ = over(503, retries=RetryPolicy(base_s=1.0, cap_s=9.0))
    started = clock.monotonic()
    await transport.send(read())
    assert clock.monotonic() - started == 0.5 * 1 + 0.5 * 2


async def test_retry_after_is_honoured_inside_the_deadline(over, clock):
    transport, _ = over((429, {"retry-after": "2"}), 200, draw=0.0)
    started = clock.monotonic()
    assert (await transport.send(read())).status == 200
    assert clock.monotonic() - started == 2


async def test_retry_after_beyond_the_deadline_fails_at_once(over, clock):
    transport, script = over((429, {"retry-after": "2"}), 200, draw=0.0)
    started = clock.monotonic()
    response = await transport.send(read(budget=Budget(deadline=started + 2, correlation_id="c")))
    assert (response.status, clock.monotonic() - started, len(script.sent)) == (429, 0, 1)
    assert isinstance(error_of_status(response), EmrThrottled)


async def test_a_try_that_hangs_leaves_time_for_the_others(over, clock):
    transport, script = over(HANGS, draw=0.0)
    started = clock.monotonic()
    with pytest.raises(EmrTimeout) as caught:
        await transport.send(read())
    assert script.given_s == [4, 2, 2]
    assert (clock.monotonic() - started, caught.value.requests) == (8, 3)


async def test_a_write_gets_all_the_time_there_is(over, clock):
    transport, script = over(200)
    await transport.send(write())
    await transport.send(write(budget=Budget(deadline=clock.monotonic() + 3, correlation_id="c")))
    assert script.given_s == [8, 3]


async def test_a_budget_longer_than_the_transports_own_limit_does_not_stretch_it(over, clock):
    transport, script = over(200)
    await transport.send(write(budget=Budget(deadline=clock.monotonic() + 99, correlation_id="c")))
    assert script.given_s == [8]


async def test_a_budget_that_is_spent_sends_nothing(over, clock):
    transport, script = over(200)
    with pytest.raises(EmrTimeout) as caught:
        await transport.send(read(budget=Budget(deadline=clock.monotonic(), correlation_id="c")))
    assert (caught.value.requests, script.sent) == (0, [])


async def test_every_try_carries_the_correlation_id_and_the_lane(over, clock):
    transport, script = over(503)
    await transport.send(read(budget=Budget(deadline=clock.monotonic() + 5, correlation_id="c-1", lane=Lane.BATCH)))
    assert [(r.budget.correlation_id, r.budget.lane) for r in script.sent] == [("c-1", Lane.BATCH)] * 3


# -- circuits

QUICK = BreakerPolicy(in_a_row=3, least_calls=10**6, open_s=5.0)


@pytest.mark.parametrize("answer", [502, 503, 504, EmrUnreachable("x"), HANGS])
async def test_a_server_that_is_not_there_is_left_alone_for_a_while(over, clock, answer):
    transport, script = over(answer, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    before = clock.monotonic()
    error = await failure(transport, read())
    assert isinstance(error, EmrUnreachable)
    assert "circuit is open" in str(error)
    assert (error.retry_after_s, error.requests) == (5, 0)
    assert (len(script.sent), clock.monotonic() - before) == (3, 0)
    assert transport.open_circuits() == ("emr.example:443",)


async def test_services_that_do_not_write_leave_those_that_read_alone(over):
    transport, script = over(503, 503, 503, 200, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write(writes=True))
    refused = await failure(transport, write(writes=True))
    assert "circuit is open" in str(refused)
    assert await failure(transport, read()) is None
    assert transport.open_circuits() == ("emr.example:443 (writes)",)
    assert len(script.sent) == 4


async def test_one_probe_goes_out_after_that_and_its_answer_lets_everybody_in(over, clock):
    transport, script = over(503, 503, 503, 200, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    clock.pass_time(5)
    assert await failure(transport, write()) is None
    assert transport.open_circuits() == ()
    assert len(script.sent) == 4


async def test_while_the_probe_is_out_the_others_are_told_at_once(clock):
    answered = asyncio.Event()
    sent = []

    class Gate:
        async def send(self, request):
            sent.append(request)
            if len(sent) <= 3:
                raise EmrUnreachable("x")
            await answered.wait()
            return Response(status=404, content_type="", body=b"")

    transport = ResilientTransport(Gate(), clock=clock, timeout_s=8.0, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    clock.pass_time(5)
    probe = asyncio.ensure_future(transport.send(write()))
    await asyncio.sleep(0)
    others = await asyncio.gather(*(failure(transport, write()) for _ in range(10)))
    assert all("circuit is open" in str(error) for error in others)
    answered.set()
    assert (await probe).status == 404
    assert len(sent) == 4
    assert transport.open_circuits() == ()


async def test_those_who_wait_for_a_connection_when_the_server_dies_do_not_try_it_one_after_another(clock):
    sent = []

    class Dies:
        async def send(self, request):
            sent.append(request)
            await asyncio.sleep(0)
            raise EmrUnreachable("x")

    transport = ResilientTransport(
        Dies(), clock=clock, timeout_s=8.0, connections=1, batch_connections=1, circuits=QUICK
    )
    errors = await asyncio.gather(*(failure(transport, write()) for _ in range(100)))
    assert len(sent) == 3
    assert sum("circuit is open" in str(error) for error in errors) == 97


async def let_others_work():
    for _ in range(20):
        await asyncio.sleep(0)


class Probed:
    """A server that is down for the first three calls, and then answers when it is told to."""

    def __init__(self):
        self.answers, self.sent = asyncio.Event(), 0

    async def send(self, request):
        self.sent += 1
        if self.sent <= 3:
            raise EmrUnreachable("x")
        await self.answers.wait()
        return Response(status=200, content_type="", body=b"")


async def test_a_probe_outlives_its_caller_and_its_answer_lets_everybody_in(clock):
    server = Probed()
    transport = ResilientTransport(server, clock=clock, timeout_s=8.0, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    clock.pass_time(5)
    probe = asyncio.ensure_future(transport.send(write()))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert "circuit is open" in str(await failure(transport, write()))
    server.answers.set()
    await let_others_work()
    assert await failure(transport, write()) is None


async def test_of_several_searches_at_once_the_refused_ones_do_not_end_the_probe(clock):
    server = Probed()
    transport = ResilientTransport(server, clock=clock, timeout_s=8.0, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    clock.pass_time(5)

    async def fetch():
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(transport.send(read()))

    with pytest.raises(ExceptionGroup):
        await fetch()
    server.answers.set()
    await let_others_work()
    await fetch()


async def test_a_probe_that_is_not_heard_of_is_given_up_for_the_next(clock):
    server = Probed()
    transport = ResilientTransport(server, clock=clock, timeout_s=8.0, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    clock.pass_time(5)
    unheard = asyncio.ensure_future(transport.send(write()))
    await let_others_work()
    clock.pass_time(5)
    after = asyncio.ensure_future(transport.send(write()))
    await let_others_work()
    assert server.sent == 5
    server.answers.set()
    await asyncio.gather(unheard, after)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 429, 500])
async def test_one_patients_poison_shuts_out_nobody(over, status):
    transport, script = over(status, circuits=BreakerPolicy())
    for _ in range(200):
        await transport.send(write())
    assert len(script.sent) == 200
    assert transport.open_circuits() == ()


async def test_a_try_too_short_to_tell_anything_does_not_count_against_the_server(over, clock):
    transport, script = over(HANGS, circuits=QUICK)
    for _ in range(9):
        short = Budget(deadline=clock.monotonic() + 0.9, correlation_id="c")
        await failure(transport, write(budget=short))
    assert len(script.sent) == 9
    assert transport.open_circuits() == ()


async def test_a_dead_server_does_not_shut_out_another_one(over):
    transport, _ = over(503, 503, 503, 200, circuits=QUICK)
    for _ in range(3):
        await failure(transport, write())
    assert await failure(transport, write("https://vendor.example/api")) is None
    assert isinstance(await failure(transport, write("https://EMR.example:443/other")), EmrUnreachable)


# -- lanes, over real sockets


@pytest.fixture
async def network():
    made = []

    def make(*, timeout_s, **options):
        inner = AiohttpTransport(timeout_s=timeout_s, clock=SystemClock(), connections=options.get("connections", 64))
        made.append(inner)
        return ResilientTransport(inner, clock=SystemClock(), timeout_s=timeout_s, **options)

    yield make
    for inner in made:
        await inner.aclose()


async def test_five_hundred_slow_batch_calls_do_not_delay_a_click(network, server_of, reply_of):
    full, released, most_at_once, slow = asyncio.Event(), asyncio.Event(), 0, 0

    async def answer(head, writer):
        nonlocal most_at_once, slow
        if b"/slow" in head:
            slow += 1
            most_at_once = max(most_at_once, slow)
            if slow == 4:
                full.set()
            await released.wait()
            slow -= 1
        writer.write(reply_of(b"{}"))

    server = await server_of(answer)
    transport = network(timeout_s=60.0, connections=8, batch_connections=4)
    loop = asyncio.get_running_loop()
    until = SystemClock().monotonic() + 60

    def ask(path, lane):
        budget = Budget(deadline=until, correlation_id="c", lane=lane)
        return transport.send(Request(method="GET", url=server.url + path, repeatable=True, budget=budget))

    batch = [asyncio.ensure_future(ask("/slow", Lane.BATCH)) for _ in range(500)]
    await full.wait()
    started = loop.time()
    clicks = await asyncio.gather(*(ask("/click", Lane.CLICK) for _ in range(6)))
    took = loop.time() - started
    assert [response.status for response in clicks] == [200] * 6
    assert took < 2
    assert (most_at_once, sum(task.done() for task in batch)) == (4, 0)
    released.set()
    assert {response.status for response in await asyncio.gather(*batch)} == {200}
    assert most_at_once == 4


async def test_waiting_for_a_connection_ends_at_the_deadline_with_no_socket_opened(network, server_of):
    came = asyncio.Event()

    async def hang(_, writer):
        came.set()
        await asyncio.Event().wait()

    server = await server_of(hang)
    transport = network(timeout_s=5.0, connections=1, batch_connections=1)
    held = asyncio.ensure_future(transport.send(write(server.url)))
    await came.wait()
    budget = Budget(deadline=SystemClock().monotonic() + 0.1, correlation_id="c")
    with pytest.raises(EmrTimeout) as caught:
        await transport.send(Request(method="GET", url=server.url, repeatable=True, budget=budget))
    assert (caught.value.requests, len(server.seen.heads)) == (0, 1)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


async def test_a_connection_that_died_in_the_pool_is_replaced(network, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(b"{}").replace(b"Connection: close\r\n", b""))

    server = await server_of(answer)  # closes every connection after one answer, though it promised to keep it
    transport = network(timeout_s=5.0)
    for _ in range(3):
        response = await transport.send(Request(method="POST", url=server.url, form=(("a", "b"),), repeatable=True))
        assert response.status == 200

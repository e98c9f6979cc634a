"""The one way to the network, against real loopback sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_serve.adapters.http import AiohttpTransport, Request, Response, error_of_status, origin, retry_after_s
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrThrottled,
    EmrTimeout,
    EmrTooLarge,
    EmrUnreachable,
)
from deployr_serve.core.ports import Budget


@pytest.fixture
async def transport_with(clock):
    """Give a function that makes a transport, by default one that waits 5 s for an answer."""
    made = []

    def make(*, timeout_s=5.0, **options):
        made.append(AiohttpTransport(timeout_s=timeout_s, clock=clock, **options))
        return made[-1]

    yield make
    for transport in made:
        await transport.aclose()


@pytest.fixture
def transport(transport_with):
    return transport_with()


@pytest.fixture
def hasty(transport_with):
    """Give a transport that waits 0.2 s for an answer."""
    return transport_with(timeout_s=0.2)


def get(server, path="/", **options):
    return Request(method="GET", url=server.url + path, **options)


async def test_status_type_and_body_come_back_whatever_the_status(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(b"no such thing", status="404 Not Found", content_type="text/plain; charset=utf-8"))

    response = await transport.send(get(await server_of(answer)))
    assert (response.status, response.content_type, response.body) == (404, "text/plain", b"no such thing")


async def test_a_form_goes_out_in_the_body(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of())

    server = await server_of(answer)
    form = (("patient", "p1"), ("code", "http://loinc.org|4544-3,x"), ("date", "ge2015"), ("date", "lt2016"))
    await transport.send(
        Request(method="POST", url=f"{server.url}/Observation/_search", headers={"X-Mark": "here"}, form=form)
    )
    [head], [body] = server.seen.heads, server.seen.bodies
    assert head.startswith(b"POST /Observation/_search HTTP/1.1\r\n")
    assert b"application/x-www-form-urlencoded" in head
    assert b"X-Mark: here" in head
    assert body == b"patient=p1&code=http%3A%2F%2Floinc.org%7C4544-3%2Cx&date=ge2015&date=lt2016"


async def test_a_body_goes_out_as_it_is(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of())

    server = await server_of(answer)
    await transport.send(Request(method="POST", url=server.url, body=b'{"a":1}'))
    assert server.seen.bodies == [b'{"a":1}']


async def test_a_query_that_is_encoded_already_is_not_encoded_again(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of())

    server = await server_of(answer)
    await transport.send(get(server, "/score?modelId=SHC.HCT%401&jobId=1"))
    assert b"%25" not in server.seen.heads[0]


async def test_a_compressed_answer_is_unpacked(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(gzip.compress(b"a" * 1000), headers=("Content-Encoding: gzip",)))

    assert (await transport.send(get(await server_of(answer)))).body == b"a" * 1000


async def test_the_headers_that_are_read_come_back_by_lower_case_name_and_no_others(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(
            reply_of(b"a", headers=('ETag: W/"1"', "AGE: 7200", "Retry-After: 2", "Set-Cookie: a=b", "X-A: b"))
        )

    response = await transport.send(get(await server_of(answer)))
    assert dict(response.headers) == {
        "age": "7200",
        "content-type": "application/fhir+json",
        "etag": 'W/"1"',
        "retry-after": "2",
    }
    assert response.requests == 1


async def test_the_correlation_id_goes_out_with_the_request(transport, server_of, reply_of, clock):
    async def answer(_, writer):
        writer.write(reply_of())

    server = await server_of(answer)
    budget = Budget(deadline=clock.monotonic() + 5, correlation_id="click-1.a_b")
    await transport.send(get(server, headers={"Accept": "text/plain"}, budget=budget))
    [head] = server.seen.heads
    for line in (b"X-Correlation-Id: click-1.a_b", b"X-Request-Id: click-1.a_b", b"Accept: text/plain"):
        assert b"\r\n" + line + b"\r\n" in head


@pytest.mark.parametrize("bad", ["a\r\nSet-Cookie: x", "a\n", "a b", "", "x" * 129, "prüf"])
async def test_a_correlation_id_that_is_more_than_a_word_is_left_out(transport, server_of, reply_of, clock, bad):
    async def answer(_, writer):
        writer.write(reply_of())

    server = await server_of(answer)
    await transport.send(get(server, budget=Budget(deadline=clock.monotonic() + 5, correlation_id=bad)))
    [head] = server.seen.heads
    assert b"X-Correlation-Id" not in head
    assert b"Set-Cookie" not in head


# -- time


async def test_a_budget_that_is_spent_opens_no_socket(transport, server_of, clock):
    async def answer(_, writer):
        raise AssertionError

    server = await server_of(answer)
    for deadline in (clock.monotonic(), clock.monotonic() - 1):
        with pytest.raises(EmrTimeout, match="spent") as caught:
            await transport.send(get(server, budget=Budget(deadline=deadline, correlation_id="c")))
        assert caught.value.requests == 0
    assert server.seen.heads == []


async def test_the_budgets_deadline_holds_where_it_is_sooner_than_the_time_limit(transport, hasty, server_of, clock):
    async def hang(_, writer):
        await asyncio.Event().wait()

    server = await server_of(hang)
    loop = asyncio.get_running_loop()
    for sender, left_s in ((transport, 0.2), (hasty, 50)):
        started = loop.time()
        with pytest.raises(EmrTimeout):
            await sender.send(get(server, budget=Budget(deadline=clock.monotonic() + left_s, correlation_id="c")))
        assert 0.19 < loop.time() - started < 20


async def _pace():
    """Wait as a slow server does: the time limit under test is real time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), timeout=0.02)


async def test_a_server_that_drips_cannot_stretch_the_time_limit(hasty, server_of):
    stopped = asyncio.Event()

    async def drip(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await _pace()
        finally:
            stopped.set()

    server = await server_of(drip)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(EmrTimeout):
        await hasty.send(get(server))
    assert 0.19 < loop.time() - started < 20
    await asyncio.wait_for(stopped.wait(), timeout=5)  # the connection was closed, not left dripping


async def test_a_server_that_never_answers_times_out(hasty, server_of):
    async def hang(_, writer):
        await asyncio.Event().wait()

    with pytest.raises(EmrTimeout) as caught:
        await hasty.send(get(await server_of(hang)))
    assert caught.value.requests == 1


async def test_headers_that_never_end_time_out(hasty, server_of):
    async def headers_without_end(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await _pace()

    with pytest.raises((EmrTimeout, EmrUnreachable)):
        await hasty.send(get(await server_of(headers_without_end)))


async def test_waiting_for_a_free_connection_counts_against_the_time_limit(server_of, transport_with):
    async def hang(_, writer):
        await asyncio.Event().wait()

    server = await server_of(hang)
    transport = transport_with(timeout_s=0.2, connections=1)
    answers = await asyncio.gather(*(transport.send(get(server)) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [EmrTimeout] * 3


# -- size


async def test_an_answer_of_the_largest_size_is_read_and_one_byte_more_is_not(transport_with, server_of, reply_of):
    transport = transport_with(max_body_bytes=1000)

    async def answer(head, writer):
        writer.write(reply_of(b"a" * (1001 if b"GET /more" in head else 1000)))

    server = await server_of(answer)
    assert len((await transport.send(get(server))).body) == 1000
    with pytest.raises(EmrTooLarge, match="at most 1000 bytes"):
        await transport.send(get(server, "/more"))


async def test_an_answer_that_announces_too_much_is_not_waited_for(transport_with, server_of):
    async def announce(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await asyncio.Event().wait()

    with pytest.raises(EmrTooLarge):
        await transport_with(max_body_bytes=1000).send(get(await server_of(announce)))


async def test_a_body_without_an_announced_end_is_cut_off_at_the_cap(transport_with, server_of):
    async def endless(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"a" * 0x400 + b"\r\n")
            await writer.drain()

    with pytest.raises(EmrTooLarge):
        await transport_with(max_body_bytes=10_000).send(get(await server_of(endless)))


def _raw_deflate(content):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


PACKED = {"gzip": gzip.compress, "deflate": zlib.compress, "deflate without its header": _raw_deflate}


@pytest.mark.parametrize("packing", PACKED)
async def test_unpacking_stops_at_the_limit_and_holds_no_more_than_it(transport_with, server_of, reply_of, packing):
    limit, size = 1_000_000, 100_000_000
    bomb = PACKED[packing](b"\0" * size)
    assert len(bomb) < limit

    async def answer(_, writer):
        writer.write(reply_of(bomb, headers=(f"Content-Encoding: {packing.split()[0]}",)))

    request = get(await server_of(answer))
    transport = transport_with(max_body_bytes=limit)
    tracemalloc.start()
    try:
        with pytest.raises(EmrTooLarge):
            await transport.send(request)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The limit, a chunk of 256 KiB, what came packed and the buffers it went through; not the 100 MB.
    assert most < limit + 4_000_000


async def test_members_of_a_gzip_are_limited_together(transport_with, server_of, reply_of):
    bomb = gzip.compress(b"\0" * 10_000) * 500

    async def answer(_, writer):
        writer.write(reply_of(bomb, headers=("Content-Encoding: gzip",)))

    with pytest.raises(EmrTooLarge):
        await transport_with(max_body_bytes=100_000).send(get(await server_of(answer)))


@pytest.mark.parametrize("coding", ["br", "zstd"])
async def test_a_coding_that_was_not_asked_for_is_a_bad_response(transport, server_of, reply_of, coding):
    async def answer(_, writer):
        writer.write(reply_of(b"\x1b\xff\xff", headers=(f"Content-Encoding: {coding}",)))

    server = await server_of(answer)
    with pytest.raises(EmrBadResponse):
        await transport.send(get(server))
    assert b"Accept-Encoding: gzip, deflate\r\n" in server.seen.heads[0]


# -- what comes back broken


async def test_a_redirect_is_not_followed(transport, server_of, reply_of):
    async def elsewhere(_, writer):
        writer.write(reply_of())

    other = await server_of(elsewhere)

    async def redirect(_, writer):
        writer.write(reply_of(status="302 Found", headers=(f"Location: {other.url}/",)))

    response = await transport.send(get(await server_of(redirect), headers={"Authorization": "Bearer t"}))
    assert response.status == 302
    assert other.seen.heads == []


async def test_cookies_are_not_kept(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(headers=("Set-Cookie: session=1; Path=/",)))

    server = await server_of(answer)
    for _ in range(2):
        await transport.send(get(server))
    assert all(b"cookie" not in head.lower() for head in server.seen.heads)


async def test_a_proxy_of_the_environment_is_not_used(transport, server_of, reply_of, monkeypatch):
    async def answer(_, writer):
        writer.write(reply_of(b"direct"))

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await transport.send(get(await server_of(answer)))).body == b"direct"


async def test_nobody_listening_is_unreachable(transport):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(EmrUnreachable):
        await transport.send(Request(method="GET", url=f"http://127.0.0.1:{port}/"))


async def test_a_host_that_does_not_exist_is_unreachable(transport):
    with pytest.raises(EmrUnreachable):
        await transport.send(Request(method="GET", url="http://nobody.invalid/"))


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 2", b"not http at all\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"\x16\x03\x01\x02\x00"],
    ids=["closed", "half a line", "no http", "version 9.9", "TLS"],
)
async def test_what_is_no_http_is_an_error_of_ours(transport, server_of, raw):
    async def answer(_, writer):
        writer.write(raw)

    with pytest.raises((EmrUnreachable, EmrBadResponse)):
        await transport.send(get(await server_of(answer)))


async def test_a_broken_answer_is_not_repeated_in_the_error_or_behind_it(transport, server_of):
    async def answer(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nCANARY\r\n")

    with pytest.raises(EmrBadResponse) as caught:
        await transport.send(get(await server_of(answer), "/Patient?_id=CANARY"))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ is True


async def test_half_an_answer_is_a_bad_response(transport, server_of):
    async def answer(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")

    with pytest.raises(EmrBadResponse):
        await transport.send(get(await server_of(answer)))


async def test_a_broken_chunk_is_a_bad_response(transport, server_of):
    async def answer(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n")

    with pytest.raises(EmrBadResponse):
        await transport.send(get(await server_of(answer)))


async def test_half_a_gzip_is_a_bad_response(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(b"\x1f\x8b\x08nonsense", headers=("Content-Encoding: gzip",)))

    with pytest.raises(EmrBadResponse):
        await transport.send(get(await server_of(answer)))


async def test_no_error_of_the_network_repeats_the_address_it_was_sent_to(transport):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(EmrUnreachable) as caught:
        await transport.send(Request(method="GET", url=f"http://127.0.0.1:{port}/Patient?_id=CANARY"))
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in repr(caught.value.__cause__)


async def test_what_follows_an_answer_unasked_is_not_taken_for_the_next_one(transport, server_of, reply_of):
    async def answer(head, writer):
        mine = b"second" if b"GET /second" in head else b"first"
        both = reply_of(mine) + reply_of(b"of somebody else")
        writer.write(both.replace(b"Connection: close\r\n", b""))
        await asyncio.Event().wait()  # the connection stays open, to be used again

    server = await server_of(answer)
    assert (await transport.send(get(server, "/first"))).body == b"first"
    with contextlib.suppress(EmrUnreachable, EmrBadResponse):
        assert (await transport.send(get(server, "/second"))).body == b"second"


async def test_a_closed_transport_opens_again_when_it_is_used(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(b"again"))

    server = await server_of(answer)
    await transport.send(get(server))
    await transport.aclose()
    assert (await transport.send(get(server))).body == b"again"


async def test_closing_what_was_never_used_does_nothing(transport):
    await transport.aclose()


def test_a_request_shows_no_headers_form_or_body():
    request = Request(
        method="POST", url="https://emr.example", headers={"A": "CANARY"}, form=(("a", "CANARY"),), body=b"CANARY"
    )
    assert "CANARY" not in repr(request)
    response = Response(status=200, content_type="", body=b"CANARY", headers={"location": "CANARY"})
    assert "CANARY" not in repr(response)


# -- origins and statuses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://emr.example/fhir", ("https", "emr.example", 443)),
        ("https://EMR.example:443", ("https", "emr.example", 443)),
        ("http://emr.example", ("http", "emr.example", 80)),
        ("http://[::1]:8080/x", ("http", "::1", 8080)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, expected):
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://emr.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "emr.example",
        "https://",
        "https:///fhir",
        "https://user@emr.example",
        "https://user:pass@emr.example",
        "https://@emr.example",
        "https://emr.example:port",
        "https://emr.example:99999",
        "https://[emr.example",
        "",
    ],
)
def test_what_is_no_address_of_a_web_server_has_no_origin(url):
    with pytest.raises(ValueError):
        origin(url)


def answer_of(status, *, requests=1, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, content_type="", body=b"", headers=named, requests=requests)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success_is_no_error(status):
    assert error_of_status(answer_of(status)) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, EmrBadResponse),
        (302, EmrBadResponse),
        (307, EmrBadResponse),
        (400, EmrBadResponse),
        (401, EmrRefused),
        (403, EmrRefused),
        (404, EmrBadResponse),
        (408, EmrUnreachable),
        (410, EmrBadResponse),
        (422, EmrBadResponse),
        (425, EmrUnreachable),
        (429, EmrThrottled),
        (500, EmrUnreachable),
        (502, EmrUnreachable),
        (503, EmrUnreachable),
        (504, EmrUnreachable),
    ],
)
def test_a_status_is_classed_by_what_can_be_done_about_it(status, expected):
    error = error_of_status(answer_of(status, requests=3))
    assert type(error) is expected
    assert error.requests == 3


@pytest.mark.parametrize("status", [429, 503])
def test_how_long_the_emr_asks_us_to_wait_goes_with_the_error(status):
    assert error_of_status(answer_of(status, retry_after="7")).retry_after_s == 7
    assert error_of_status(answer_of(status)).retry_after_s is None


ANSWERED = "Tue, 06 Jan 2015 20:55:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        (" 120 ", 120),
        ("3600", 3600),
        ("Tue, 06 Jan 2015 20:55:30 GMT", 30),
        ("Tuesday, 06-Jan-15 20:55:30 GMT", 30),
        ("Tue, 06 Jan 2015 20:55:00 GMT", 0),
    ],
)
def test_retry_after_is_read_in_both_syntaxes(text, seconds):
    assert retry_after_s({"retry-after": text, "date": ANSWERED}) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "9999999",
        "9" * 500,
        "3601",
        "2.5",
        "1e3",
        "abc",
        "",
        "٣",
        "²",
        "inf",
        "nan",
        "Tue, 06 Jan 2015 20:54:59 GMT",
        "Wed, 07 Jan 2015 20:55:00 GMT",
        "Tue, 06 Jan 99999 20:55:30 GMT",
        "Tue, 32 Jan 2015 20:55:30 GMT",
        "Tue, 06 Jan 2015 20:55:30 -0000",
    ],
)
def test_what_cannot_be_meant_as_a_wait_is_passed_over(text):
    assert retry_after_s({"retry-after": text, "date": ANSWERED}) is None


def test_a_date_to_wait_for_is_nothing_without_the_servers_own_date():
    assert retry_after_s({"retry-after": "Tue, 06 Jan 2015 20:55:30 GMT"}) is None


@given(st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=40)))
def test_no_header_whatever_breaks_the_reading_of_retry_after(headers):
    seconds = retry_after_s(headers)
    assert seconds is None or 0 <= seconds <= 3600

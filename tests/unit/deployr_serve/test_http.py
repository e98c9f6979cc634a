"""The one way to the network, against real loopback sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import zlib

import pytest

from deployr_serve.adapters import http
from deployr_serve.adapters.http import AiohttpTransport, Request, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrTimeout, EmrUnreachable


@pytest.fixture
async def transport():
    made = AiohttpTransport(timeout_s=5)
    yield made
    await made.aclose()


@pytest.fixture
async def hasty():
    """Give a transport that waits 0.2 s for an answer."""
    made = AiohttpTransport(timeout_s=0.2)
    yield made
    await made.aclose()


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


# -- time


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
    assert 0.19 < loop.time() - started < 2
    await asyncio.wait_for(stopped.wait(), timeout=5)  # the connection was closed, not left dripping


async def test_a_server_that_never_answers_times_out(hasty, server_of):
    async def hang(_, writer):
        await asyncio.Event().wait()

    with pytest.raises(EmrTimeout):
        await hasty.send(get(await server_of(hang)))


async def test_headers_that_never_end_time_out(hasty, server_of):
    async def headers_without_end(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await _pace()

    with pytest.raises((EmrTimeout, EmrUnreachable)):
        await hasty.send(get(await server_of(headers_without_end)))


async def test_waiting_for_a_free_connection_counts_against_the_time_limit(server_of):
    async def hang(_, writer):
        await asyncio.Event().wait()

    server = await server_of(hang)
    transport = AiohttpTransport(timeout_s=0.2, max_connections=1)
    answers = await asyncio.gather(*(transport.send(get(server)) for _ in range(3)), return_exceptions=True)
    await transport.aclose()
    assert [type(answer) for answer in answers] == [EmrTimeout] * 3


# -- size


async def test_an_answer_of_the_largest_size_is_read_and_one_byte_more_is_not(
    transport, server_of, reply_of, monkeypatch
):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1000)

    async def answer(head, writer):
        writer.write(reply_of(b"a" * (1001 if b"GET /more" in head else 1000)))

    server = await server_of(answer)
    assert len((await transport.send(get(server))).body) == 1000
    with pytest.raises(EmrBadResponse, match="at most"):
        await transport.send(get(server, "/more"))


async def test_a_body_without_an_announced_end_is_cut_off_at_the_cap(transport, server_of, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 10_000)

    async def endless(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"a" * 0x400 + b"\r\n")
            await writer.drain()

    with pytest.raises(EmrBadResponse, match="at most"):
        await transport.send(get(await server_of(endless)))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_small_body_that_unpacks_into_a_large_one_is_refused(
    transport, server_of, reply_of, monkeypatch, coding
):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100_000)
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[coding]
    bomb = pack(b"\0" * 20_000_000)
    assert len(bomb) < 100_000

    async def answer(_, writer):
        writer.write(reply_of(bomb, headers=(f"Content-Encoding: {coding}",)))

    with pytest.raises(EmrBadResponse):
        await transport.send(get(await server_of(answer)))


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


async def test_a_closed_transport_opens_again_when_it_is_used(transport, server_of, reply_of):
    async def answer(_, writer):
        writer.write(reply_of(b"again"))

    server = await server_of(answer)
    await transport.send(get(server))
    await transport.aclose()
    assert (await transport.send(get(server))).body == b"again"


async def test_closing_what_was_never_used_does_nothing():
    await AiohttpTransport(timeout_s=1).aclose()


def test_a_request_shows_no_headers_form_or_body():
    request = Request(
        method="POST", url="https://emr.example", headers={"A": "CANARY"}, form=(("a", "CANARY"),), body=b"CANARY"
    )
    assert "CANARY" not in repr(request)
    assert "CANARY" not in repr(http.Response(status=200, content_type="", body=b"CANARY"))


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


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_success_is_no_error(status):
    assert error_of_status(status) is None

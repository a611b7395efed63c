"""Limits: what slow, large, broken and too many clients get, at the level of sockets."""

import asyncio
import gzip
import json
import socket
import zlib
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio
import pytest
from structlog.testing import capture_logs

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
ONE = b'{"dataset": "s3://lake/a"}'
HEAD = b"POST /api/v1/datasets/events HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE
SOON = 30


@asynccontextmanager
async def connection(harness):
    parts = urlsplit(harness.url)
    async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
        yield stream


async def answer(stream):
    """Return status, headers and body of one answer."""
    data = b""
    with anyio.fail_after(SOON):
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += await stream.receive()
    return int(status.split()[1]), headers, body


async def ended(stream):
    """Return what comes until the server ends the connection."""
    data = b""
    with anyio.fail_after(SOON):
        while True:
            try:
                data += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return data


async def send_raw(harness, request):
    """Send a request; return the answer's status and problem."""
    async with connection(harness) as stream:
        await stream.send(request)
        status, _, body = await answer(stream)
        return status, body.decode()


async def test_a_head_that_never_ends_is_answered_by_408(limited):
    async with limited(header_seconds=0.2) as harness, connection(harness) as stream:
        await stream.send(HEAD)
        status, headers, body = await answer(stream)
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["title"] == "Request Timeout"
        assert await ended(stream) == b""


async def test_a_body_that_never_ends_is_answered_by_408(limited):
    async with limited(body_seconds=0.2) as harness, connection(harness) as stream:
        await stream.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        status, headers, _ = await answer(stream)
        assert (status, headers["connection"]) == (408, "close")
        await ended(stream)


async def test_a_connection_without_a_request_is_closed_and_one_in_use_is_kept(limited):
    async with limited(idle_seconds=0.3) as harness, connection(harness) as used:
        for _ in range(3):
            await used.send(WHOLE)
            assert (await answer(used))[0] == 202
        async with connection(harness) as silent:
            assert await ended(silent) == b""
        assert await ended(used) == b""


async def test_a_client_that_does_not_read_is_cut_off(limited):
    event = {"dataset": "s3://lake/a", "extra": {"text": "x" * 200_000}}
    request = f"GET {EVENTS}?limit=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with limited(read_seconds=0.2, max_body_bytes=1 << 24) as harness:
        for _ in range(12):
            await harness.post(EVENTS, [event] * 5)
        parts = urlsplit(harness.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (parts.hostname, parts.port))
            await loop.sock_sendall(client, request)
            with capture_logs() as facts, anyio.fail_after(SOON):
                while not any(fact["event"] == "api.slow_client_disconnected" for fact in facts):
                    await harness.get("/healthz")
            received = 0
            with anyio.fail_after(SOON), suppress(ConnectionError):
                while data := await loop.sock_recv(client, 1 << 20):
                    received += len(data)
    assert received < 60 * 200_000


@pytest.mark.parametrize("size", [1001, 10**12])
async def test_a_large_body_is_refused_by_its_length_alone(limited, size):
    async with limited(max_body_bytes=1000) as harness:
        status, text = await send_raw(harness, HEAD + b"Content-Length: %d\r\n\r\n" % size)
        assert status == 413, text


async def test_a_body_in_pieces_is_refused_when_it_is_too_large(limited):
    async with limited(max_body_bytes=1000) as harness, connection(harness) as stream:
        await stream.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            await stream.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        assert (await answer(stream))[0] == 413


async def test_the_rest_of_a_refused_body_is_not_taken_for_a_request(limited):
    async with (
        limited(max_body_bytes=1000, header_seconds=0.2) as harness,
        connection(harness) as stream,
    ):
        await stream.send(HEAD + b"Content-Length: 2000\r\n\r\n" + b"x" * 500)
        assert (await answer(stream))[0] == 413
        await stream.send(b"x" * 1500)
        await stream.send(WHOLE)
        assert (await answer(stream))[0] == 202


BOMB = b"[" + b" " * (1 << 24) + b"]"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BOMB)),
        ("deflate", zlib.compress(BOMB)),
        ("br", b"\x8b"),
        ("gzip, gzip", gzip.compress(gzip.compress(BOMB))),
        ("gzip", b"no gzip"),
        ("identity, gzip", ONE),
    ],
)
async def test_compressed_bodies_are_refused_as_they_are(harness, encoding, body):
    headers = {"Content-Encoding": encoding}
    async with harness.session.post(harness.url + EVENTS, data=body, headers=headers) as response:
        assert response.status == 415, await response.text()
        assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 422),
        (b'{"dataset": "s3://a", "extra": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400),
        (b'{"dataset": "s3://a", "extra": {"a": "\xff\xfe"}}', 400),
        (b'{"dataset": "\xed\xa0\x80"}', 400),
        (b"", 400),
        (b"{", 400),
        (b"\x00" * 100, 400),
        (b"null", 422),
        (b"1e400", 422),
    ],
)
async def test_bodies_that_say_nothing_are_refused(harness, body, status):
    async with harness.session.post(harness.url + EVENTS, data=body) as response:
        assert response.status == status, await response.text()


AMBIGUOUS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "length and pieces": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "a signed length": b"Content-Length: +5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "a length in letters": b"Content-Length: 0x5\r\n",
    "pieces twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "a space before the colon": b"Content-Length : 5\r\n",
    "a folded line": b"X: a\r\n b\r\nContent-Length: 5\r\n",
    "a bare line feed": b"X: a\nContent-Length: 5\r\n",
    "a NUL": b"X: a\0b\r\nContent-Length: 5\r\n",
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_requests_that_two_servers_could_cut_differently_are_refused(harness, lines):
    """Request smuggling: what follows must never be answered as a request of its own."""
    async with connection(harness) as stream:
        await stream.send(HEAD + lines + b"\r\n0\r\n\r\n" + WHOLE)
        data = await ended(stream)
    assert data.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), data
    assert data.count(b"\r\n\r\n") == 1, data
    assert (await harness.get(EVENTS))["items"] == []


async def test_an_unknown_expectation_is_refused(harness):
    for value in (b"coffee", b"k\x9f"):
        for line in (b"GET /nothing", b"POST /api/v1/datasets/events"):
            status, _ = await send_raw(
                harness, line + b" HTTP/1.1\r\nHost: a\r\nExpect: " + value + b"\r\n\r\n"
            )
            assert status == 417


async def test_a_client_that_does_not_listen_is_read_less_often(limited, blocked_store):
    async with (
        limited(max_requests=1) as harness,
        connection(harness) as one,
        connection(harness) as two,
    ):
        async with blocked_store() as pending:
            await one.send(WHOLE)
            await pending(1)
            for _ in range(5):
                await two.send(WHOLE)
                assert (await answer(two))[0] == 429
        assert (await answer(one))[0] == 202
        await two.send(WHOLE)
        assert (await answer(two))[0] == 202


async def test_heads_are_limited(limited):
    async with limited(max_headers=20, max_header_bytes=2000) as harness:
        for lines in (b"X: y\r\n" * 30, b"X: " + b"y" * 3000 + b"\r\n"):
            status, text = await send_raw(harness, HEAD + lines + b"\r\n")
            assert status == 400, text
        status, text = await send_raw(harness, b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n")
        assert status == 400, text


async def test_pieces_that_are_none_are_refused_whenever_they_come(limited):
    start = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    async with limited(body_seconds=0.2) as harness:
        assert (await send_raw(harness, start + b"ZZ\r\n"))[0] == 400
        async with connection(harness) as stream:
            await stream.send(start)
            await harness.get("/healthz")
            await stream.send(b"ZZ\r\n")
            assert (await answer(stream))[0] in (400, 408)
            await ended(stream)


async def test_beyond_the_limit_the_connection_that_waits_longest_goes(limited):
    async with limited(max_connections=3) as harness:
        await harness.session.close()
        async with (
            connection(harness) as oldest,
            connection(harness) as second,
            connection(harness) as third,
        ):
            for stream in (second, third):
                await stream.send(WHOLE)
                assert (await answer(stream))[0] == 202
            async with connection(harness) as fourth:
                assert await ended(oldest) == b""
                for stream in (second, third, fourth):
                    await stream.send(WHOLE)
                    assert (await answer(stream))[0] == 202


async def test_while_all_connections_are_at_work_only_health_is_answered(limited, blocked_store):
    async with (
        limited(max_connections=2) as harness,
        connection(harness) as one,
        connection(harness) as two,
    ):
        await harness.session.close()
        async with blocked_store() as pending:
            for stream in (one, two):
                await stream.send(WHOLE)
            await pending(2)
            async with connection(harness) as spare:
                await spare.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await answer(spare))[0] == 200
                await spare.send(WHOLE)
                status, headers, body = await answer(spare)
                assert (status, headers["retry-after"]) == (503, "1")
                assert b"too many connections" in body
                assert await ended(spare) == b""
        for stream in (one, two):
            assert (await answer(stream))[0] == 202

"""The client that blocks: requests over one connection, errors and streams as the other one's."""

import types

import pytest

from pubsubflow.cli.coroutines import complete
from pubsubflow.client import Client, RequestRefused
from pubsubflow.errors import Unavailable
from support.canned_http import answer, serving

INFO = b'{"items": [], "next": null}'
PROBLEM = b'{"type": "about:blank", "title": "x", "status": 404, "detail": "no run r"}'


def call(url, do, **options):
    """Call a method of a client that blocks, without an event loop."""

    async def act():
        async with Client(url, blocking=True, **options) as client:
            return await do(client)

    return complete(act())


async def pools(client):
    return [each async for each in client.pools()]


async def twice(client):
    return await pools(client) + await pools(client)


def test_requests_share_a_connection_that_is_kept():
    with serving([answer(INFO), answer(INFO)]) as (url, requests):
        assert call(url, twice, token="t0ken") == []
    assert len(requests) == 2
    assert all("Authorization: Bearer t0ken" in each for each in requests)


def test_a_kept_connection_that_was_closed_is_opened_again():
    with serving([answer(INFO)], [answer(INFO)]) as (url, requests):
        assert call(url, twice) == []
    assert len(requests) == 2


def test_an_answer_to_try_later_is_tried_later():
    busy = answer(b"", "503 Busy", "Retry-After: 0\r\n", "Connection: close\r\n")
    with serving([busy], [answer(INFO)]) as (url, requests):
        assert call(url, pools) == []
    assert len(requests) == 2


def test_errors_are_those_of_the_other_client():
    refused = serving([answer(PROBLEM, "404 Not Found")])
    with refused as (url, _), pytest.raises(RequestRefused, match="no run r"):
        call(url, lambda client: client.run("r"))
    with pytest.raises(Unavailable, match=r"no server answers at \S+ \(Connection refused\)"):
        call(url, pools)
    with pytest.raises(Unavailable, match="the host name cannot be resolved"):
        call("http://nowhere.invalid", pools)


def test_a_response_that_ends_early_is_an_error():
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
    with serving([short]) as (url, _), pytest.raises(Unavailable, match="the connection was lost"):
        call(url, pools)


def test_a_silent_server_is_given_up():
    with serving() as (url, _), pytest.raises(Unavailable, match="it takes too long"):
        call(url, pools, timeout_seconds=0.05)


def test_lines_of_a_stream_come_as_they_are_written():
    line = b'{"attempt": 1, "time": "2026-11-20T00:00:00Z", "stream": "out", "message": "%d"}\n'
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (line % 1, line % 2))
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    async def logs(client):
        return [each.message async for each in client.logs("r", "t", follow=True)]

    with serving([stream]) as (url, requests):
        assert call(url, logs) == ["1", "2"]
    assert requests[0].startswith("GET /api/v1/runs/r/tasks/t/logs?follow=true ")


@types.coroutine
def suspend():
    yield


def test_what_needs_an_event_loop_is_not_run_without_one():
    with pytest.raises(RuntimeError, match="waits for an event loop"):
        complete(suspend())

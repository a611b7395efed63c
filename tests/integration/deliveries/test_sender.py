"""Requests end, whatever a receiver does, and go nowhere else."""

from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID

import anyio
import pytest

from pubsubflow.deliveries.sender import Sender, read_retry_after
from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.model.cloud_events import SOURCE, UPDATED, CloudEvent
from pubsubflow.model.subscriptions import EventSubscription, SubscriptionSpec

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVENT = CloudEvent("1", SOURCE, UPDATED, NOW, data={})
LINE = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def answering(answer, **settings):
    """Answer every connection by a function; yield what sends to it."""
    requested = []

    async def handle(stream):
        async with stream:
            requested.append(await stream.receive())
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await answer(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    subscription = EventSubscription(
        UUID(int=1), 1, SubscriptionSpec(f"http://127.0.0.1:{port}/x"), None, 0
    )
    chosen = DeliverySettings(**settings)
    async with (
        listener,
        anyio.create_task_group() as group,
        Sender.open(chosen, allow_private=lambda: True) as sender,
    ):
        group.start_soon(listener.serve, handle)
        yield (lambda: sender.send(subscription, EVENT, b"k" * 32)), requested
        group.cancel_scope.cancel()


async def test_an_endless_answer_is_read_to_its_limit_alone():
    async def endless(stream):
        await stream.send(LINE + b"Content-Type: text/plain\r\n\r\n")
        while True:
            await stream.send(b"x" * 65536)

    async with answering(endless, max_answer_bytes=100) as (send, _):
        reply = await send()
    assert reply.accepted
    assert reply.reason == "200 OK: " + "x" * 100


async def test_an_answer_that_does_not_end_is_given_up():
    async def trickle(stream):
        await stream.send(LINE + b"Content-Length: 10\r\n\r\nx")
        await anyio.sleep_forever()

    async with answering(trickle, timeout_seconds=0.2) as (send, _):
        reply = await send()
    assert (reply.status, reply.reason) == (None, "no answer within 0.2 s")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status):
    async def redirect(stream):
        head = f"HTTP/1.1 {status} Moved\r\nLocation: /secret\r\nContent-Length: 0\r\n\r\n"
        await stream.send(head.encode())

    async with answering(redirect) as (send, requested):
        reply = await send()
    assert (reply.status, reply.accepted) == (status, False)
    assert len(requested) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 999\r\n\r\n", b"garbage\r\n\r\n", LINE + b"x" * 70000],
)
async def test_nonsense_is_an_answer_that_was_not_taken(answer):
    async def speak(stream):
        await stream.send(answer)

    async with answering(speak) as (send, _):
        reply = await send()
    assert not reply.accepted
    assert reply.reason
    assert "\n" not in reply.reason


async def test_a_compressed_answer_is_not_unpacked():
    async def bomb(stream):
        await stream.send(LINE + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\0\0")

    async with answering(bomb) as (send, _):
        assert (await send()).accepted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Fri, 20 Nov 2026 12:01:00 GMT", 60.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert read_retry_after(text, NOW) == seconds

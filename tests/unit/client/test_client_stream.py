"""Server-sent events as clients read them."""

import itertools
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.client.stream import EventStreamParser, StreamMessage, follow
from pubsubflow.model.changes import StreamReset

STREAM = (
    "\ufeff: a comment\nretry: 250\nid: 1\n\n"
    "event: run\nid: 2\ndata: {}\r\n\r\n"
    "data:two\rdata:  lines\r\r"
    "id: 3\nid: no\0ne\nevent: lost\n\n"
    "unknown: field\ndata\n\n"
    "data: żółć\n\nid: 4\ndata: cut off"
)
MESSAGES = [
    StreamMessage("2", "run", "{}"),
    StreamMessage("2", "message", "two\n lines"),
    StreamMessage("3", "message", ""),
    StreamMessage("3", "message", "żółć"),
]


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.integers(0, len(STREAM.encode()))))
def test_messages_do_not_depend_on_how_bytes_come(cuts):
    data = STREAM.encode()
    parser, found = EventStreamParser(), []
    places = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(places):
        found += parser.feed(data[start:end])
    assert found == MESSAGES
    assert (parser.last_id, parser.retry_seconds) == ("3", 0.25)


def test_a_message_says_what_happened():
    assert StreamMessage("1", "reset", '{"reason":"expired"}').change() == StreamReset(
        reason="expired"
    )
    assert StreamMessage("1", "later", "{}").change() is None


@pytest.mark.anyio
async def test_following_goes_on_after_the_last_message():
    requested = []

    @asynccontextmanager
    async def connect(last_id):
        requested.append(last_id)

        async def chunks():
            if len(requested) == 2:
                raise ConnectionError
            yield b"retry: 1\nid: a%d\n\n" % len(requested)
            yield b"id: b%d\ndata: x\n\nid: c\ndata: half" % len(requested)
            if len(requested) == 3:
                raise ConnectionError

        yield chunks()

    found = []
    async for message in follow(connect, last_id="start", breaks=(ConnectionError,)):
        found.append(message.id)
        if len(found) == 3:
            break
    assert found == ["b1", "b3", "b4"]
    assert requested == ["start", "b1", "b1", "b3"]

"""Server-sent events as clients read them."""

import itertools
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.client.stream import Message, Parser, follow
from pubsubflow.model.changes import ResetNews

STREAM = (
    "\ufeff: a comment\nretry: 250\nid: 1\n\n"
    "event: run\nid: 2\ndata: {}\r\n\r\n"
    "data:two\rdata:  lines\r\r"
    "id: 3\nid: no\0ne\nevent: lost\n\n"
    "unknown: field\ndata\n\n"
    "data: żółć\n\nid: 4\ndata: cut off"
)
MESSAGES = [
    Message("2", "run", "{}"),
    Message("2", "message", "two\n lines"),
    Message("3", "message", ""),
    Message("3", "message", "żółć"),
]


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.integers(0, len(STREAM.encode()))))
def test_messages_do_not_depend_on_how_bytes_come(cuts):
    data = STREAM.encode()
    parser, found = Parser(), []
    places = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(places):
        found += parser.feed(data[start:end])
    assert found == MESSAGES
    assert (parser.last_id, parser.retry_seconds) == ("3", 0.25)


def test_a_message_says_what_happened():
    assert Message("1", "reset", '{"reason":"expired"}').news() == ResetNews(reason="expired")
    assert Message("1", "later", "{}").news() is None


@pytest.mark.anyio
async def test_following_goes_on_after_the_last_message():
    asked = []

    @asynccontextmanager
    async def connect(last_id):
        asked.append(last_id)

        async def chunks():
            if len(asked) == 2:
                raise ConnectionError
            yield b"retry: 1\nid: a%d\n\n" % len(asked)
            yield b"id: b%d\ndata: x\n\nid: c\ndata: half" % len(asked)
            if len(asked) == 3:
                raise ConnectionError

        yield chunks()

    found = []
    async for message in follow(connect, last_id="start", breaks=(ConnectionError,)):
        found.append(message.id)
        if len(found) == 3:
            break
    assert found == ["b1", "b3", "b4"]
    assert asked == ["start", "b1", "b1", "b3"]

"""A worker repeats its requests until a manager can answer them."""

import anyio
import pytest
import structlog

from pubsubflow.errors import BusUnavailable
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    LATER,
    LATER_HEADER,
    Chunk,
    SourceRequest,
    is_later,
)
from pubsubflow.worker.manager_client import ManagerClient

pytestmark = pytest.mark.anyio

LATER_REPLY = encode(Chunk(b"", 0, f"{LATER}Postgres is away"))
ANSWER = encode(Chunk(b"code", 4))


class Managers:
    """Replies to requests, one after another; None stays without a reply."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []

    async def request(self, subject, *more):
        self.asked.append((subject, more[2:]))
        reply = self.replies.pop(0)
        if reply is None:
            raise BusUnavailable("no reply")
        return reply


async def requested(managers):
    async with anyio.create_task_group() as group:
        client = ManagerClient(managers, group, ask_seconds=5)
        with structlog.testing.capture_logs() as logs:
            chunk = await client.request(SourceRequest("x"))
            forwarded = []
            managers.replies += [LATER_REPLY, ANSWER]
            client.forward(encode(SourceRequest("x")), forwarded.append)
            while not forwarded:
                await anyio.lowlevel.checkpoint()
        assert forwarded == [ANSWER]
    return chunk, [each["event"] for each in logs]


async def test_a_manager_without_its_store_is_not_lost():
    managers = Managers(LATER_REPLY, LATER_REPLY, ANSWER)
    chunk, logs = await requested(managers)
    assert (chunk.data, logs) == (b"code", [])
    # One that lives is not passed over.
    assert {subject for subject, _ in managers.asked} == {Subjects.WORKER_REQUEST}
    assert all(headers == ({LATER_HEADER: "1"},) for _, headers in managers.asked)


async def test_managers_that_do_not_reply_are_lost():
    chunk, logs = await requested(Managers(None, None, ANSWER))
    assert chunk.data == b"code"
    assert logs == ["worker.managers_lost", "worker.managers_recovered"]


def test_an_answer_is_not_taken_for_a_refusal():
    assert is_later(LATER_REPLY)
    assert not is_later(ANSWER)
    assert not is_later(encode(Chunk(LATER.encode(), 9)))
    assert not is_later(encode(Chunk(b"", 0, "no manager has it")))

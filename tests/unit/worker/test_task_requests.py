"""Requests of a runner process: none is passed on in the name of a task that runs elsewhere."""

from types import SimpleNamespace

import msgspec
import pytest

from pubsubflow.model.connections import make_connection
from pubsubflow.model.wire.messages import JournalEntry, encode
from pubsubflow.model.wire.worker_requests import (
    LEASE_LOST,
    REFUSED,
    Chunk,
    ConnectionRequest,
    JournalEntryRequest,
    PullRequest,
    StartRunRequest,
    VariableRequest,
    WantedRun,
    decode_chunk,
)
from pubsubflow.runner.protocol import REQUEST
from pubsubflow.runner.redaction import Redactor
from pubsubflow.worker.processes.task_requests import TaskRequests

FENCE = (0, -1, 1, 1)
ENTRY = JournalEntry("k", "label", "step", b"\xc0")


class Managers:
    def __init__(self):
        self.passed, self.replies = [], []
        self.redactor = Redactor()
        here = SimpleNamespace(header=SimpleNamespace(run=7))
        assignments = SimpleNamespace(running=[here])
        self.requests = TaskRequests(assignments, self, self.redactor, self.reply)

    def on_request(self, request, reply):
        self.passed.append(request)
        reply(encode(Chunk(encode(make_connection("x", secrets={"token": "hush-hush"})), 1)))

    def reply(self, number, chunk):
        self.replies.append((number, decode_chunk(chunk)))

    def send(self, body):
        self.requests.pass_on(REQUEST, 5, body)
        return self.replies[-1][1]


@pytest.fixture
def managers():
    return Managers()


def requests(run):
    return [
        ConnectionRequest(run, *FENCE, "warehouse"),
        VariableRequest(run, *FENCE, "key"),
        StartRunRequest(run, *FENCE, WantedRun("d")),
        JournalEntryRequest(run, *FENCE, ENTRY),
    ]


@pytest.mark.parametrize("request_", requests(8), ids=lambda each: type(each).__name__)
def test_what_is_for_the_owner_of_a_fence_is_not_requested_for_a_run_elsewhere(managers, request_):
    assert managers.send(encode(request_)).error.startswith(LEASE_LOST)
    assert managers.passed == []


def test_other_ways_to_write_the_same_request_are_no_way_around(managers):
    """MessagePack has several: a longer header of the array, a longer one of the text."""
    _, *rest = msgspec.msgpack.decode(encode(requests(8)[0]))
    tail = b"".join(map(msgspec.msgpack.encode, rest))
    for head in (b"\xdc\x00\x07", b"\xdd\x00\x00\x00\x07"):
        for tag in (b"\xd9\x0aconnection", b"\xda\x00\x0aconnection"):
            assert managers.send(head + tag + tail).error.startswith(LEASE_LOST)
    assert managers.send(b"\xc1").error.startswith(f"{REFUSED}not a request")
    assert managers.passed == []


def test_the_rest_is_passed_on_as_it_is_and_secrets_are_redacted(managers):
    allowed = [encode(requests(7)[0]), encode(PullRequest(8, "t", "k"))]
    for body in allowed:
        assert managers.send(body).total == 1
    assert managers.passed == allowed
    assert "hush" not in str(managers.redactor.value("hush-hush"))

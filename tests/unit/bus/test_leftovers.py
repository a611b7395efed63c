"""Leftovers of work queues: what is acknowledged is removed, and nothing else."""

import msgspec
import pytest

from pubsubflow.bus.leftovers import remove_leftovers
from pubsubflow.bus.streams import STREAM_IN, STREAM_TASK

pytestmark = pytest.mark.anyio


class JetStream:
    """Answers as JetStream does, and keeps what it was asked."""

    def __init__(self, messages: int, consumers: list[dict]):
        self._answers = {
            "STREAM.INFO": {"state": {"messages": messages}},
            "CONSUMER.LIST": {"total": len(consumers), "consumers": consumers},
            "STREAM.PURGE": {"success": True, "purged": 1},
        }
        self.purged: list[dict] = []

    async def request(self, subject: str, payload: bytes, _seconds: float, /) -> bytes:
        call, _, stream = subject.removeprefix("$JS.API.").rpartition(".")
        assert stream in (STREAM_IN, STREAM_TASK)
        if call == "STREAM.PURGE":
            self.purged.append(msgspec.json.decode(payload))
        empty = call == "STREAM.INFO" and stream == STREAM_IN
        return msgspec.json.encode({} if empty else self._answers[call])


def consumer(subject: str, floor: int, waiting: int = 0, delivered: int = 0) -> dict:
    return {
        "config": {"filter_subject": subject},
        "ack_floor": {"stream_seq": floor},
        "num_pending": waiting,
        "num_ack_pending": delivered,
    }


async def test_messages_below_the_floors_of_their_consumers_are_removed():
    consumers = [consumer("psf.task.a.>", 7, waiting=1), consumer("psf.task.b.>", 4)]
    server = JetStream(3, consumers)
    assert await remove_leftovers(server) == 2
    assert server.purged == [
        {"filter": "psf.task.a.>", "seq": 8},
        {"filter": "psf.task.b.>", "seq": 5},
    ]


@pytest.mark.parametrize("consumers", [[consumer(">", 7, 2, 1)], []], ids=["waiting", "none"])
async def test_nothing_is_removed_where_all_waits(consumers):
    server = JetStream(3, consumers)
    assert await remove_leftovers(server) == 0
    assert server.purged == []

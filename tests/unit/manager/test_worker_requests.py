"""A manager whose store is away says so to workers that understand it."""

import anyio
import pytest

from pubsubflow.bus import Message
from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager.worker_requests import WorkerRequestServer
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import LATER_HEADER, SourceRequest, is_later

pytestmark = pytest.mark.anyio


class Away:
    """A Postgres that is away, and the uptime that ends with it."""

    restarts = 0

    def connection(self):
        raise StoreUnavailable("Postgres is away")

    def restart(self):
        self.restarts += 1


async def test_who_understands_it_is_told_to_come_again():
    sent = []
    away = Away()
    server = WorkerRequestServer(away, away, tasks=1)
    header = f"NATS/1.0\r\n{LATER_HEADER}: 1\r\n\r\n".encode()
    for subject, block in (
        (Subjects.WORKER_REQUEST, b""),  # a worker of an earlier version
        (Subjects.WORKER_REQUEST_TO_ALL, header),  # another manager may be able to answer
        (Subjects.WORKER_REQUEST, header),
    ):
        request = encode(SourceRequest("x"))
        server.receive(Message(sent.append, subject.encode(), b"inbox", request, block))
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(server.run, stopping)
        while away.restarts < 3:
            await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        stopping.set()
    [reply] = sent
    assert is_later(reply.partition(b"\r\n")[2])

"""Readers of the live stream and subscribers get every event although their daemon is killed."""

import json
import os
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest

from pubsubflow.client.stream import EventStreamParser, follow
from support.faults.daemon import DaemonOptions
from support.faults.daemons import MARK, DaemonProcess, await_no_process
from support.receiver import Receiver

pytestmark = pytest.mark.anyio

EVENTS = 40
KILLED_AFTER = 60
"""Messages of the stream."""
DELIVERED = 3
"""Deliveries of each subscription before the kill."""
DATASET = "x://go"
RUNNING = ("run", "running")
BREAKS = (aiohttp.ClientError, OSError, TimeoutError, EOFError)
DAGS = """
from pubsubflow import Dataset, dag, task

@dag(schedule=Dataset("x://go"), max_active_runs=100)
def work():
    @task
    async def step() -> None: ...
    step()
"""


class StreamReader:
    """What one reader has got so far, over all its connections."""

    def __init__(self, member, session):
        self._member = member
        self._session = session
        self.messages = []
        self._more = anyio.Event()

    @asynccontextmanager
    async def connect(self, last_id):
        await self._member.ready.wait()
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        url = f"{self._member.url}/api/v1/stream"
        async with self._session.get(url, headers=headers) as response:
            if response.status != 200:
                raise EOFError(response.status)
            yield response.content.iter_any()

    async def start(self):
        """Return the id of a stream's beginning."""
        parser = EventStreamParser()
        async with self.connect(None) as chunks:
            async for chunk in chunks:
                parser.feed(chunk)
                if parser.last_id is not None:
                    return parser.last_id
        raise EOFError

    async def read(self, start):
        async for message in follow(self.connect, last_id=start, breaks=BREAKS):
            self.messages.append(message)
            self._more.set()

    async def until(self, condition):
        while not condition():
            self._more = anyio.Event()
            await self._more.wait()

    def done(self):
        """Return how many events' runs have begun."""
        return sum(each.event == "task" for each in self.messages)


async def post(member, session):
    """Post events until each is accepted, however often the daemon dies meanwhile."""
    for number in range(EVENTS):
        event = {"dataset": DATASET, "id": f"go-{number}", "extra": {"name": number}}
        while True:
            await member.ready.wait()
            try:
                url = f"{member.url}/api/v1/datasets/events"
                async with session.post(url, json=event) as answer:
                    if answer.status in (200, 202):
                        break
            except BREAKS:
                await anyio.sleep(0.01)


async def subscribe(member, session, receiver):
    """Subscribe twice, of which one keeps the order."""
    for name in ("ordered", "unordered"):
        spec = {"url": f"{receiver.url}/{name}", "ordered": name == "ordered", "dataset": DATASET}
        async with session.post(f"{member.url}/api/v1/subscriptions", json=spec) as answer:
            assert answer.status == 201
            receiver.secrets[name] = (await answer.json())["secret"]


def check_stream(reader):
    """Check that each event and each beginning of a run came, and came once."""
    messages = [(each.event, json.loads(each.data)) for each in reader.messages]
    assert len({each.id for each in reader.messages}) == len(messages)
    assert (
        sum(kind == "dataset" and what["dataset"] == DATASET for kind, what in messages) == EVENTS
    )
    running = [what["run_id"] for kind, what in messages if (kind, what.get("state")) == RUNNING]
    assert len(set(running)) == len(running) == EVENTS


def check_deliveries(receiver):
    """Check that each event was delivered under one name, and in order where that is kept."""
    assert receiver.names("ordered") == list(range(EVENTS))
    for name in receiver.secrets:
        names = {(got.name, got.webhook_id) for got in receiver.received[name]}
        assert len(names) == EVENTS


async def test_readers_and_subscribers_go_on_over_the_death_of_their_daemon(tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "work.py").write_text(DAGS)
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(tmp_path / "home"),
        roles=frozenset({"api", "manager", "scheduler"}),
        dags=str(folder),
    )
    mark = str(tmp_path)
    member = DaemonProcess("one", options, {**os.environ, MARK: mark}, tmp_path)
    timeout = aiohttp.ClientTimeout(sock_connect=5)
    with anyio.fail_after(240):
        async with (
            Receiver().serving() as receiver,
            anyio.create_task_group() as group,
            aiohttp.ClientSession(timeout=timeout) as web,
        ):
            await group.start(member.keep)
            await subscribe(member, web, receiver)
            reader = StreamReader(member, web)
            start = await reader.start()
            group.start_soon(reader.read, start)
            group.start_soon(post, member, web)
            await reader.until(lambda: len(reader.messages) >= KILLED_AFTER)
            await receiver.until(
                lambda: all(len(receiver.received[name]) > DELIVERED for name in receiver.secrets)
            )
            member.kill()
            await member.ready.wait()
            await reader.until(lambda: reader.done() == EVENTS)
            again = StreamReader(member, web)
            group.start_soon(again.read, start)
            await again.until(lambda: again.done() == EVENTS)
            shared = min(len(again.messages), len(reader.messages))
            assert again.messages[:shared] == reader.messages[:shared]
            await receiver.until(
                lambda: all(len(receiver.names(name)) == EVENTS for name in receiver.secrets)
            )
            await member.stop()
            group.cancel_scope.cancel()
    await await_no_process(mark)
    check_stream(reader)
    check_deliveries(receiver)
    assert member.unexpected_exits == []

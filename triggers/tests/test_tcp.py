import socket
from datetime import timedelta

import pytest
from pubsubflow_triggers import TcpPort

from pubsubflow.errors import DefinitionError
from pubsubflow.testing import TrialContext, round_trip, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def door():
    """A socket with an address, on which no server listens yet."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        yield door


async def test_it_fires_when_the_port_opens(door):
    host, port = door.getsockname()
    async with running(TcpPort(host=host, port=port)) as run:
        await run.ctx.until("sleep", 2)
        assert run.events == []
        door.listen()
        assert (await run.next()).payload == {"host": host, "port": port, "open": True}


async def test_it_fires_when_the_port_closes_and_again_after_it_was_open(door):
    host, port = door.getsockname()
    door.listen()
    async with running(TcpPort(host=host, port=port, open=False)) as run:
        await run.ctx.until("sleep", 2)
        assert run.events == []
        door.close()
        first = await run.next()
        await run.ctx.until("sleep", run.ctx.seen["sleep"] + 2)
        assert len(run.events) == 1
        with socket.create_server((host, port)):
            await run.ctx.until("sleep", run.ctx.seen["sleep"] + 2)
        second = await run.next()
    assert first.payload == second.payload == {"host": host, "port": port, "open": False}


async def test_of_a_host_without_an_address_nothing_is_said():
    trigger = TcpPort(host="nowhere.invalid", port=80, open=False)
    async with running(trigger) as run:
        await run.ctx.until("tcp.no_address", 2)
        assert run.events == []


async def test_what_was_told_is_not_told_again_after_a_restart(door):
    door.listen()
    host, port = door.getsockname()
    async with running(TcpPort(host=host, port=port), TrialContext(position=True)) as run:
        await run.ctx.until("sleep", 2)
        assert run.events == []


def test_fields_are_the_serialised_form():
    trigger = TcpPort(host="db", port=5432, timeout=timedelta(seconds=1))
    assert round_trip(trigger) == trigger
    assert round_trip(trigger).share_key() == trigger.share_key()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TcpPort(host="", port=1), "host"),
        (lambda: TcpPort(host="a", port=0), "port"),
        (lambda: TcpPort(host="a", port=70000), "port"),
        (lambda: TcpPort(host="a", port=1, interval=timedelta(0)), "interval"),
        (lambda: TcpPort(host="a", port=1, timeout=timedelta(0)), "timeout"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()

"""Subscribers get every event although the delivering daemon dies by `kill -9`."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import anyio
import asyncpg
import pytest

from pubsubflow.embedded import EmbeddedServers
from support.faults.daemon import DaemonOptions
from support.faults.daemons import DaemonProcess
from support.receiver import Receiver

pytestmark = pytest.mark.anyio

EVENTS = 40


async def test_every_event_is_delivered_under_one_name_although_the_daemon_dies(tmp_path):
    (tmp_path / "dags").mkdir()
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(tmp_path / "home"),
        roles=frozenset({"api", "manager", "scheduler"}),
        dags=str(tmp_path / "dags"),
    )
    member = DaemonProcess("one", options, dict(os.environ), tmp_path)
    async with (
        Receiver().serving() as receiver,
        anyio.create_task_group() as group,
        aiohttp.ClientSession() as session,
    ):
        await group.start(member.keep)
        for name in ("ordered", "unordered"):
            spec = {"url": f"{receiver.url}/{name}", "ordered": name == "ordered"}
            url = f"{member.url}/api/v1/subscriptions"
            async with session.post(url, json=spec) as answer:
                assert answer.status == 201
                receiver.secrets[name] = (await answer.json())["secret"]
        events = [{"dataset": "x://y", "extra": {"name": n}} for n in range(EVENTS)]
        async with session.post(f"{member.url}/api/v1/datasets/events", json=events) as answer:
            assert answer.status == 202
        await receiver.until(
            lambda: all(len(receiver.received[name]) > 3 for name in receiver.secrets)
        )
        member.kill()
        await receiver.until(
            lambda: all(len(receiver.names(name)) == EVENTS for name in receiver.secrets)
        )
        await member.stop()
        group.cancel_scope.cancel()
    assert receiver.names("ordered") == list(range(EVENTS))
    for name in receiver.secrets:
        names = {(got.name, got.webhook_id) for got in receiver.received[name]}
        assert len(names) == EVENTS
    assert member.unexpected_exits == []


def two_daemons(servers, folder):
    """Return daemons on the same servers, each with a home of its own."""
    (folder / "dags").mkdir()
    for name in ("one", "two"):
        options = DaemonOptions(
            parent=os.getpid(),
            home=str(folder / name),
            roles=frozenset({"api", "manager", "scheduler"}),
            dags=str(folder / "dags"),
            nats_url=servers.nats.url,
            nats_token=servers.nats.token,
            postgres_url=servers.postgres.dsn,
            key_file=str(folder / "keys"),
        )
        yield DaemonProcess(name, options, dict(os.environ), folder)


async def deliverer(servers, members):
    """Return the daemon that delivers."""
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        owner = await connection.fetchval("SELECT owner FROM lease")
    finally:
        await connection.close()
    return next(member for member in members if f"-{member.pid}-" in owner)


async def post(session, member, numbers):
    events = [{"dataset": "x://y", "extra": {"name": number}} for number in numbers]
    async with session.post(f"{member.url}/api/v1/datasets/events", json=events) as answer:
        assert answer.status == 202


async def test_another_daemon_goes_on_when_the_one_that_delivers_is_killed(tmp_path):
    with TemporaryDirectory(prefix="psf-fault-") as home:
        async with (
            EmbeddedServers(Path(home)) as servers,
            Receiver().serving() as receiver,
            anyio.create_task_group() as group,
            aiohttp.ClientSession() as session,
        ):
            members = list(two_daemons(servers, tmp_path))
            for member in members:
                await group.start(member.keep)
            spec = {"url": f"{receiver.url}/all"}
            url = f"{members[0].url}/api/v1/subscriptions"
            async with session.post(url, json=spec) as answer:
                receiver.secrets["all"] = (await answer.json())["secret"]
            await post(session, members[0], range(EVENTS))
            await receiver.until(lambda: len(receiver.received["all"]) > 3)
            dead = await deliverer(servers, members)
            dead.kill()
            other = next(member for member in members if member is not dead)
            await post(session, other, range(EVENTS, 2 * EVENTS))
            await receiver.until(lambda: len(receiver.names("all")) == 2 * EVENTS)
            for member in members:
                await member.stop()
            group.cancel_scope.cancel()
    assert receiver.names("all") == list(range(2 * EVENTS))

"""Subscribers get every event although whoever delivers dies by `kill -9` amid deliveries."""

import os

import aiohttp
import anyio
import pytest
from fault_daemon import Order
from fault_daemons import Member
from receiver_rig import Receiver

pytestmark = pytest.mark.anyio

EVENTS = 40


async def test_every_event_is_delivered_under_one_name_although_the_daemon_dies(tmp_path):
    (tmp_path / "dags").mkdir()
    order = Order(
        parent=os.getpid(),
        home=str(tmp_path / "home"),
        roles=frozenset({"api", "manager", "scheduler"}),
        dags=str(tmp_path / "dags"),
    )
    member = Member("one", order, dict(os.environ), tmp_path)
    receiver = Receiver()
    async with anyio.create_task_group() as group, aiohttp.ClientSession() as session:
        await group.start(receiver.serve)
        await group.start(member.keep)
        for name in ("ordered", "unordered"):
            asked = {"url": f"{receiver.url}/{name}", "ordered": name == "ordered"}
            url = f"{member.url}/api/v1/subscriptions"
            async with session.post(url, json=asked) as answer:
                assert answer.status == 201
                receiver.secrets[name] = (await answer.json())["secret"]
        events = [{"dataset": "x://y", "extra": {"name": n}} for n in range(EVENTS)]
        async with session.post(f"{member.url}/api/v1/datasets/events", json=events) as answer:
            assert answer.status == 202
        await receiver.until(lambda: all(len(receiver.got[name]) > 3 for name in receiver.secrets))
        member.kill()
        await receiver.until(
            lambda: all(len(receiver.names(name)) == EVENTS for name in receiver.secrets)
        )
        await member.stop()
        group.cancel_scope.cancel()
    assert receiver.names("ordered") == list(range(EVENTS))
    for name in receiver.secrets:
        names = {(got.name, got.webhook_id) for got in receiver.got[name]}
        assert len(names) == EVENTS
    assert member.unplanned == []

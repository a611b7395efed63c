"""A subscription in a fault round: the daemon that delivers is killed, and another one goes on."""

import aiohttp
import anyio
import asyncpg

from support.faults.daemons import DaemonProcess
from support.faults.environment import Environment
from support.receiver import Receiver

EVENTS = 40
DATASET = "deliveries://fault"
_PAUSE_SECONDS = 0.05


async def kill_deliverer(environment: Environment):
    """Subscribe, post, and kill the daemon that delivers; every event must come all the same."""
    async with Receiver().serving() as receiver, aiohttp.ClientSession() as session:
        url = f"{environment.members[0].url}/api/v1/subscriptions"
        spec = {"url": f"{receiver.url}/all", "dataset": DATASET}
        async with session.post(url, json=spec) as answer:
            assert answer.status == 201, await answer.text()
            created = await answer.json()
        receiver.secrets["all"] = created["secret"]
        await _post(session, environment.members[0], range(EVENTS))
        await receiver.until(lambda: len(receiver.received["all"]) > 3)
        dead = await _deliverer(environment)
        dead.kill()
        other = next(member for member in environment.members if member is not dead)
        await _post(session, other, range(EVENTS, 2 * EVENTS))
        await receiver.until(lambda: len(receiver.names("all")) == 2 * EVENTS)
        assert receiver.names("all") == list(range(2 * EVENTS))
        async with session.delete(f"{other.url}/api/v1/subscriptions/{created['id']}") as answer:
            assert answer.status in (200, 204), await answer.text()


async def _deliverer(environment: Environment) -> DaemonProcess:
    """Return the daemon that delivers."""
    connection = await asyncpg.connect(environment.dsn)
    try:
        with anyio.fail_after(60):
            while True:
                owner = await connection.fetchval("SELECT owner FROM lease")
                for member in environment.members:
                    if owner is not None and f"-{member.pid}-" in owner:
                        return member
                await anyio.sleep(_PAUSE_SECONDS)
    finally:
        await connection.close()


async def _post(session: aiohttp.ClientSession, member: DaemonProcess, numbers: range):
    events = [{"dataset": DATASET, "extra": {"name": number}} for number in numbers]
    async with session.post(f"{member.url}/api/v1/datasets/events", json=events) as answer:
        assert answer.status == 202, await answer.text()

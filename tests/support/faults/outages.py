"""Outages: a server is away under load; daemons wait, say so once, and go on."""

import time
from collections import Counter
from pathlib import Path

import anyio
import msgspec

from support.faults.daemons import DaemonProcess
from support.faults.environment import Environment, open_environment
from support.faults.load import Load
from support.faults.rounds import (
    FAULTS,
    SETTLE_SECONDS,
    RoundReport,
    finish_round,
    reach_a_moment,
)

AWAY_SECONDS = 10
SERVERS = ("postgres", "nats")
BUSY = (
    *("worker.loop_blocked", "worker.lost", "triggerer.peer_expired", "triggerer.leases_lost"),
    *("bus.publish_timed_out", "bus.streams_unavailable", "sweeper.tasks_republished"),
    "api.backpressure_changed",
)
"""What a machine that is busy with other rounds makes a daemon warn of, without an outage, too."""


async def run_outage(server: str, daemons: str, *, seed: int, folder: Path) -> RoundReport:
    """Run a round in which a server is away for `AWAY_SECONDS`, and check it."""
    started = time.monotonic()
    async with open_environment(FAULTS[server], daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        await take_away_under_load(environment, load, server)
        report = await finish_round(environment, load, server, daemons, seed)
        await check_outage(server, load, environment.members)
    assert report.runs >= load.runs
    return msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))


async def take_away_under_load(environment: Environment, load: Load, server: str):
    """Post one load, and keep a server away for `AWAY_SECONDS` from a random moment on.

    Without NATS all posts are accepted before it is back, without Postgres those of the outage
    are not.
    """
    killed, accepted = anyio.Event(), anyio.Event()

    async def post():
        async with anyio.create_task_group() as posting:
            posting.start_soon(load.post)
            await killed.wait()
            # On a busy machine the load may be posted by now, and only its tasks still run.
            await load.post_steadily(1)
        accepted.set()

    async with anyio.create_task_group() as group, environment.repair.off():
        group.start_soon(post)
        await reach_a_moment(environment, load)
        FAULTS[server].inject(environment)
        environment.injected_at.append(time.time())
        killed.set()
        await anyio.sleep(AWAY_SECONDS)
        if server == "nats":
            with anyio.fail_after(SETTLE_SECONDS):
                await accepted.wait()
        else:
            assert not accepted.is_set()


async def check_outage(server: str, load: Load, members: list[DaemonProcess]):
    """Check what callers and supervisors have noticed since the logs were marked."""
    if server == "nats":
        assert load.refusals == []
    else:
        assert set(load.refusals) == {(503, "1")}
    away, back = {
        "nats": ("bus.disconnected", "bus.reconnected"),
        "postgres": ("manager.store_away", "manager.store_back"),
    }[server]
    for member in members:
        assert len(await member.until_logged(away)) == 1
        assert len(await member.until_logged(back)) == 1
        said = Counter(warning["event"] for warning in member.warnings())
        for event in BUSY:
            del said[event]
        assert all(count == 1 for count in said.values()), said

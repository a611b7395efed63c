"""What goes wrong on a cluster: each part is killed, frozen, cut off or slow for a while."""

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp
import anyio
import msgspec

from support.cluster.environment import DAEMONS, NATS, POSTGRES, Cluster
from support.cluster.nats import GROUPS, NatsNode

AWAY_SECONDS = 5
"""For how long a server that was killed is away."""
FROZEN_SECONDS = 14
"""Longer than any lease."""
CUT_SECONDS = 14
FROZEN_POSTGRES_SECONDS = 4
SLOW_SECONDS = 8
SLOW_MILLISECONDS = 40
"""Each way."""
READY_SECONDS = 60
STEPS_DOWN = 6
STEP_PAUSE_SECONDS = 0.7

Inject = Callable[[Cluster], Awaitable[None]]


class ClusterFault(msgspec.Struct, frozen=True):
    """A fault.

    Attributes:
        inject: Breaks something and mends it again.
        separate: It needs machines with networks of their own.
    """

    inject: Inject
    separate: bool = False


async def _kill_daemon(name: str, cluster: Cluster):
    """Its supervisor starts it again at once."""
    cluster.member(name).kill()


async def _freeze_daemon(name: str, cluster: Cluster):
    member = cluster.member(name)
    os.kill(member.pid, signal.SIGSTOP)
    try:
        await anyio.sleep(FROZEN_SECONDS)
    finally:
        os.kill(member.pid, signal.SIGCONT)


async def _leader(cluster: Cluster) -> NatsNode:
    """Choose the server that leads one of the streams with work."""
    return await cluster.nats_cluster.leader(cluster.chance.choice(("PSF_IN", "PSF_TASK")))


async def _kill_nats(cluster: Cluster):
    node = await _leader(cluster)
    node.end()
    await anyio.sleep(AWAY_SECONDS)
    node.start()


async def _lose_quorum(cluster: Cluster):
    """Two servers of three are away until each daemon says that it is not ready, and then are back.

    The third one keeps its clients, so that only the streams' leaders say what is wrong.
    """
    nodes = cluster.chance.sample(cluster.nats_cluster.nodes, 2)
    for node in nodes:
        node.end()
    await _until_ready(cluster, ready=False)
    for node in nodes:
        node.start()
    await _until_ready(cluster, ready=True)


async def _until_ready(cluster: Cluster, *, ready: bool):
    urls = [cluster.member(name).url for name, roles in DAEMONS.items() if "api" in roles]
    with anyio.fail_after(READY_SECONDS):
        async with aiohttp.ClientSession() as session:
            for url in urls:
                while await _nats_is_ready(session, url) is not ready:  # noqa: ASYNC110 - elsewhere
                    await anyio.sleep(0.2)


async def _nats_is_ready(session: aiohttp.ClientSession, url: str) -> bool | None:
    try:
        async with session.get(f"{url}/readyz") as answer:
            return (await answer.json())["checks"]["nats"]
    except (aiohttp.ClientError, TimeoutError):
        return None


async def _freeze_nats(cluster: Cluster):
    node = await _leader(cluster)
    node.send(signal.SIGSTOP)
    try:
        await anyio.sleep(FROZEN_SECONDS)
    finally:
        node.send(signal.SIGCONT)


async def _change_leaders(cluster: Cluster):
    stepped = 0
    while stepped < STEPS_DOWN:
        stepped += await cluster.nats_cluster.step_down(cluster.chance.choice(GROUPS))
        await anyio.sleep(STEP_PAUSE_SECONDS)


async def _restart_primary(cluster: Cluster):
    """It is killed, and is back before anyone promotes the standby."""
    cluster.pair.primary.kill()
    cluster.pair.primary.start()
    await cluster.pair.primary.until_ready()


async def _restart_standby(cluster: Cluster):
    """Commits wait until it is back."""
    cluster.pair.standby.kill()
    await anyio.sleep(1)
    cluster.pair.standby.start()
    await cluster.pair.standby.until_ready()


async def _freeze_primary(cluster: Cluster):
    family = cluster.pair.primary.family()
    for each in family:
        each.send_signal(signal.SIGSTOP)
    try:
        await anyio.sleep(FROZEN_POSTGRES_SECONDS)
    finally:
        for each in family:
            each.send_signal(signal.SIGCONT)


async def _fail_over(cluster: Cluster):
    cluster.pair.primary.kill()
    await cluster.pair.fail_over()
    await cluster.pair.rejoin()


async def _fail_over_silently(cluster: Cluster):
    """The primary's machine is cut off: its connections stay as they are, and nothing answers.

    It is ended where it is, as a script would that fences it, and no one hears of that.
    """
    machine = cluster.postgres_machine(cluster.pair.primary)
    cluster.network.cut(machine, [*DAEMONS, *NATS, *({*POSTGRES} - {machine})])
    try:
        cluster.pair.primary.kill()
        await cluster.pair.fail_over()
        await anyio.sleep(CUT_SECONDS)
    finally:
        cluster.network.heal(machine)
    await cluster.pair.rejoin()


async def _cut(name: str, others: tuple[str, ...], cluster: Cluster):
    cluster.network.cut(name, others)
    try:
        await anyio.sleep(CUT_SECONDS)
    finally:
        cluster.network.heal(name)


async def _cut_nats_leader(cluster: Cluster):
    """Daemons still reach it, but it leads nothing any more."""
    node = await _leader(cluster)
    await _cut(node.name, tuple({*NATS} - {node.name}), cluster)


async def _slow(name: str, cluster: Cluster):
    cluster.network.slow_down(name, SLOW_MILLISECONDS)
    try:
        await anyio.sleep(SLOW_SECONDS)
    finally:
        cluster.network.speed_up(name)


FAULTS = {
    **{f"kill daemon {name}": ClusterFault(partial(_kill_daemon, name)) for name in DAEMONS},
    **{f"freeze daemon {name}": ClusterFault(partial(_freeze_daemon, name)) for name in DAEMONS},
    "kill a leading nats": ClusterFault(_kill_nats),
    "kill two nats": ClusterFault(_lose_quorum),
    "freeze a leading nats": ClusterFault(_freeze_nats),
    "change leaders": ClusterFault(_change_leaders),
    "restart primary": ClusterFault(_restart_primary),
    "restart standby": ClusterFault(_restart_standby),
    "freeze primary": ClusterFault(_freeze_primary),
    "fail over": ClusterFault(_fail_over),
    "fail over silently": ClusterFault(_fail_over_silently, separate=True),
    **{
        f"cut {name} from {kind}": ClusterFault(partial(_cut, name, servers), separate=True)
        for name in DAEMONS
        for kind, servers in (("nats", NATS), ("postgres", POSTGRES))
        if (name, kind) != ("worker", "postgres")  # which it has nothing to do with
    },
    "cut a leading nats from its peers": ClusterFault(_cut_nats_leader, separate=True),
    **{
        f"slow {name}": ClusterFault(partial(_slow, name), separate=True)
        for name in (*DAEMONS, NATS[0], POSTGRES[0])
    },
}
"""Faults by name."""

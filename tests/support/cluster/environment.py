"""Environments of rounds on a cluster: machines with servers and daemons, which all end with it."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio

from pubsubflow.model.auth import Role
from pubsubflow.store.auth import TokenStore
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate
from pubsubflow.store.servers.settings import PostgresSettings
from support.cluster.nats import NatsCluster
from support.cluster.network import Loopback, Namespaces
from support.faults.daemon import DaemonOptions
from support.faults.daemons import MARK, DaemonProcess, await_no_process, start_all, stop_all
from support.faults.environment import (
    ALL,
    CONTROL,
    DAG_IDS,
    DAGS,
    KNOWN_SECONDS,
    WORKER,
    Environment,
)
from support.faults.executions import ExecutionLog
from support.faults.state import until_known
from support.postgres_pair import PostgresNode, PostgresPair
from support.servers import TOKEN

DAEMONS = {"all": ALL, "control": CONTROL, "worker": WORKER}
"""Daemons by name, with their roles: any one may die, and the others have all roles."""
NATS = ("nats-1", "nats-2", "nats-3")
POSTGRES = ("postgres-1", "postgres-2")


class Cluster(Environment, kw_only=True):
    """Servers and daemons of a round.

    Attributes:
        network: Where they are.
        nats_cluster: Three servers.
        pair: Postgres.
        token: Of the API, whose daemons are not all on loopback.
    """

    network: Loopback | Namespaces
    nats_cluster: NatsCluster
    pair: PostgresPair
    token: str

    def member(self, name: str) -> DaemonProcess:
        """Return the daemon of this name."""
        return next(each for each in self.members if each.name == name)

    def postgres_machine(self, node: PostgresNode) -> str:
        """Return the name of the machine that a server of Postgres is on."""
        return next(
            name for name in POSTGRES if self.network.address(name) == node.address.split(":")[0]
        )


@asynccontextmanager
async def open_cluster(
    network_type: type[Loopback] | type[Namespaces], folder: Path, seed: int
) -> AsyncIterator[Cluster]:
    """Start servers and daemons, and end all of them afterwards without a trace.

    Args:
        network_type: Where they are.
        folder: For logs and notes.
        seed: Of every choice in the round.
    """
    mark = uuid4().hex
    executions = ExecutionLog(folder / "notes")
    environ = os.environ | {MARK: mark, "FAULT_NOTES": str(executions.path)}
    try:
        async with AsyncExitStack() as stack:
            network = stack.enter_context(network_type((*NATS, *POSTGRES, *DAEMONS)))
            pair = await stack.enter_async_context(PostgresPair(_maker(network)))
            nats = await stack.enter_async_context(NatsCluster(network, NATS, folder / "nats"))
            cluster = Cluster(
                mark=mark,
                members=[_daemon(name, network, pair, nats, environ, folder) for name in DAEMONS],
                executions=executions,
                chance=random.Random(seed),
                dsn=f"{pair.url}?target_session_attrs=read-write",
                nats=nats.settings,
                network=network,
                nats_cluster=nats,
                pair=pair,
                token=await _make_token(pair.url),
            )
            async with anyio.create_task_group() as group:
                await start_all(cluster.members, group)
                await until_known(cluster.dsn, DAG_IDS, KNOWN_SECONDS)
                yield cluster
                await stop_all(cluster.members)
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await await_no_process(mark)


def _maker(network: Loopback | Namespaces):
    names = iter(POSTGRES)

    def make(folder: Path, port: int) -> PostgresNode:
        name = next(names)
        return PostgresNode(folder, port, host=network.address(name), prefix=network.prefix(name))

    return make


async def _make_token(url: str) -> str:
    async with Database.open(PostgresSettings(url=url)) as database:
        await migrate(database)
        made = await TokenStore(database).create("load", Role.OPERATOR, by="test")
        return made.token


def _daemon(
    name: str,
    network: Loopback | Namespaces,
    pair: PostgresPair,
    nats: NatsCluster,
    environ: dict[str, str],
    folder: Path,
) -> DaemonProcess:
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(folder / f"home-{name}"),
        roles=DAEMONS[name],
        dags=str(DAGS),
        nats_url=nats.settings.url,
        nats_token=TOKEN,
        postgres_url=pair.url,
        key_file=str(folder / "keys"),
        host=network.address(name),
    )
    return DaemonProcess(name, options, environ, folder, prefix=network.prefix(name))

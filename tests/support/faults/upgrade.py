"""Rounds with daemons of the former version and of this one, on the same servers."""

import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import aiohttp
import anyio
import anyio.abc
import asyncpg

from pubsubflow.bus import BusSettings
from pubsubflow.embedded import EmbeddedServers
from support.faults.checks import check
from support.faults.daemon import DaemonOptions
from support.faults.daemons import MARK, DaemonProcess, await_no_process, start_all, stop_all
from support.faults.environment import DAG_IDS, DAGS, KNOWN_SECONDS
from support.faults.executions import ExecutionLog
from support.faults.load import Load
from support.faults.rounds import DRAIN_SECONDS, SETTLE_SECONDS
from support.faults.state import read_state, until_drained, until_idle, until_known
from support.faults.waits import WAITS_DAG, check_waits, without_waits
from support.former import former_environ

WAITS = 12
"""Tasks that begin to wait under the former version."""


class Cluster:
    """Servers, and the daemons of both versions that run on them.

    Args:
        servers: NATS and Postgres.
        former: Where the former version is unpacked.
        folder: For logs, homes and notes.
        group: Where the daemons run.
        chance: Of all choices.

    Attributes:
        members: The daemons that run now.
        started: All that were started.
    """

    def __init__(
        self,
        servers: EmbeddedServers,
        former: Path,
        folder: Path,
        group: anyio.abc.TaskGroup,
        chance: random.Random,
    ):
        self._servers = servers
        self._former = former
        self._folder = folder
        self._group = group
        self.chance = chance
        self.mark = uuid4().hex
        self.executions = ExecutionLog(folder / "notes")
        self.members: list[DaemonProcess] = []
        self.started: list[DaemonProcess] = []
        self.dsn = servers.postgres.dsn
        self.nats = BusSettings(url=servers.nats.url, token=servers.nats.token)

    def _process(self, name: str, roles: frozenset[str]) -> DaemonProcess:
        options = DaemonOptions(
            parent=os.getpid(),
            home=str(self._folder / f"home-{name}"),
            roles=roles,
            dags=str(DAGS),
            nats_url=self._servers.nats.url,
            nats_token=self._servers.nats.token,
            postgres_url=self._servers.postgres.dsn,
        )
        environ = os.environ | {MARK: self.mark, "FAULT_NOTES": str(self.executions.path)}
        if not name.startswith("former"):
            return DaemonProcess(name, options, environ, self._folder)
        script = self._former / "tests/support/faults/daemon.py"
        environ |= former_environ(self._former)
        return DaemonProcess(name, options, environ, self._folder, script=script)

    async def start(self, **daemons: frozenset[str]) -> list[DaemonProcess]:
        """Start daemons side by side, by name; those of the former version begin with `former`."""
        started = [self._process(name, roles) for name, roles in daemons.items()]
        await start_all(started, self._group)
        # Of the former version one is ready before an import that takes longer than 2 s.
        await until_known(self.dsn, DAG_IDS, KNOWN_SECONDS)
        self.members += started
        self.started += started
        return started

    async def stop(self, *daemons: DaemonProcess):
        """End daemons as a supervisor does; all of them unless some are given."""
        ended = list(daemons) or self.members
        self.members[:] = [each for each in self.members if each not in ended]
        await stop_all(ended)

    async def request(self, path: str, body: object):
        """Post to a daemon that has an API."""
        url = next(each.url for each in self.members if each.url.strip())
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/api/v1/{path}", json=body) as answer,
        ):
            assert answer.status in (200, 201, 202), await answer.text()
            return await answer.json()

    async def query(self, query: str):
        """Return the rows of a query."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def begin_waits(self) -> str:
        """Start tasks that wait in several ways; return their run when all have begun to."""
        body = {"params": {"count": WAITS, "at": time.time()}, "run_key": "once"}
        run_id = (await self.request(f"dags/{WAITS_DAG}/runs", body))["run_id"]
        deferred = "SELECT FROM task_live WHERE state = 'deferred'"
        # Those that wait for a moment, which has come, go on at once.
        with anyio.fail_after(SETTLE_SECONDS):
            while len(await self.query(deferred)) < WAITS * 3 // 4:  # noqa: ASYNC110 - of daemons
                await anyio.sleep(0.05)
        return run_id

    async def end_waits(self):
        """Make come true what they wait for."""
        await anyio.Path(f"{self.executions.path}.flag").touch()
        events = [
            {"dataset": "fault://awaited", "id": f"bell {number}", "extra": {"n": number}}
            for number in range(1, WAITS, 4)
        ]
        await self.request("datasets/events", events)

    async def check(self, load: Load, waiting: str | None = None):
        """Wait until all is done; check that nothing is lost, and nothing happened twice."""
        await until_idle(self.dsn, SETTLE_SECONDS)
        await until_drained(self.nats, DRAIN_SECONDS)
        state = await read_state(self.dsn)
        executions = self.executions.read()
        if waiting is not None:
            await check_waits(self.dsn, waiting, WAITS)
            state = without_waits(state)
            executions = [each for each in executions if each.dag_id != WAITS_DAG]
        # A worker of the former version numbers the output of a repeated execution like the first.
        check(state, load, executions, output=False)
        errors = [fact for each in self.started for fact in each.warnings() if _is_error(fact)]
        assert errors == []


def _is_error(fact: dict) -> bool:
    return fact["level"] not in ("warning", "info", "debug")


@asynccontextmanager
async def open_cluster(former: Path, home: Path, folder: Path, seed: int) -> AsyncIterator[Cluster]:
    """Start servers without a daemon; end all that was started afterwards."""
    cluster = None
    try:
        async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
            cluster = Cluster(servers, former, folder, group, random.Random(seed))
            group.start_soon(partial(servers.run, anyio.Event()))
            yield cluster
            await cluster.stop()
            group.cancel_scope.cancel()
    finally:
        if cluster is not None:
            with anyio.CancelScope(shield=True):
                await await_no_process(cluster.mark)

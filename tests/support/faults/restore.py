"""Restore drill: Postgres goes back to a base backup while NATS and all daemons stay."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import msgspec
import psutil
from anyio import to_thread

from pubsubflow.embedded.binaries import find_postgres
from support.faults.checks import check
from support.faults.environment import ALL, CONTROL, WORKER, Environment, Fault, open_environment
from support.faults.executions import Execution
from support.faults.load import Load
from support.faults.rounds import DRAIN_SECONDS, SETTLE_SECONDS, reach_a_moment
from support.faults.state import State, read_state, until_drained, until_idle

LOST_EXECUTIONS = 60
"""At least so many tasks are executed between the backup and the restore."""
WITNESS_SECONDS = 1.0
"""The witness in NATS is half a second old at most: a backup that is restored is older."""


class RestoreReport(msgspec.Struct, kw_only=True):
    """Result of a drill.

    Attributes:
        lost: Events that were accepted after the backup, and sent again after the restore.
        backup_seconds: How long the base backup took, under load.
        ready_seconds: From the start of the restored Postgres to the first task that is executed.
        settled_seconds: From then until everything was done.
        void: Messages of before that the managers dropped.
    """

    seed: int
    daemons: str
    runs: int
    executions: int
    lost: int
    backup_seconds: float
    ready_seconds: float
    settled_seconds: float
    void: int


def _nothing(environment: Environment):
    """Inject nothing: the drill does."""


DAEMONS = Fault((CONTROL, WORKER), (ALL, CONTROL, WORKER), _nothing)


async def run_restore(daemons: str, *, seed: int, folder: Path) -> RestoreReport:
    """Back up and restore Postgres under load; afterwards all must be as if nothing had been lost.

    Clients post again what they have sent, under the same ids.
    """
    async with open_environment(DAEMONS, daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        backup_seconds = await back_up_under_load(environment, load, folder / "backup")
        lost = await restore_under_load(environment, load, folder / "backup")
        settled_seconds = time.time() - environment.injected_at[-1]
        await until_drained(environment.nats, DRAIN_SECONDS)
        state = await read_state(environment.dsn)
        executions = environment.executions.read()
        # Output that came after the backup is not there: two managers store it side by side, so it
        # may be the earlier of two pieces.
        check(state, load, of_known_runs(executions, state), output=False)
        await check_logs(environment)
        return RestoreReport(
            seed=seed,
            daemons=daemons,
            runs=len(state.runs),
            executions=len(executions),
            lost=lost,
            backup_seconds=round(backup_seconds, 3),
            ready_seconds=round(seconds_until_executed(environment), 3),
            settled_seconds=round(settled_seconds, 3),
            void=sum(len(each.logged("manager.void_dropped")) for each in environment.members),
        )


async def back_up_under_load(environment: Environment, load: Load, target: Path) -> float:
    """Post one load, and take a base backup in the middle of it; return how long that took."""
    async with anyio.create_task_group() as group:
        group.start_soon(load.post)
        await reach_a_moment(environment, load)
        since = time.monotonic()
        await take_base_backup(environment, target)
        return time.monotonic() - since


async def restore_under_load(environment: Environment, load: Load, backup: Path) -> int:
    """Post one load, put a backup in the place of Postgres' data, and post all again at last.

    Returns:
        How many events were lost meanwhile.
    """
    async with anyio.create_task_group() as group:
        moment = environment.executions.count() + min(LOST_EXECUTIONS, load.executions)
        group.start_soon(load.post)
        with anyio.fail_after(SETTLE_SECONDS):
            await environment.executions.reach(moment)
        # The witness of a backup that is younger than this may not know that it lacks anything.
        await anyio.sleep(WITNESS_SECONDS)
        async with environment.repair.off():
            await end_postgres(environment)
            load.forgotten = True
            accepted = set(load.ids)
            await to_thread.run_sync(put_back, backup, environment.servers.postgres.host)
            environment.injected_at.append(time.time())
    await until_idle(environment.dsn, SETTLE_SECONDS)
    lost = accepted - await posted_ids(environment.dsn)
    await load.post_again()
    await until_idle(environment.dsn, SETTLE_SECONDS)
    return len(lost)


def of_known_runs(executions: list[Execution], state: State) -> list[Execution]:
    """Return what was executed for runs that the restored store knows."""
    known = {run.run_id for run in state.runs.values()}
    return [each for each in executions if each.run_id in known]


async def take_base_backup(environment: Environment, target: Path) -> Path:
    """Take a base backup as docs/backup.md says."""
    address = environment.servers.postgres
    program = find_postgres().program("pg_basebackup")
    command = [str(program), "--host", address.host, "--port", str(address.port)]
    command += ["--username", address.user, "--pgdata", str(target)]
    command += ["--checkpoint", "fast", "--wal-method", "stream"]
    password = {"PGPASSWORD": address.password}
    await anyio.run_process(command, env=os.environ | password)
    return target


async def end_postgres(environment: Environment):
    """Kill Postgres, and wait until its last process has ended."""
    postmaster = psutil.Process(environment.servers.postgres_pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    os.kill(postmaster.pid, signal.SIGKILL)
    wait = partial(psutil.wait_procs, [each for each in family if each != postmaster], timeout=60)
    _, alive = await to_thread.run_sync(wait)
    assert not alive


def put_back(backup: Path, host: str):
    """Put a base backup in the place of the data folder with the socket, owned as that is."""
    data = Path(host).resolve()
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    data.chmod(0o700)


async def posted_ids(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT key FROM idempotency_key")
    finally:
        await connection.close()
    return {row["key"].split(":", 1)[-1] for row in rows}


async def check_logs(environment: Environment):
    """One daemon found the restore; those with a manager started their services anew."""
    for member in environment.members:
        if member.options.roles != WORKER:
            assert len(await member.until_logged("daemon.services_restarted")) == 1
    found = [fact for each in environment.members for fact in each.logged("store.restored")]
    assert len(found) == 1


def seconds_until_executed(environment: Environment) -> float:
    """Return how long after the restore the first task was executed."""
    restored_at = environment.injected_at[-1]
    moments = (each.moment for each in environment.executions.read())
    return min(each for each in moments if each > restored_at) - restored_at


__all__ = ["RestoreReport", "run_restore"]

"""Adversities: rounds under a steady load, beside which a disk fills or a clock jumps."""

import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import anyio
import asyncpg
import msgspec
import psutil

from support.faults.checks import check
from support.faults.environment import ALL, DAGS, Environment, Fault, Surroundings, open_environment
from support.faults.load import Load
from support.faults.state import State, read_state, until_drained, until_idle

ADVERSE_DAGS = Path(__file__).parents[2] / "faults" / "adverse_dags"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
SETTLE_SECONDS = 180
DRAIN_SECONDS = 90
BEFORE_SECONDS = 1
ADVERSE_SECONDS = 9.0
AFTER_SECONDS = 2
TICKS_SECONDS = 3
DISK_MEGABYTES = 1100
OPEN_FILES = 256
IDLE_CLIENTS = 300
CLOCK_STEPS = ("+365d", "-1d", "+3h", "-400d")
AWAY = (0, 429, 503)
"""Answers of a daemon that cannot do it now; 0 is none at all."""
LONG_URI = f"s3://lake/{'-' * 1400}/"
EXPENSIVE = (
    {
        "url": "http://127.0.0.1:9/events",
        "where": "[1,2,3,4,5,6,7,8,9].all(x, " * 8 + "event.extra.n > 0" + ")" * 8,
    },
    {"url": "http://127.0.0.1:9/events", "dataset": "s3://lake/*-*-*-*-*-*.parquet"},
)
"""Subscriptions that were once enough to stop a daemon."""


class AdversityReport(msgspec.Struct, kw_only=True):
    """Result of a round.

    Attributes:
        posted: Events of the load.
        unanswered: Posts that were refused or got no answer; all of them were sent again.
        slowest_health_seconds: Longest time that `/healthz` took, while it answered at all.
        ticks: Runs of a DAG that runs each second, after the adversity had ended.
    """

    adversities: tuple[str, ...]
    seed: int
    posted: int
    runs: int
    unanswered: int
    slowest_health_seconds: float
    ticks: int
    settled_seconds: float
    seconds: float


async def _leave_children(environment: Environment, seconds: float):
    """Start tasks that leave children behind."""
    end = anyio.current_time() + seconds
    async with _session() as session:
        while anyio.current_time() < end:
            await _ask(session, environment, "POST", "dags/adverse_children/runs", {})
            await anyio.sleep(0.5)


async def _post_expressions(environment: Environment, seconds: float):
    """Post expressions and patterns that are expensive, and events that they are expensive for."""
    end = anyio.current_time() + seconds
    made = set()
    async with _session() as session:
        while anyio.current_time() < end:
            for body in EXPENSIVE:
                status, answer = await _ask(session, environment, "POST", "subscriptions", body)
                assert status in {201, 422, *AWAY}, (status, answer)
                made |= {answer["id"]} if status == 201 else set()
            uris = [f"{LONG_URI}{number}" for number in range(5)]
            events = [{"dataset": uri, "extra": {"n": 1}} for uri in uris]
            await _ask(session, environment, "POST", "datasets/events", events)
            await anyio.sleep(0.2)
        for each in made:
            await _delete(session, environment, f"subscriptions/{each}")


async def _delete(session: aiohttp.ClientSession, environment: Environment, path: str):
    """Delete what can always be deleted, once the daemon answers."""
    with anyio.fail_after(60):
        while True:
            status, answer = await _ask(session, environment, "DELETE", path)
            if status in (200, 204, 404):
                return
            assert status in AWAY, (status, answer)
            await anyio.sleep(0.2)


async def _run_short_of_files(environment: Environment, seconds: float):
    """Hold idle connections, and let the daemon open no file for a third of the time."""
    member = environment.members[0]
    host, port = member.url.removeprefix("http://").split(":")
    with ExitStack() as idle:
        for _ in range(IDLE_CLIENTS):
            idle.enter_context(socket.create_connection((host, int(port)), timeout=60))
        used = psutil.Process(member.pid).num_fds()
        resource.prlimit(member.pid, resource.RLIMIT_NOFILE, (used, OPEN_FILES))
        await anyio.sleep(seconds / 3)
        resource.prlimit(member.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        await anyio.sleep(seconds * 2 / 3)


async def _fill_disk(environment: Environment, seconds: float):
    """Fill the disk that the home lies on, again as soon as something is freed; then free it."""
    filler = Path(environment.members[0].options.home).parent / "filler"
    end = anyio.current_time() + seconds
    try:
        with filler.open("wb", buffering=0) as file:
            while anyio.current_time() < end:
                for size in (1 << 20, 512):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError:
                        continue
                await anyio.sleep(0.2)
    finally:
        filler.unlink()


async def _set_clock_wrong(environment: Environment, seconds: float):
    """Set the clock of the daemon and of Postgres wrong, and right again."""
    file = environment.executions.path.with_name("clock")
    file.write_text(f"{environment.chance.choice(CLOCK_STEPS)}\n")
    await anyio.sleep(seconds)
    file.write_text("+0\n")


ADVERSITIES: dict[str, Callable[[Environment, float], Awaitable[None]]] = {
    "children": _leave_children,
    "expressions": _post_expressions,
    "files": _run_short_of_files,
    "disk": _fill_disk,
    "clock": _set_clock_wrong,
}
"""What goes wrong, by name."""


async def run_adversities(
    names: Sequence[str], *, seed: int, folder: Path, seconds: float = ADVERSE_SECONDS
) -> AdversityReport:
    """Let things go wrong side by side, under a steady load; afterwards all must be right.

    Args:
        names: Of `ADVERSITIES`.
        seed: Of every choice.
        folder: For logs and notes.
        seconds: For how long things go wrong.

    Raises:
        CannotRunError: The machine lacks what one of them needs.
    """
    started = time.monotonic()
    with _surroundings(names, folder) as around:
        fault = Fault((ALL,), (), lambda _: None, embedded=True)
        async with open_environment(fault, "one", folder, seed, around=around) as environment:
            load = Load(environment.members, environment.chance)
            slowest = [0.0]
            async with anyio.create_task_group() as group:
                group.start_soon(_watch_health, environment, slowest)
                async with anyio.create_task_group() as working:
                    whole = BEFORE_SECONDS + seconds + AFTER_SECONDS
                    working.start_soon(load.post_steadily, whole)
                    await anyio.sleep(BEFORE_SECONDS)
                    async with anyio.create_task_group() as adverse:
                        for name in names:
                            adverse.start_soon(ADVERSITIES[name], environment, seconds)
                ended_at = time.time()
                ticks = await _await_ticks(environment)
                group.cancel_scope.cancel()
            await _pause_ticks(environment)
            await until_idle(environment.dsn, SETTLE_SECONDS)
            settled_seconds = time.time() - ended_at
            await until_drained(environment.nats, DRAIN_SECONDS)
            state = await read_state(environment.dsn)
            runs = len(state.runs)
            check(_without_adverse(state), load, environment.executions.read())
            return AdversityReport(
                adversities=tuple(names),
                seed=seed,
                posted=len(load.ids),
                runs=runs,
                unanswered=sum(n for code, n in load.answers.items() if code not in (200, 202)),
                slowest_health_seconds=round(slowest[0], 3),
                ticks=ticks,
                settled_seconds=round(settled_seconds, 3),
                seconds=round(time.monotonic() - started, 3),
            )


class CannotRunError(Exception):
    """The machine lacks what an adversity needs."""


@contextmanager
def _surroundings(names: Sequence[str], folder: Path) -> Iterator[Surroundings]:
    dags = folder / "dags"
    shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ADVERSE_DAGS, dags, dirs_exist_ok=True)
    environ = {}
    if "clock" in names:
        if not FAKETIME.exists():
            raise CannotRunError(f"{FAKETIME} is missing: apt-get install libfaketime")
        (folder / "clock").write_text("+0\n")
        environ = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    files = OPEN_FILES if "files" in names else None
    with ExitStack() as stack:
        disk = stack.enter_context(_small_disk()) if "disk" in names else None
        yield Surroundings(dags=dags, disk=disk, open_files=files, environ=environ)


@contextmanager
def _small_disk() -> Iterator[Path]:
    # Its path is short, as that of a socket has to be.
    with TemporaryDirectory(prefix="psf-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", folder]
        if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
            raise CannotRunError("a small disk can be mounted by root alone")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))


async def _ask(
    session: aiohttp.ClientSession,
    environment: Environment,
    method: str,
    path: str,
    body: object = None,
) -> tuple[int, Any]:
    """Return the status and the answer; status 0 if there is none."""
    url = f"{environment.members[0].url}/api/v1/{path}"
    try:
        async with session.request(method, url, json=body) as answer:
            text = await answer.read()
            return answer.status, msgspec.json.decode(text) if text else None
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        return 0, None


async def _watch_health(environment: Environment, slowest: list[float]):
    async with _session() as session:
        while True:
            since = time.monotonic()
            try:
                async with session.get(f"{environment.members[0].url}/healthz") as answer:
                    await answer.read()
                slowest[0] = max(slowest[0], time.monotonic() - since)
            except (aiohttp.ClientError, TimeoutError):
                pass
            await anyio.sleep(0.05)


async def _await_ticks(environment: Environment) -> int:
    """Wait until a DAG that runs each second goes on; return its runs since."""
    query = "SELECT count(*) FROM run JOIN dag ON dag.id = dag WHERE dag_id = 'adverse_ticks'"
    with anyio.fail_after(SETTLE_SECONDS):
        while True:
            try:
                connection = await asyncpg.connect(environment.dsn)
                try:
                    before = await connection.fetchval(query)
                    await anyio.sleep(TICKS_SECONDS)
                    ticks = await connection.fetchval(query) - before
                finally:
                    connection.terminate()
                if ticks >= TICKS_SECONDS - 1:
                    return ticks
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await anyio.sleep(0.2)


async def _pause_ticks(environment: Environment):
    async with _session() as session:
        with anyio.fail_after(SETTLE_SECONDS):
            while True:
                path = "dags/adverse_ticks"
                status, answer = await _ask(session, environment, "PATCH", path, {"paused": True})
                if status == 200:
                    return
                assert status in AWAY, (status, answer)
                await anyio.sleep(0.2)


def _without_adverse(state: State) -> State:
    """Return what the load itself has led to."""
    adverse = {key: run for key, run in state.runs.items() if run.dag_id.startswith("adverse_")}
    failed = [run for run in adverse.values() if run.state != "success"]
    assert not failed, failed
    assert {run.dag_id for run in adverse.values()} >= {"adverse_ticks"}
    for key in adverse:
        del state.runs[key]
    for key, (_, name, *_) in list(state.events.items()):
        if name.startswith("s3://"):
            del state.events[key]
    return state

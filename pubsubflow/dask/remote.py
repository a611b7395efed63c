"""The function of attempts on Dask workers, which hands them to a host beside the worker.

The function of an attempt is a coroutine: it holds a slot of the Dask worker and none of its
threads. User code is in runners of the host, so it can be stopped, and ends with the Dask worker.
"""

import asyncio
import contextlib
import sys
from typing import Any

from distributed import WorkerPlugin, get_worker

from pubsubflow.dask.claims import claim
from pubsubflow.dask.kept import KeptInCluster, read_result
from pubsubflow.dask.names import claim_of
from pubsubflow.dask.reasons import LOST_WORKER
from pubsubflow.executors import DONE, NOT_BEGUN
from pubsubflow.executors.hosting import (
    HOST_ARGUMENTS,
    Begin,
    Drain,
    Ended,
    FetchKept,
    HostOrder,
    Prepare,
    Stop,
    decode_report,
    encode_line,
)
from pubsubflow.model.wire.protocol import VERSION

_PLUGIN = "pubsubflow-attempts"
_DRAIN_SECONDS = 20.0
_STOP_SECONDS = 10.0


class AttemptOrder:
    """What an attempt is on a Dask worker.

    Args:
        name: Its name.
        environment: What its process would get; not shown, as Dask logs arguments.
        release: The version of pubsubflow that wrote it.
        result: The dataset that keeps the result in the cluster; empty if none does.
    """

    result = ""

    def __init__(
        self, name: str, environment: dict[str, str], release: str, result: str = ""
    ) -> None:
        self.name = name
        self.environment = environment
        self.release = release
        self.result = result

    def __repr__(self) -> str:
        return f"AttemptOrder({self.name!r})"


class AttemptEnded(Exception):  # noqa: N818 - an answer that Dask carries as an exception
    """An attempt has ended in another way than with its result stored.

    Args:
        exit_code: As that of a process; None where that is not known.
        reason: Why, for people.
    """

    def __init__(self, exit_code: int | None, reason: str) -> None:
        super().__init__(exit_code, reason)
        self.exit_code = exit_code
        self.reason = reason


async def run_attempt(order: AttemptOrder) -> bytes | None:
    """Run an attempt to its end; the function of its future, whose result is kept for its run.

    Raises:
        AttemptEnded: It has not begun, ran before, or its host has ended.
    """
    worker: Any = get_worker()
    _check_release(order.release, worker.address)
    host = await _host_of(worker)
    running = host.prepare(order.name, order.environment)
    try:
        await _claim(worker.scheduler, order)
        host.send(Begin(order.name))
        ended: Ended = await asyncio.shield(running)
    except BaseException:
        # The Dask worker closes, or the scheduler is lost: the task is handed back.
        host.send(Stop(order.name))
        with contextlib.suppress(asyncio.TimeoutError, AttemptEnded):
            await asyncio.wait_for(asyncio.shield(running), _STOP_SECONDS)
        raise
    result = await read_result(ended.result)
    if ended.exit_code != DONE:
        raise AttemptEnded(ended.exit_code, ended.reason)
    return result


async def _claim(scheduler: Any, order: AttemptOrder) -> None:
    """Note that an attempt has begun; raise AttemptEnded if it had before."""
    # The first is forgotten with the attempt; what keeps its result could repeat it later.
    claims = [claim_of(name) for name in (order.name, order.result) if name]
    # Dask runs a function again whose worker is lost. The scheduler knows what has begun.
    if await claim(scheduler, claims):
        raise AttemptEnded(None, LOST_WORKER)


async def stop_attempt(name: str, dask_worker: Any = None) -> bool:
    """Order an attempt to end, as SIGTERM does; return whether it is on this Dask worker."""
    plugin = dask_worker.plugins.get(_PLUGIN)
    return plugin is not None and plugin.stop(name)


def _check_release(release: str, address: str) -> None:
    """Raise AttemptEnded if the worker has another minor version than the sender."""
    if VERSION.split(".")[:2] != release.split(".")[:2]:
        raise AttemptEnded(
            NOT_BEGUN,
            f"the Dask worker {address} has pubsubflow {VERSION}, the daemon {release}: install "
            "the same version",
        )


async def _host_of(worker: Any) -> "HostPlugin":
    """Return the host of a Dask worker; the first attempt starts it."""
    plugin: HostPlugin | None = worker.plugins.get(_PLUGIN)
    if plugin is None or plugin.gone:
        plugin = HostPlugin(worker)
        # At once, before others ask for it.
        worker.plugins[_PLUGIN] = plugin
        plugin.starting = asyncio.ensure_future(plugin.start())
    await asyncio.shield(plugin.starting)
    return plugin


class HostPlugin(WorkerPlugin):
    """The host process of a Dask worker, which ends with it.

    Args:
        worker: The Dask worker; as many attempts of a kind run at once as it has threads.

    Attributes:
        starting: Done when the process is started.
        gone: Whether it has ended.
    """

    starting: "asyncio.Future[None]"

    def __init__(self, worker: Any) -> None:
        self._slots = worker.state.nthreads
        self._results = KeptInCluster(worker)
        self._running: dict[str, asyncio.Future[Ended]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._fetching: set[asyncio.Task[None]] = set()
        self.gone = False

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: It cannot be started.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *HOST_ARGUMENTS,
                str(self._slots),
                self._results.folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError:
            self.gone = True
            raise
        self._reading = asyncio.ensure_future(self._read(self._process))

    def prepare(self, name: str, environment: dict[str, str]) -> "asyncio.Future[Ended]":
        """Get an attempt ready, and return the future of its end."""
        if self.gone:
            raise AttemptEnded(NOT_BEGUN, "the host of attempts on its Dask worker has ended")
        found = self._running[name] = asyncio.get_running_loop().create_future()
        self.send(Prepare(name, environment))
        return found

    def send(self, order: HostOrder) -> None:
        """Give the process an order."""
        if not self.gone and self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(encode_line(order) + b"\n")

    def stop(self, name: str) -> bool:
        """Order an attempt to end; return whether it is here."""
        self.send(Stop(name))
        return name in self._running

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002 - Dask passes it
        """Hand all attempts back, before the Dask worker ends."""
        self.send(Drain())
        if self._reading is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), _DRAIN_SECONDS)
        await self._results.close()

    async def _fetch(self, request: FetchKept) -> None:
        """Reply to a request for a result."""
        self.send(await self._results.find(request))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Read what the process reports, until it ends."""
        if process.stdout is None:
            return
        async for line in process.stdout:
            ended = decode_report(line)
            if isinstance(ended, FetchKept):
                fetching = asyncio.ensure_future(self._fetch(ended))
                self._fetching.add(fetching)
                fetching.add_done_callback(self._fetching.discard)
                continue
            running = self._running.pop(ended.name, None)
            if running is not None and not running.done():
                running.set_result(ended)
        code = await process.wait()
        self.gone = True
        lost = AttemptEnded(None, f"the host of attempts on its Dask worker ended with code {code}")
        for each in self._running.values():
            if not each.done():
                each.set_exception(lost)
        self._running.clear()

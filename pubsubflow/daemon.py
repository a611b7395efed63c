"""A daemon: its services in one task group, from their start to a signal."""

import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus
from msgspec.structs import replace

from pubsubflow.config import Config
from pubsubflow.errors import StoreRestored
from pubsubflow.model.lazy_import import defer_package, lazy_module
from pubsubflow.processes import open_processes
from pubsubflow.roles import ROLES, check_roles
from pubsubflow.services import run_services

if TYPE_CHECKING:
    from pubsubflow.composition import Composition
    from pubsubflow.loader.snapshot import EarlyReading
    from pubsubflow.model.source.compiled import CompiledFolder
    from pubsubflow.resources import DaemonResources
    from pubsubflow.runner.forkserver import ForkServer
    from pubsubflow.runner.task_account import TaskAccount

# With all services and their libraries, which are imported while the processes get ready.
_COMPOSITION = "pubsubflow.composition"
composition = lazy_module(_COMPOSITION)
resources = lazy_module("pubsubflow.resources")
snapshot = lazy_module("pubsubflow.loader.snapshot")
log = structlog.get_logger()

_STOP_SECONDS = 10.0
_SCHEMAS = "pubsubflow.model.runs.param_schemas"
_GARBAGE_THRESHOLDS = (10_000, 20, 20)


async def run_daemon(
    config: Config,
    *,
    roles: frozenset[str] = ROLES,
    dags: Path | None = None,
    embedded: bool = True,
    compiled: "CompiledFolder | None" = None,
    on_ready: Callable[[str], None] = lambda _url: None,
    on_import: Callable[[int, int], None] | None = None,
) -> None:
    """Run a daemon until SIGINT or SIGTERM.

    Args:
        config: All settings.
        roles: Which of `ROLES` it has.
        dags: The folder or file whose DAGs it loads, if it has the role `scheduler`.
        embedded: Whether it starts NATS and Postgres of its own, in `config.home`.
        compiled: A manifest of the folder, which has been compared with it.
        on_ready: Called with the URL (empty without the role `api`) once all is ready.
        on_import: Called while DAG files are imported: how many are, of how many.

    Raises:
        ConfigError: A setting or the environment does not allow it; the text has the remedy.
        Unavailable: NATS or Postgres cannot be reached at the start.
    """
    check_roles(roles)
    # A start makes thousands of values for good, of each DAG file some: no garbage among them.
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        # Before the resources are opened, so that a signal during a slow start is not lost.
        await group.start(_stop_on_signal, stop)
        try:
            async with Daemon.build(
                config,
                roles=roles,
                dags=dags,
                embedded=embedded,
                compiled=compiled,
                on_import=on_import,
            ) as daemon:
                await group.start(daemon.run, stop)
                leave_garbage_alone()
                on_ready(daemon.url)
                log.info("daemon.started", url=daemon.url, roles=sorted(roles))
                if roles - {"worker"}:
                    group.start_soon(_import_schemas)
                if daemon.fork_server is not None:
                    group.start_soon(daemon.fork_server.import_later)
                await daemon.stopped.wait()
        finally:
            group.cancel_scope.cancel()


def leave_garbage_alone() -> None:
    """Do not look for garbage among what a daemon is made of: that stops its loop.

    A look at all of it takes 50 ms and more, for which every message waits.
    """
    gc.freeze()


def import_services() -> None:
    """Import all services, without a search for garbage among what is made for good."""
    # The server needs nothing of its client, which reads all certificates of the machine.
    defer_package("aiohttp", __version__=version("aiohttp"))
    enabled = gc.isenabled()
    gc.disable()
    try:
        import_module(_COMPOSITION)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


async def _import_schemas() -> None:
    """Import what the first run with declared params needs, when no start waits for it."""
    with suppress(ImportError, OSError):  # then that run imports it
        await to_thread.run_sync(import_module, _SCHEMAS, abandon_on_cancel=True)


async def _stop_on_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            log.info("daemon.signal_received", signal=signal.Signals(number).name)
            stop.set()


class Daemon:
    """The services of one daemon, connected and ready to run; see `build`.

    Args:
        opened: Servers, connections and the fork server.
        roles: Which of `ROLES` it has.
        dags: The folder or file whose DAGs it loads, if any.
        compiled: A manifest of the folder, if there is one.
        on_import: Called while DAG files are imported.
        early: A reading of the DAGs, if it has begun.

    Attributes:
        stopped: Set when all services have ended.
    """

    def __init__(
        self,
        opened: "DaemonResources",
        *,
        roles: frozenset[str],
        dags: Path | None,
        compiled: "CompiledFolder | None" = None,
        on_import: Callable[[int, int], None] | None = None,
        early: "EarlyReading | None" = None,
    ) -> None:
        self._early = early
        self._compiled = compiled
        self._on_import = on_import
        self._resources = opened
        self._roles = roles
        self._dags = dags
        self._drain_seconds = opened.config.worker.drain_seconds + _STOP_SECONDS
        self.stopped = anyio.Event()
        self._compose()

    def _compose(self) -> None:
        self._composition: Composition = composition.Composition(
            self._resources, roles=self._roles, dags=self._dags
        )
        self._composition.on_import = self._on_import
        self._composition.compiled = self._compiled
        # Of the first loader: a later one reads what is there by then.
        self._composition.early, self._early = self._early, None
        self._services = self._composition.services()

    @classmethod
    @asynccontextmanager
    async def build(
        cls,
        config: Config,
        *,
        roles: frozenset[str],
        dags: Path | None,
        embedded: bool,
        compiled: "CompiledFolder | None" = None,
        on_import: Callable[[int, int], None] | None = None,
    ) -> AsyncIterator["Daemon"]:
        """Open the resources that the roles need, and build the services on them."""
        readings: list[EarlyReading] = []

        def read_early(account: "TaskAccount | None") -> None:
            if dags is not None and "scheduler" in roles:
                cache = resources.open_bundle_cache(config, account)
                readings.append(snapshot.EarlyReading(dags, cache, config.loader))

        async with AsyncExitStack() as stack:
            processes = await stack.enter_async_context(
                open_processes(
                    config,
                    roles=roles,
                    dags=dags,
                    embedded=embedded,
                    meanwhile=import_services,
                    on_new_home=read_early,
                )
            )
            opened = await stack.enter_async_context(
                resources.open_resources(processes, roles=roles)
            )
            yield cls(
                opened,
                roles=roles,
                dags=dags,
                compiled=compiled,
                on_import=on_import,
                early=next(iter(readings), None),
            )

    @property
    def fork_server(self) -> "ForkServer | None":
        """What forks the processes of user code, if a role has any."""
        return self._resources.fork_server

    @property
    def url(self) -> str:
        """The URL of its API, once it runs; empty without the role `api`."""
        api = self._composition.api
        return api.url if api is not None else ""

    async def run(
        self,
        stop: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run all services until `stop` is set.

        After a restore of Postgres they start anew: what they remember of it is void.
        """
        ready: Callable[[], None] = task_status.started
        try:
            while await self._run_services(stop, ready):
                ready = _ignore
                self._keep_port()
                self._compose()
        finally:
            self.stopped.set()

    async def _run_services(self, stop: anyio.Event, ready: Callable[[], None]) -> bool:
        """Run the services; return whether they are to start anew."""
        restored = False
        try:
            async with anyio.create_task_group() as group:
                services = partial(
                    run_services, self._services, stop, drain_seconds=self._drain_seconds
                )
                await group.start(services)
                self._announce()
                ready()
        except* StoreRestored as errors:
            restored = True
            log.warning("daemon.services_restarted", reason=str(_first(errors)))
        return restored and not stop.is_set()

    def _keep_port(self) -> None:
        """Have the API start anew on the port that it has, if it had chosen any."""
        config = self._resources.config
        port = urlsplit(self.url).port if self._composition.api is not None else None
        if port is not None:
            config = replace(config, api=replace(config.api, port=port))
            self._resources = replace(self._resources, config=config)

    def _announce(self) -> None:
        """Write into the home where this daemon answers, and by which token."""
        home = self._resources.servers or self._resources.home
        api = self._composition.api
        if home is None:
            return
        if api is None:
            home.announce("")
        else:
            home.announce(api.url, token=api.own_token, certificate=api.certificate)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that may hold groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _ignore() -> None:
    """Do nothing: the daemon was ready before."""

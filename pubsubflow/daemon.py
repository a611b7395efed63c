"""A daemon: its services in one task group, from their start to a signal."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.api import Api
from pubsubflow.composition import ROLES, Composition
from pubsubflow.config import Config
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import ConfigError
from pubsubflow.resources import open_resources
from pubsubflow.services import Service, run_services

__all__ = ["ROLES", "Daemon", "run_daemon"]

log = structlog.get_logger()

_STOP_SECONDS = 10.0


async def run_daemon(
    config: Config,
    *,
    roles: frozenset[str] = ROLES,
    dags: Path | None = None,
    embedded: bool = True,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run a daemon until SIGINT or SIGTERM.

    Args:
        config: All settings.
        roles: Which of `ROLES` it has.
        dags: The folder or file whose DAGs it loads, if it has the role `scheduler`.
        embedded: Whether it starts NATS and Postgres of its own, in `config.home`.
        on_ready: Called with the URL (empty without the role `api`) once all is ready.

    Raises:
        ConfigError: A setting or the environment does not allow it; the text has the remedy.
        Unavailable: NATS or Postgres cannot be reached at the start.
    """
    unknown = roles - ROLES
    if unknown or not roles:
        raise ConfigError(f"unknown roles {sorted(unknown)}; there are {', '.join(sorted(ROLES))}")
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        # Before the resources are opened, so that a signal during a slow start is not lost.
        await group.start(_stop_on_signal, stop)
        try:
            async with Daemon.build(config, roles=roles, dags=dags, embedded=embedded) as daemon:
                await group.start(daemon.run, stop)
                on_ready(daemon.url)
                log.info("daemon.started", url=daemon.url, roles=sorted(roles))
                await daemon.stopped.wait()
        finally:
            group.cancel_scope.cancel()


async def _stop_on_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            log.info("daemon.signal_received", signal=signal.Signals(number).name)
            stop.set()


class Daemon:
    """The services of one daemon, connected and ready to run; see `build`.

    Args:
        services: Names and services in the order of their start.
        api: The service of the role `api`, if it has that.
        servers: The embedded servers, if it has.
        drain_seconds: How long its stop may take.

    Attributes:
        stopped: Set when all services have ended.
    """

    def __init__(
        self,
        services: list[tuple[str, Service]],
        *,
        api: Api | None,
        servers: EmbeddedServers | None,
        drain_seconds: float,
    ) -> None:
        self._services = services
        self._api = api
        self._servers = servers
        self._drain_seconds = drain_seconds
        self.stopped = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def build(
        cls, config: Config, *, roles: frozenset[str], dags: Path | None, embedded: bool
    ) -> AsyncIterator["Daemon"]:
        """Open the resources that the roles need, and build the services on them."""
        async with open_resources(config, roles=roles, dags=dags, embedded=embedded) as resources:
            composition = Composition(resources, roles=roles, dags=dags)
            services = composition.services()
            yield cls(
                services,
                api=composition.api,
                servers=resources.servers,
                drain_seconds=config.worker.drain_seconds + _STOP_SECONDS,
            )

    @property
    def url(self) -> str:
        """The URL of its API, once it runs; empty without the role `api`."""
        return self._api.url if self._api is not None else ""

    async def run(
        self,
        stop: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run all services until `stop` is set."""
        try:
            async with anyio.create_task_group() as group:
                services = partial(
                    run_services, self._services, stop, drain_seconds=self._drain_seconds
                )
                await group.start(services)
                if self._servers is not None:
                    self._announce(self._servers)
                task_status.started()
        finally:
            self.stopped.set()

    def _announce(self, servers: EmbeddedServers) -> None:
        """Write into the home where this daemon answers, and by which token."""
        if self._api is None:
            servers.announce("")
        else:
            servers.announce(
                self._api.url, token=self._api.own_token, certificate=self._api.certificate
            )

"""The HTTP server."""

import errno
from collections.abc import Callable, Mapping

import anyio
import structlog
from aiohttp import web
from anyio.abc import TaskStatus

from pubsubflow.api.bells import Bells
from pubsubflow.api.cloud_events import CloudEvents
from pubsubflow.api.connections import Connections
from pubsubflow.api.dags import Dags
from pubsubflow.api.dead_letters import DeadLetters
from pubsubflow.api.doors import Doors
from pubsubflow.api.events import Events
from pubsubflow.api.health import Health
from pubsubflow.api.hooks import Hooks
from pubsubflow.api.live import Live
from pubsubflow.api.live_settings import LiveSettings
from pubsubflow.api.malformed import Runner
from pubsubflow.api.openapi import OpenApi
from pubsubflow.api.past import Past
from pubsubflow.api.problems import problems
from pubsubflow.api.routing import Routed
from pubsubflow.api.runs import Runs
from pubsubflow.api.settings import ApiSettings, check_host
from pubsubflow.api.tasks import Tasks
from pubsubflow.api.triggers import Triggers
from pubsubflow.bus import Bus
from pubsubflow.errors import ConfigError
from pubsubflow.model.calls import Calls
from pubsubflow.store.connections import Connections as StoredConnections
from pubsubflow.store.reading import Reading
from pubsubflow.webhooks.secrets import EnvironmentSecrets, SecretSource

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_CLOSE_SECONDS = 2.0


class Api:
    """Serves HTTP: events in, answers out; it acknowledges nothing that is not durable.

    Args:
        calls: Carries out what is asked.
        reading: Looks up what is asked.
        bus: Brings news to those who wait.
        settings: See there.
        ready: Further conditions of readiness by name, for example whether the DAGs are loaded.
        secrets: Knows the secrets that webhooks name; none if left out.
        live: How the live stream is served.
        connections: Where connections are; none are served if left out.

    Raises:
        ConfigError: The host is reachable from other machines.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        reading: Reading,
        bus: Bus,
        settings: ApiSettings,
        ready: Callable[[], Mapping[str, bool]] = dict,
        secrets: SecretSource | None = None,
        live: LiveSettings | None = None,
        connections: StoredConnections | None = None,
    ) -> None:
        check_host(settings.host)
        self._settings = settings
        self._bells = Bells(bus)
        self._doors = Doors(reading.hooks, secrets or EnvironmentSecrets({}), self._bells)
        self._live = Live(reading.news, self._bells, live or LiveSettings())
        hooks = Hooks(calls, self._doors)
        parts: tuple[Routed, ...] = (
            Health(reading, bus, ready),
            Events(calls, reading, settings.max_events),
            CloudEvents(calls, settings.max_events),
            Dags(calls, reading),
            Runs(calls, reading, self._bells),
            Tasks(reading, self._bells),
            Triggers(reading),
            Past(calls, reading),
            hooks,
            DeadLetters(calls, reading, hooks),
            self._live,
            *([] if connections is None else [Connections(connections, bus)]),
        )
        self._parts = (*parts, OpenApi(parts))
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it answers, such as `http://127.0.0.1:8080`; known once it runs."""
        if self._url is None:
            raise RuntimeError("the API does not run yet")
        return self._url

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping` is set and the requests under way are answered.

        Raises:
            ConfigError: The port is taken, or the address is not this machine's.
        """
        runner = self._runner()
        await runner.setup()
        try:
            await self._doors.load()
            await self._listen(runner)
            log.info("api.listening", url=self.url)
            async with anyio.create_task_group() as group:
                group.start_soon(self._doors.follow)
                group.start_soon(self._live.run)
                task_status.started()
                await stopping.wait()
                group.cancel_scope.cancel()
        finally:
            self._bells.stop()
            with anyio.move_on_after(self._settings.drain_seconds + _CLOSE_SECONDS, shield=True):
                await runner.cleanup()

    def _runner(self) -> web.AppRunner:
        app = web.Application(middlewares=[problems], client_max_size=self._settings.max_body_bytes)
        for part in self._parts:
            app.add_routes(route.served() for route in part.routes())
        return Runner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=self._settings.drain_seconds,
        )

    async def _listen(self, runner: web.AppRunner) -> None:
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is taken by another program: choose another one with "
                    "--port, or --port 0 for any that is free"
                ) from error
            raise ConfigError(
                f"nothing can listen on {host}:{port} ({error.strerror}): choose with --host and "
                "--port"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self._url = f"http://{name}:{runner.addresses[0][1]}"

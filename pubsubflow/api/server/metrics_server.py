"""A metrics server exposes `/metrics` of daemons that do not play the role `api`."""

import errno
import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

import anyio
import structlog
from aiohttp import hdrs, web
from anyio.abc import TaskStatus

from pubsubflow.api.server.connections import LimitedSite, OpenConnections
from pubsubflow.api.settings import ApiSettings, is_local
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)

_LIMITS = ApiSettings(max_connections=16)

Expose: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Takes an Accept header; returns all metrics as text, and the text's type."""


async def metrics_response(expose: Expose, request: web.Request) -> web.Response:
    """Return all metrics, in the format that the request accepts."""
    body, content_type = await expose(request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


class MetricsServer:
    """Serves `/metrics` and `/healthz`, and nothing else.

    Args:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        token: The bearer token that scrapers must send; empty if they need none.
        expose: Returns all metrics as text.

    Attributes:
        url: Its address, once it runs.

    Raises:
        ConfigError: The host is reachable from other machines, and no token is set.
    """

    def __init__(self, *, host: str, port: int, token: str, expose: Expose) -> None:
        if not token and not is_local(host):
            raise ConfigError(
                f"metrics.host {host} is reachable from other machines: set metrics.token, which "
                "scrapers then send as a bearer token, or keep 127.0.0.1"
            )
        self._host, self._port = host, port
        self._token = token.encode()
        self._expose = expose
        self._connections = OpenConnections(_LIMITS)
        self.url = ""

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping` is set.

        Raises:
            ConfigError: The port is in use, or the address is not this machine's.
        """
        app = web.Application(middlewares=[self._connections.middleware])
        app.router.add_get("/metrics", self._show)
        app.router.add_get("/healthz", self._alive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await self._listen(runner)
            log.info("metrics.listening", url=self.url)
            async with anyio.create_task_group() as group:
                group.start_soon(self._connections.run)
                task_status.started()
                await stopping.wait()
                group.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(2, shield=True):
                await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        try:
            # Scrapers are few: whatever else connects must not use up the daemon's open files.
            await LimitedSite(
                runner,
                self._host,
                self._port,
                connections=self._connections,
                handshake_seconds=_LIMITS.header_seconds,
                backlog=_LIMITS.max_connections,
            ).start()
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            reason = "is in use" if in_use else f"is not available: {error.strerror}"
            raise ConfigError(
                f"metrics.port {self._port} of {self._host} {reason}: choose another one"
            ) from error
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{name}:{runner.addresses[0][1]}"

    async def _show(self, request: web.Request) -> web.Response:
        credentials = request.headers.get(hdrs.AUTHORIZATION, "").encode()
        if self._token and not hmac.compare_digest(credentials, b"Bearer " + self._token):
            return web.Response(
                status=HTTPStatus.UNAUTHORIZED,
                text="send metrics.token as a bearer token\n",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        return await metrics_response(self._expose, request)

    @staticmethod
    async def _alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

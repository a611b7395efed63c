"""A server for scrapes alone: for daemons that do not play the role `api`."""

import errno
import hmac
from http import HTTPStatus

import anyio
import structlog
from aiohttp import hdrs, web
from anyio.abc import TaskStatus

from pubsubflow.api.routes.metrics import Expose, Metrics
from pubsubflow.api.settings import is_local
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)


class ScrapeServer:
    """Serves `/metrics` and `/healthz`, and nothing else.

    Args:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        token: Who scrapes must show it as a bearer token; empty for nobody.
        expose: Returns all figures as text.

    Attributes:
        url: Where it answers, once it runs.

    Raises:
        ConfigError: The host is reachable from other machines, and there is no token.
    """

    def __init__(self, *, host: str, port: int, token: str, expose: Expose) -> None:
        if not token and not is_local(host):
            raise ConfigError(
                f"metrics.host {host} would let other machines in: set metrics.token, which they "
                "then have to show, or keep 127.0.0.1"
            )
        self._host, self._port = host, port
        self._token = token.encode()
        self._metrics = Metrics(expose)
        self.url = ""

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping` is set.

        Raises:
            ConfigError: The port is taken, or the address is not this machine's.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._show)
        app.router.add_get("/healthz", self._alive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await self._listen(runner)
            log.info("metrics.listening", url=self.url)
            task_status.started()
            await stopping.wait()
        finally:
            with anyio.move_on_after(2, shield=True):
                await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "is taken by another program" if taken else f"cannot be had: {error.strerror}"
            raise ConfigError(
                f"metrics.port {self._port} of {self._host} {reason}: choose another one"
            ) from error
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{name}:{runner.addresses[0][1]}"

    async def _show(self, request: web.Request) -> web.Response:
        shown = request.headers.get(hdrs.AUTHORIZATION, "").encode()
        if self._token and not hmac.compare_digest(shown, b"Bearer " + self._token):
            return web.Response(
                status=HTTPStatus.UNAUTHORIZED,
                text="show metrics.token as a bearer token\n",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        return await self._metrics.show(request)

    @staticmethod
    async def _alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

"""What is no HTTP is answered by a problem document, too, and no cause for alarm.

aiohttp answers such bytes in plain text before any application sees them, with a traceback in the
log for each; it lets nobody say otherwise but by subclasses of its server and its protocol.
"""

from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.web_request import BaseRequest

from pubsubflow.api.http.headers import dress
from pubsubflow.api.http.problems import malformed

log = structlog.get_logger(__name__)


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be read as a request; the connection closes."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        log.info("api.malformed", peer=request.remote, status=status, kind=type(exc).__name__)
        answer = malformed(status)
        dress(answer)
        answer.force_close()
        return answer


class _Server(web.Server):
    """Makes the connections."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application; what is no HTTP gets a problem document."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        made.__class__ = _Server
        return made

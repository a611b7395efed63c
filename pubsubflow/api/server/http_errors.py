"""HTTP parse errors are answered by problem documents, and logged in one line.

aiohttp answers bytes that are not HTTP in plain text before the application sees them, with a
traceback in the log for each. Only subclasses of its server and its protocol can change that.
"""

from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.web_request import BaseRequest

from pubsubflow.api.http.headers import add_headers
from pubsubflow.api.http.problems import malformed_request

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
        """Respond to bytes that cannot be parsed, and close the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        log.info(
            "api.request_malformed", peer=request.remote, status=status, kind=type(exc).__name__
        )
        answer = malformed_request(status)
        add_headers(answer)
        answer.force_close()
        return answer


class _Server(web.Server):
    """Makes the protocols."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """Runs an application; parse errors are answered by problem documents."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # The class is replaced because aiohttp has no hook for the protocol that its server makes.
        server.__class__ = _Server
        return server

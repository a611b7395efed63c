"""Errors as RFC 9457 problem documents, and the pages of a browser that may not ask."""

from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from pubsubflow.api.http.responses import encode
from pubsubflow.errors import (
    DefinitionError,
    IllegalTransition,
    InvalidInput,
    NotFound,
    PubsubflowError,
    ServiceStopped,
    StaleRevision,
    Unavailable,
)
from pubsubflow.model.api.resources import Problem
from pubsubflow.redaction import masked

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = "1"
SIGNED = "/hooks/"
"""What is served here asks for more than where a request comes from; proxies keep their names."""

_NUL = "%00"
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""Headers that proxies add."""

_STATUSES: dict[type[PubsubflowError], int] = {
    NotFound: 404,
    StaleRevision: 412,
    IllegalTransition: 409,
    InvalidInput: 422,
    DefinitionError: 422,
    Unavailable: 503,
    ServiceStopped: 503,
}
_DETAILS = {
    404: "nothing is served at {path}; see /api/v1/info for what this server is",
    405: "{method} does not go with {path}; {allow} does",
}


class BadRequest(InvalidInput):
    """A request that cannot be accepted, with the place that is wrong.

    Args:
        detail: What is wrong and what to do.
        status: HTTP status.
        index: Position of the offending item in a list.
        field: Path of the offending field.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int = 422,
        index: int | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.index = index
        self.field = field
        self.headers = headers or {}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem document."""
    try:
        check_address(request)
        return await handler(request)
    except BadRequest as error:
        refusal = _answer(error.status, str(error), index=error.index, field=error.field)
        refusal.headers.update(error.headers)
        if error.headers.get("Connection") == "close":
            refusal.force_close()
        return refusal
    except PubsubflowError as error:
        status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.exception("api.failed", method=request.method, path=request.path)
        return _answer(status, str(error))
    except web.HTTPException as error:
        return _http_problem(request, error)
    except ConnectionError as error:
        log.debug("api.asker_left", path=request.path, reason=str(error))
        return _answer(400, "the request broke off")
    except Exception:
        log.exception("api.failed", method=request.method, path=request.path)
        return _answer(500, "the server met an error of its own; its log says which")


def check_address(request: web.Request) -> None:
    """Refuse what the name of nothing can hold.

    Raises:
        BadRequest: The address holds it.
    """
    if _NUL in request.raw_path:
        raise BadRequest("the address holds the character NUL, which nothing has", status=400)


def _http_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    allow = error.headers.get("Allow")
    detail = _DETAILS.get(error.status, error.text or error.reason)
    detail = detail.format(path=request.path, method=request.method, allow=allow)
    answer = _answer(error.status, detail)
    if allow:
        answer.headers["Allow"] = allow
    return answer


def _answer(
    status: int, detail: str, *, index: int | None = None, field: str | None = None
) -> web.Response:
    body = document(status, detail, index=index, field=field)
    answer = web.Response(body=body, status=status, content_type=PROBLEM)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return answer


def malformed(status: int) -> web.Response:
    """Return the answer to what cannot be read as a request, and so is not repeated."""
    return _answer(status, "this is no request of HTTP/1.1, or its head is too large")


def document(
    status: int, detail: str, *, index: int | None = None, field: str | None = None
) -> bytes:
    """Return a problem document."""
    title = HTTPStatus(status).phrase
    # It may quote bytes of a header that are no text.
    detail = masked(detail.encode(errors="replace").decode())
    return encode(Problem(title=title, status=status, detail=detail, index=index, field=field))


PROBLEM = "application/problem+json"


def check_origin(headers: Mapping[str, str]) -> None:
    """Keep web pages of other sites out, which make a browser send requests here.

    Raises:
        BadRequest: It is such a page; its Origin shows it.
    """
    origin = headers.get("Origin")
    if origin is not None and _place(origin) != headers.get("Host", "localhost"):
        raise BadRequest(f"requests from pages of {origin} are not accepted", status=403)


def check_name(headers: Mapping[str, str]) -> None:
    """Keep web pages out that have their own name point to this machine (DNS rebinding).

    Where a token tells who asks there is no need: no page has it.

    Raises:
        BadRequest: The name in Host is not one that every machine has.
    """
    host = headers.get("Host", "localhost")
    if not _names_a_machine(host):
        raise BadRequest(
            f"this server is not called {host}: use its address, or a token (`pubsubflow tokens "
            "create`)",
            status=403,
        )


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _names_a_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ip_address(name)
    except ValueError:
        return False
    return True

"""Problem documents (RFC 9457) answer every error; pages of other sites are refused."""

import errno
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
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
from pubsubflow.redaction import redact

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = "1"
SELF_AUTHENTICATED = "/hooks/"
"""Prefix of the routes whose requests carry their own proof, such as a webhook's signature.

The checks of `Origin` and `Host` do not apply: a proxy may keep its own host name there.
"""

_NUL = "%00"
FORWARDED = (
    hdrs.FORWARDED,
    hdrs.X_FORWARDED_FOR,
    hdrs.X_FORWARDED_HOST,
    hdrs.X_REAL_IP,
    hdrs.VIA,
)
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
_SHORTAGES = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOSPC: "disk space",
    errno.EDQUOT: "disk space",
    errno.ENOMEM: "memory",
}
_DETAILS = {
    404: "nothing is served at {path}; see /api/v1/openapi.json for the routes",
    405: "{path} does not support {method}; use {allow}",
}


class BadRequest(InvalidInput):
    """A request that cannot be accepted, with the location of the mistake.

    Args:
        detail: What is wrong and what to do.
        status: HTTP status.
        index: Position of the offending item in a list.
        field: Path of the offending field.
        headers: Further headers of the response.
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
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Respond to every error with a problem document; a middleware."""
    try:
        check_path(request)
        return await handler(request)
    except BadRequest as error:
        refusal = _problem_response(error.status, str(error), index=error.index, field=error.field)
        refusal.headers.update(error.headers)
        if error.headers.get("Connection") == "close":
            refusal.force_close()
        return refusal
    except web.HTTPException as error:
        return _http_problem(request, error)
    except ConnectionError as error:
        log.debug("api.client_disconnected", path=request.path, reason=str(error))
        return _problem_response(400, "the connection was lost")
    except Exception as error:  # noqa: BLE001 - it is logged with its traceback
        return _failure(request, error)


def _failure(request: web.Request, error: Exception) -> web.Response:
    """Return the response to an error; 503 if the machine runs short of something."""
    status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500)
    if status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return _problem_response(status, str(error))
    shortage = _shortage(error)
    if shortage is not None:
        log.warning("api.short_of_resources", path=request.path, reason=f"no {shortage} left")
        return _problem_response(503, f"the daemon has no {shortage} left: try again later")
    log.error("api.failed", method=request.method, path=request.path, exc_info=error)
    known = isinstance(error, PubsubflowError)
    return _problem_response(
        500, str(error) if known else "internal error: see the log of the server"
    )


def _shortage(error: BaseException | None) -> str | None:
    """Return what the machine runs short of, if an error comes of that."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return _SHORTAGES[error.errno]
        error = error.__cause__ or error.__context__
    return None


def check_path(request: web.Request) -> None:
    """Refuse the character NUL in a path, which Postgres cannot compare names with.

    Raises:
        BadRequest: The path holds it.
    """
    if _NUL in request.raw_path:
        raise BadRequest("the path holds the character NUL: leave it out", status=400)


def _http_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    allow = error.headers.get("Allow")
    detail = _DETAILS.get(error.status, error.text or error.reason)
    detail = detail.format(path=request.path, method=request.method, allow=allow)
    answer = _problem_response(error.status, detail)
    if allow:
        answer.headers["Allow"] = allow
    return answer


def _problem_response(
    status: int, detail: str, *, index: int | None = None, field: str | None = None
) -> web.Response:
    body = problem_document(status, detail, index=index, field=field)
    answer = web.Response(body=body, status=status, content_type=PROBLEM)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return answer


def malformed_request(status: int) -> web.Response:
    """Return the response to bytes that are not an HTTP request; it does not repeat them."""
    return _problem_response(status, "not a valid HTTP/1.1 request, or its head is too large")


def problem_document(
    status: int, detail: str, *, index: int | None = None, field: str | None = None
) -> bytes:
    """Return a problem document."""
    title = HTTPStatus(status).phrase
    # It may quote bytes of a header that are not UTF-8.
    detail = redact(detail.encode(errors="replace").decode())
    return encode(Problem(title=title, status=status, detail=detail, index=index, field=field))


PROBLEM = "application/problem+json"


_OWN_SITE = frozenset({"same-origin", "none"})
_READS = frozenset({"GET", "HEAD"})


def check_origin(headers: Mapping[str, str], method: str = "GET", *, cookie: bool = False) -> None:
    """Refuse requests that pages of other sites make a browser send.

    `same-site` is another site, too: another port of the same host is, where anybody may serve.

    Args:
        headers: Of the request.
        method: Of the request.
        cookie: Whether a cookie is its proof, which browsers add by themselves: a change then has
            to name its origin.

    Raises:
        BadRequest: It comes from a page of another site, or does not say that it does not.
    """
    origin, site = headers.get(hdrs.ORIGIN), headers.get(hdrs.SEC_FETCH_SITE)
    if origin is not None and _host_of(origin) != headers.get(hdrs.HOST, "localhost"):
        raise BadRequest(f"requests from pages of {origin} are not accepted", status=403)
    if site is not None and site.lower() not in _OWN_SITE:
        # Following a link shows the answer to the person alone, not to the page with the link.
        follows_link = method in _READS and headers.get(hdrs.SEC_FETCH_MODE) == "navigate"
        if not follows_link or headers.get(hdrs.SEC_FETCH_DEST, "document") != "document":
            raise BadRequest("requests from pages of other sites are not accepted", status=403)
    if cookie and method not in _READS and origin is None and site is None:
        raise BadRequest(
            "a change by a signed-in browser carries its Origin: programs send a token in place "
            "of the cookie",
            status=403,
        )


def check_host(headers: Mapping[str, str]) -> None:
    """Refuse requests to host names that a page may have pointed to this machine (DNS rebinding).

    Not needed where a token is required: no page has one.

    Raises:
        BadRequest: The Host is neither `localhost` nor an IP address.
    """
    host = headers.get(hdrs.HOST, "localhost")
    if not _is_local_name(host):
        raise BadRequest(
            f"the host name {host} is not accepted without tokens: use the server's address, or "
            "create a token with `pubsubflow tokens create`",
            status=403,
        )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ip_address(name)
    except ValueError:
        return False
    return True

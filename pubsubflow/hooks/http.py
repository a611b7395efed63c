"""HTTP hook: requests to the server of a connection, with its credentials."""

import base64
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput, PubsubflowError
from pubsubflow.model.connections import Connection
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy_module("aiohttp")  # every DAG file that names HttpOperator would pay for it

MAX_BYTES = 16 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_SHOWN = 300
_FAILED = 400
_NO_PAGE = (404, 405, 410)
_EXAMPLE = '{"check_path": "/health"}'


class HttpFailed(PubsubflowError):  # noqa: N818 - the server's answer, not our mistake
    """A server answered with an error, or with what was not expected.

    Args:
        status: Its status.
        message: What was requested, and how it answered.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpResponse(Struct, frozen=True):
    """A response, read to its end.

    Attributes:
        status: Its status.
        url: Where it came from, after redirects.
        headers: By names in lower case.
        body: Its bytes.
    """

    status: int
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """Its body as UTF-8, with replacements for what is not."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Return its body, decoded.

        Raises:
            InvalidInput: It is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"the response of {self.url} is not JSON: {error}") from error

    def check(self) -> Self:
        """Return itself.

        Raises:
            HttpFailed: Its status is an error's.
        """
        if self.status >= _FAILED:
            raise HttpFailed(
                self.status, f"{self.url} answered {self.status}: {self.text[:_SHOWN].strip()}"
            )
        return self


class HttpHook:
    """A client of one server; an asynchronous context manager.

    Args:
        connection: Of type `http`; None for requests by whole URLs alone.
    """

    def __init__(self, connection: Connection | None = None) -> None:
        self._base = connection.uri or "" if connection is not None else ""
        extra = {} if connection is None else connection.extra
        self._own = {} if connection is None else _credentials(connection)
        self._headers = {str(name): str(text) for name, text in extra.get("headers", {}).items()}
        self._verify = bool(extra.get("verify", True))
        self._seconds = float(extra.get("timeout", 30))
        if "@" in urlsplit(self._base).netloc:
            # The account goes into a header.
            self._base = self._base.replace(
                f"{urlsplit(self._base).netloc.rpartition('@')[0]}@", "", 1
            )

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, connect=self._seconds, sock_read=self._seconds)
        connector = aiohttp.TCPConnector(ssl=self._verify)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    def url(self, endpoint: str, base: str | None = None) -> str:
        """Return the URL of an endpoint: below the connection's, unless it is a whole one.

        Raises:
            InvalidInput: It is neither, or its scheme is not that of HTTP.
        """
        if base is None:
            base = f"{self._base.rstrip('/')}/"
            endpoint = endpoint if "://" in endpoint else endpoint.lstrip("/")
        found = urljoin(base, endpoint) if base != "/" else endpoint
        if urlsplit(found).scheme not in ("http", "https"):
            raise InvalidInput(
                f"{endpoint!r} is not the URL of a request: give a whole one, or a connection "
                "whose uri it is below"
            )
        return found

    async def request(
        self,
        method: str,
        endpoint: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
        **more: Any,
    ) -> HttpResponse:
        """Send a request, follow redirects, and return the response.

        The connection's credentials go to its own server alone.

        Args:
            method: Such as `GET`.
            endpoint: A path below the connection's URL, or a URL.
            headers: Of this request.
            max_bytes: Greatest size of the response.
            more: `params`, `json`, `data`, as for `aiohttp.ClientSession.request`.

        Raises:
            HttpFailed: The response is too large, or it redirects in circles.
        """
        url = self.url(endpoint)
        for _ in range(_MAX_REDIRECTS):
            sent = {**self._headers, **self._credentials_for(url), **(headers or {})}
            async with self._session.request(
                method, url, headers=sent, allow_redirects=False, **more
            ) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location and method in ("GET", "HEAD"):
                    url, more = self.url(location, str(response.url)), {}
                    continue
                body = await _read(response, max_bytes)
                names = {name.lower(): text for name, text in response.headers.items()}
                return HttpResponse(response.status, str(response.url), names, body)
        raise HttpFailed(310, f"{url} redirects more than {_MAX_REDIRECTS} times")

    def _credentials_for(self, url: str) -> dict[str, str]:
        return self._own if _origin(url) == _origin(self._base) else {}


async def _read(response: "aiohttp.ClientResponse", max_bytes: int) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > max_bytes:
            raise HttpFailed(response.status, f"{response.url} sends more than {max_bytes:,} bytes")
    return bytes(found)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _credentials(connection: Connection) -> dict[str, str]:
    secrets = connection.secrets
    if "token" in secrets:
        return {"Authorization": f"Bearer {secrets['token']}"}
    if "api_key" in secrets:
        return {str(connection.extra.get("api_key_header", "X-API-Key")): secrets["api_key"]}
    if connection.user is not None:
        account = f"{connection.user}:{connection.password or ''}".encode()
        return {"Authorization": f"Basic {base64.b64encode(account).decode()}"}
    return {}


async def check(connection: Connection) -> str:
    """Request the server's URL, and return how it answered.

    Raises:
        HttpFailed: It answered with the status of an error.
    """
    async with HttpHook(connection) as http:
        path = str(connection.extra.get("check_path", ""))
        response = await http.request("GET", path)
        if response.status in _NO_PAGE:
            raise HttpFailed(
                response.status,
                f"{response.url} answered {response.status}: a server is there, and not this page; "
                f"name one that it has by check_path, as in --extra '{_EXAMPLE}'",
            )
        response.check()
    return f"GET {response.url} answered {response.status}"

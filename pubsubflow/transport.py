"""Questions over HTTP on the standard library: one connection, pages, and errors in our words."""

import http.client
import socket
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from pubsubflow.errors import ConfigError, InvalidInput, PubsubflowError, Unavailable
from pubsubflow.model.views import Page, Problem

T = TypeVar("T")
Question = Mapping[str, object]

_PAGE = 1000
_PORTS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class Refused(InvalidInput):
    """The server knows no such thing, or cannot accept what was asked.

    Args:
        problem: Its answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Failed(PubsubflowError):  # noqa: N818 - an answer, not a fault of ours
    """The server could not do what was asked, for example because the run has ended.

    Args:
        problem: Its answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Transport:
    """One connection to one server, for one thread.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        timeout_seconds: How long the server may take to answer.
        source: What posted events have as their source: `api` or `cli`.

    Raises:
        ConfigError: The URL is none.

    All methods raise Unavailable when the server is out of reach or cannot answer now, Refused for
    what it does not know or accept, and Failed for what it could not do.
    """

    def __init__(self, url: str, *, timeout_seconds: float, source: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in _PORTS or not parts.netloc:
            raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8080")
        self._path = parts.path
        self._connection = _PORTS[parts.scheme](parts.netloc, timeout=timeout_seconds)
        self._headers = {"Content-Type": "application/json", "Pubsubflow-Source": source}

    @property
    def timeout_seconds(self) -> float:
        """How long the server may take to answer."""
        return self._connection.timeout or 60.0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def lines(self, path: str, asked: Question, *, endless: bool) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; the connection closes with the last.

        Args:
            path: What is asked.
            asked: The query string.
            endless: Whether the server may take any time between two lines.
        """
        response = self._ask("GET", with_query(path, asked), None)
        if endless and self._connection.sock is not None:
            self._connection.sock.settimeout(None)
        try:
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        finally:
            self.close()

    def list(
        self, path: str, kind: type[Page[T]], asked: Question, limit: int | None
    ) -> Iterator[T]:
        """Yield the items of all pages, as far as they are asked for."""
        left = limit
        after = asked.get("after")
        while left is None or left > 0:
            page = self.get(path, kind, {**asked, "after": after, "limit": part_of(left)})
            yield from page.items
            left = less(left, page)
            after = page.next
            if after is None:
                return

    def get(
        self, path: str, kind: type[T], asked: Question | None = None, *, accept: int = 200
    ) -> T:
        """Return an answer; `accept` is a further status that is none of an error."""
        response = self._ask("GET", with_query(path, asked or {}), None, accept=accept)
        return msgspec.json.decode(self._body(response), type=kind)

    def send(
        self,
        method: str,
        path: str,
        value: object,
        kind: type[T],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Send a value and return the answer."""
        response = self._ask(method, path, msgspec.json.encode(value), headers=headers)
        return msgspec.json.decode(self._body(response), type=kind)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: int = 200,
    ) -> http.client.HTTPResponse:
        """Send a request; once more if a connection that was kept turns out to be closed."""
        kept = self._connection.sock is not None
        while True:
            try:
                self._connection.request(
                    method, self._path + path, body, {**self._headers, **(headers or {})}
                )
                response: http.client.HTTPResponse = self._connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                closed = isinstance(error, http.client.RemoteDisconnected | ConnectionError)
                if not (kept and closed):
                    raise self._away(error) from error
                kept = False
            else:
                break
        if response.status >= http.HTTPStatus.BAD_REQUEST and response.status != accept:
            raise self._error(response)
        return response

    def _error(self, response: http.client.HTTPResponse) -> PubsubflowError:
        body = self._body(response)
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except msgspec.DecodeError:
            return Unavailable(
                f"{self.url} answers {response.status} {response.reason}: "
                "it is no pubsubflow server, or something stands in between"
            )
        if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return Unavailable(f"{self.url} cannot answer now: {problem.detail}")
        late = response.status == http.HTTPStatus.CONFLICT
        broken = response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        return Failed(problem) if late or broken else Refused(problem)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, socket.gaierror):
            reason = "no machine has that name"
        return Unavailable(
            f"no server answers at {self.url} ({reason or error or type(error).__name__}): start "
            "one with `pubsubflow up`, or name another with --server"
        )


def with_query(path: str, asked: Question) -> str:
    """Return a path with a query string of what is not None."""
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in asked.items()
        if value is not None
    }
    return f"{path}?{urlencode(given)}" if given else path


def quoted(text: str) -> str:
    """Return a name as it stands in a path."""
    return quote(text, safe="")


def part_of(left: int | None) -> int:
    """Return how many items to ask for at once."""
    return _PAGE if left is None else max(1, min(left, _PAGE))


def less(left: int | None, page: Page[Any]) -> int | None:
    """Return how many items are left to ask for after a page."""
    return None if left is None else left - len(page.items)

"""The operator that requests a URL, and waits for what the server has accepted."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.hooks.connection import read_connection
from pubsubflow.hooks.http import HttpFailed, HttpHook, HttpResponse
from pubsubflow.model.connections import Connection

_ACCEPTED = 202
_FAILED = 400
_BUSY = frozenset({429, 503})
_MAX_RECORDED_BYTES = 900_000
_KEPT_HEADERS = ("content-type", "location", "retry-after", "etag", "last-modified", "link")


class HttpOperator(Operator):
    """Sends a request; the result is the response's JSON, or its text.

    A server that answers 202 with a `Location` has accepted work: its outcome is requested there,
    and while the task waits for it, it holds no slot. A server that answers 429 or 503 with
    `Retry-After` is requested again at that time, in the same attempt.

    Args:
        endpoint: A path below the connection's URL, or a whole URL.
        method: Such as `GET`.
        data: The body: a string, or a dict as a form.
        json: The body as a JSON value.
        params: Of the query string.
        headers: Of the request.
        connection: The server, a connection of type `http`; None for a whole URL alone.
        response_check: Gets the HttpResponse; the task fails if it is false.
        response_filter: Gets the HttpResponse; its value is the result.
        poll: Whether a 202 is waited for.
        interval: Time between two looks at what was accepted, where the server names none.
        busy_retries: How often a busy server is requested again.
    """

    template_fields = ("endpoint", "data", "json", "params", "headers", "method")

    def __init__(
        self,
        *,
        endpoint: str = "",
        method: str = "POST",
        data: Any = None,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connection: str | Connection | None = "http_default",
        response_check: Callable[[HttpResponse], Any] | None = None,
        response_filter: Callable[[HttpResponse], Any] | None = None,
        poll: bool = True,
        interval: timedelta = timedelta(seconds=10),
        busy_retries: int = 10,
        **kwargs: Any,
    ) -> None:
        self.endpoint, self.method = endpoint, method
        self.data, self.json = data, json
        self.params, self.headers = dict(params or {}), dict(headers or {})
        self.connection = None if "://" in endpoint and connection == "http_default" else connection
        self.response_check, self.response_filter = response_check, response_filter
        self.poll, self.interval, self.busy_retries = poll, interval, busy_retries
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> Any:
        """Send the request, and wait for what it began."""
        number = 0
        while True:
            response, attempt = await self._exchange(ctx, number)
            # The steps of earlier attempts are replayed: what they came to has failed, and what
            # they began is begun anew.
            if attempt == ctx.attempt:
                self._check(response)
                return self._result(response)
            number += 1

    async def _exchange(self, ctx: Context, number: int) -> tuple[HttpResponse, int]:
        """Send the request, wait, and return the last response, with the attempt that got it."""
        method, url, busy = self.method, self.endpoint, 0
        while True:
            made = await ctx.step(f"{method} {number}", self._send, ctx, method, url)
            response = _decoded(made)
            if _is_busy(response) and busy < self.busy_retries:
                busy += 1
            elif self.poll and response.status == _ACCEPTED and "location" in response.headers:
                method, url = "GET", urljoin(response.url, response.headers["location"])
            elif not (self.poll and response.status == _ACCEPTED and url != self.endpoint):
                return response, made["attempt"]
            # While it sleeps, the task holds no slot.
            await ctx.sleep(_pause(response, self.interval))

    async def _send(self, ctx: Context, method: str, url: str) -> dict[str, Any]:
        """Send one request; return its response in a form that can be recorded."""
        connection = self.connection and await read_connection(ctx, self.connection)
        async with HttpHook(connection or None) as http:
            sent = {**ctx.trace, **self.headers}
            body = self._body() if url == self.endpoint else {}
            response = await http.request(method, url, headers=sent, **body)
        ctx.log.info("http.answered", method=method, url=response.url, status=response.status)
        made = {"attempt": ctx.attempt, "status": response.status, "url": response.url}
        if (
            self.response_filter is not None
            and response.status < _FAILED
            and not self._waits(response)
        ):
            # Before it is recorded: a filter makes a large response small.
            self._check(response)
            return made | {"filtered": self.response_filter(response)}
        if len(response.body) > _MAX_RECORDED_BYTES:
            raise HttpFailed(
                response.status,
                f"{response.url} sends {len(response.body):,} bytes and {_MAX_RECORDED_BYTES:,} "
                "fit: give a response_filter, or write it to storage in a task of your own",
            )
        headers = {name: text for name, text in response.headers.items() if name in _KEPT_HEADERS}
        return made | {"headers": headers, "body": response.body}

    def _body(self) -> dict[str, Any]:
        given = {"data": self.data, "json": self.json, "params": self.params or None}
        return {name: value for name, value in given.items() if value is not None}

    def _waits(self, response: HttpResponse) -> bool:
        return self.poll and response.status == _ACCEPTED

    def _check(self, response: HttpResponse) -> None:
        if isinstance(response, _Filtered):
            return
        response.check()
        if self.response_check is not None and not self.response_check(response):
            raise HttpFailed(
                response.status,
                f"{response.url} answered {response.status}, which response_check "
                f"does not accept: {response.text[:300].strip()}",
            )

    def _result(self, response: HttpResponse) -> Any:
        if isinstance(response, _Filtered):
            return response.value
        if "json" in response.headers.get("content-type", ""):
            return response.json()
        return response.text


class _Filtered(HttpResponse, frozen=True):
    """A response of which the filter's value is recorded alone."""

    value: Any = None


def _decoded(made: Mapping[str, Any]) -> HttpResponse:
    if "filtered" in made:
        return _Filtered(made["status"], made["url"], {}, b"", made["filtered"])
    return HttpResponse(made["status"], made["url"], made["headers"], made["body"])


def _is_busy(response: HttpResponse) -> bool:
    return response.status in _BUSY and "retry-after" in response.headers


def _pause(response: HttpResponse, interval: timedelta) -> timedelta:
    """Return the time that the server names, by `Retry-After`: seconds or a date."""
    named = response.headers.get("retry-after", "")
    if named.isdecimal():
        return timedelta(seconds=int(named))
    try:
        moment = parsedate_to_datetime(named)
    except ValueError:
        return interval
    now = datetime.now(UTC)
    return max(moment.replace(tzinfo=moment.tzinfo or UTC) - now, timedelta(0))

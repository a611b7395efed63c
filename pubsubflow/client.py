"""Ask a running daemon over HTTP; plain calls, no event loop.

::

    with Client("http://127.0.0.1:8080") as client:
        run_id = client.trigger("build_report", params={"day": "2026-11-20"})
        assert client.wait(run_id).state == "success"

It stands on the standard library, so a command that asks one question starts fast.
"""

import http.client
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from pubsubflow.errors import ConfigError, InvalidInput, PubsubflowError, Unavailable
from pubsubflow.model.states import RunState
from pubsubflow.model.views import (
    DagDetail,
    DagPage,
    DatasetView,
    EventView,
    Explanation,
    Info,
    LogLine,
    Page,
    PostedEvents,
    Problem,
    Readiness,
    RunDetail,
    RunView,
    StartedRun,
    TaskDetail,
    TaskView,
)

T = TypeVar("T")
Question = Mapping[str, object]

_PAGE = 1000
_WAIT_SECONDS = 30.0
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


class Client:
    """One connection to one server, for one thread; a context manager.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        timeout_seconds: How long the server may take to answer.
        source: What posted events have as their source: `api` or `cli`.

    Raises:
        ConfigError: The URL is none.

    All methods raise Unavailable when the server is out of reach or cannot answer now, Refused for
    what it does not know or accept, and Failed for what it could not do.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 30.0, source: str = "api") -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in _PORTS or not parts.netloc:
            raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8080")
        self._path = parts.path
        self._connection = _PORTS[parts.scheme](parts.netloc, timeout=timeout_seconds)
        self._headers = {"Content-Type": "application/json", "Pubsubflow-Source": source}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def info(self) -> Info:
        """Return what the server is."""
        return self._get("/api/v1/info", Info)

    def readiness(self) -> Readiness:
        """Return whether the daemon can do its work."""
        return self._get("/readyz", Readiness, accept=http.HTTPStatus.SERVICE_UNAVAILABLE)

    def dags(self, *, limit: int | None = None) -> DagPage:
        """Return DAGs by name, and the files that cannot be imported.

        Args:
            limit: Number of DAGs at most; None for all.
        """
        first = self._get("/api/v1/dags", DagPage, {"limit": _part(limit)})
        rest = self._list("/api/v1/dags", DagPage, {"after": first.next}, _less(limit, first))
        items = [*first.items, *(rest if first.next else ())]
        return DagPage(items, None, first.import_errors)

    def dag(self, dag_id: str) -> DagDetail:
        """Return all about a DAG."""
        return self._get(f"/api/v1/dags/{_quoted(dag_id)}", DagDetail)

    def set_paused(self, dag_id: str, *, paused: bool) -> DagDetail:
        """Pause or unpause a DAG; return what it is now."""
        path = f"/api/v1/dags/{_quoted(dag_id)}"
        return self._send("PATCH", path, {"paused": paused}, DagDetail)

    def trigger(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        logical_time: datetime | None = None,
        run_key: str | None = None,
        cause: str | None = None,
    ) -> str:
        """Start a run and return its id.

        Args:
            dag_id: The DAG.
            params: Values in place of the DAG's defaults.
            logical_time: The moment that the run is about; with a zone.
            run_key: Asking again under the same key gives the same run.
            cause: One line for people: why it is asked for.
        """
        asked = {
            "params": params,
            "logical_time": logical_time,
            "run_key": run_key or f"manual:{uuid.uuid4()}",
            "cause": cause or "asked for through the API",
        }
        path = f"/api/v1/dags/{_quoted(dag_id)}/runs"
        return self._send("POST", path, asked, StartedRun).run_id

    def runs(
        self, *, dag_id: str | None = None, state: str | None = None, limit: int | None = None
    ) -> Iterator[RunView]:
        """Yield runs, the newest first.

        Args:
            dag_id: Only those of this DAG.
            state: Only those in this state.
            limit: Number of runs at most; None for all.
        """
        asked = {"dag": dag_id, "state": state}
        return self._list("/api/v1/runs", Page[RunView], asked, limit)

    def run(self, run_id: str) -> RunDetail:
        """Return a run."""
        return self._get(f"/api/v1/runs/{_quoted(run_id)}", RunDetail)

    def explain(self, run_id: str) -> Explanation:
        """Return why a run exists, back to the origin."""
        return self._get(f"/api/v1/runs/{_quoted(run_id)}/explain", Explanation)

    def wait(self, run_id: str, *, timeout_seconds: float | None = None) -> RunDetail:
        """Wait until a run has ended; return it as it is then, or when the time is over."""
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            part = max(0.0, min(left, _WAIT_SECONDS, (self._connection.timeout or 60) / 2))
            path = f"/api/v1/runs/{_quoted(run_id)}/wait"
            run = self._get(path, RunDetail, {"timeout": f"{part:.3f}"})
            if RunState(run.state).final or (give_up is not None and left <= part):
                return run

    def cancel(self, run_id: str, *, reason: str = "cancelled") -> RunDetail:
        """End a run and stop its tasks; return it as it is then."""
        path = f"/api/v1/runs/{_quoted(run_id)}/cancel"
        return self._send("POST", path, {"reason": reason}, RunDetail)

    def tasks(self, run_id: str, *, limit: int | None = None) -> Iterator[TaskView]:
        """Yield the task instances of a run in topological order, also those not started yet."""
        return self._list(f"/api/v1/runs/{_quoted(run_id)}/tasks", Page[TaskView], {}, limit)

    def task(self, run_id: str, task_id: str) -> TaskDetail:
        """Return a task instance; that of a mapped task is named `<task_id>.<map_index>`."""
        return self._get(f"/api/v1/runs/{_quoted(run_id)}/tasks/{_quoted(task_id)}", TaskDetail)

    def logs(
        self,
        run_id: str,
        task_id: str,
        *,
        attempt: int | None = None,
        map_index: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Yield the output of a task instance.

        Args:
            run_id: The run.
            task_id: The task.
            attempt: Which attempt; None for the latest.
            map_index: Which instance of a mapped task.
            follow: Go on until the task has ended.
        """
        asked = {"attempt": attempt, "map_index": map_index, "follow": follow or None}
        path = f"/api/v1/runs/{_quoted(run_id)}/tasks/{_quoted(task_id)}/logs"
        response = self._ask("GET", _with_query(path, asked), None)
        if follow and self._connection.sock is not None:
            self._connection.sock.settimeout(None)
        decode = msgspec.json.Decoder(LogLine).decode
        try:
            for line in response:
                yield decode(line)
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        finally:
            self.close()

    def datasets(self, *, limit: int | None = None) -> Iterator[DatasetView]:
        """Yield datasets by URI."""
        return self._list("/api/v1/datasets", Page[DatasetView], {}, limit)

    def events(
        self, *, dataset: str | None = None, limit: int | None = None
    ) -> Iterator[EventView]:
        """Yield dataset events, the newest first.

        Args:
            dataset: Only those of this URI.
            limit: Number of events at most; None for all.
        """
        path = "/api/v1/datasets/events"
        return self._list(path, Page[EventView], {"dataset": dataset}, limit)

    def emit(self, events: Sequence[Mapping[str, Any]]) -> PostedEvents:
        """Post dataset events and return their ids once they are durable.

        Args:
            events: Each with `dataset`, and perhaps `extra`, `partition`, `time`, `id`.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/v1/datasets/events"
        return self._send("POST", path, events, PostedEvents, headers=headers)

    def _list(
        self, path: str, kind: type[Page[T]], asked: Question, limit: int | None
    ) -> Iterator[T]:
        """Yield the items of all pages, as far as they are asked for."""
        left = limit
        after = asked.get("after")
        while left is None or left > 0:
            page = self._get(path, kind, {**asked, "after": after, "limit": _part(left)})
            yield from page.items
            left = _less(left, page)
            after = page.next
            if after is None:
                return

    def _get(
        self, path: str, kind: type[T], asked: Question | None = None, *, accept: int = 200
    ) -> T:
        response = self._ask("GET", _with_query(path, asked or {}), None, accept=accept)
        return msgspec.json.decode(self._body(response), type=kind)

    def _send(
        self,
        method: str,
        path: str,
        value: object,
        kind: type[T],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> T:
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


def _with_query(path: str, asked: Question) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in asked.items()
        if value is not None
    }
    return f"{path}?{urlencode(given)}" if given else path


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _part(left: int | None) -> int:
    return _PAGE if left is None else max(1, min(left, _PAGE))


def _less(left: int | None, page: Page[Any]) -> int | None:
    return None if left is None else left - len(page.items)

"""Ask a running daemon over HTTP; plain calls, no event loop.

::

    with Client("http://127.0.0.1:8080") as client:
        run_id = client.trigger("build_report", params={"day": "2026-11-20"})
        assert client.wait(run_id).state == "success"

It stands on the standard library, so a command that asks one question starts fast.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import msgspec

from pubsubflow.model.hook_views import HookView
from pubsubflow.model.states import RunState
from pubsubflow.model.trigger_views import TriggerView
from pubsubflow.model.views import (
    DagDetail,
    DagPage,
    DatasetView,
    EventView,
    Info,
    LogLine,
    Page,
    PostedEvents,
    Readiness,
    RunDetail,
    RunView,
    StartedRun,
    TaskDetail,
    TaskView,
)
from pubsubflow.model.why_views import (
    DeadLetterDetail,
    DeadLetterView,
    EventFate,
    Explanation,
    PlannedRuns,
    Resent,
    WhyNot,
)
from pubsubflow.transport import Failed, Refused, Transport, less, part_of, quoted

__all__ = ["Client", "Failed", "Refused"]

_WAIT_SECONDS = 30.0


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
        self._server = Transport(url, timeout_seconds=timeout_seconds, source=source)
        self.url = self._server.url

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
        self._server.close()

    def info(self) -> Info:
        """Return what the server is."""
        return self._server.get("/api/v1/info", Info)

    def readiness(self) -> Readiness:
        """Return whether the daemon can do its work."""
        return self._server.get("/readyz", Readiness, accept=HTTPStatus.SERVICE_UNAVAILABLE)

    def dags(self, *, limit: int | None = None) -> DagPage:
        """Return DAGs by name, and the files that cannot be imported.

        Args:
            limit: Number of DAGs at most; None for all.
        """
        first = self._server.get("/api/v1/dags", DagPage, {"limit": part_of(limit)})
        rest = self._server.list("/api/v1/dags", DagPage, {"after": first.next}, less(limit, first))
        items = [*first.items, *(rest if first.next else ())]
        return DagPage(items, None, first.import_errors)

    def dag(self, dag_id: str) -> DagDetail:
        """Return all about a DAG."""
        return self._server.get(f"/api/v1/dags/{quoted(dag_id)}", DagDetail)

    def set_paused(self, dag_id: str, *, paused: bool) -> DagDetail:
        """Pause or unpause a DAG; return what it is now."""
        path = f"/api/v1/dags/{quoted(dag_id)}"
        return self._server.send("PATCH", path, {"paused": paused}, DagDetail)

    def trigger(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        logical_time: datetime | None = None,
        partition: str | None = None,
        run_key: str | None = None,
        cause: str | None = None,
    ) -> str:
        """Start a run and return its id.

        Args:
            dag_id: The DAG.
            params: Values in place of the DAG's defaults.
            logical_time: The moment that the run is about; with a zone.
            partition: The partition that it is about.
            run_key: Asking again under the same key gives the same run.
            cause: One line for people: why it is asked for.
        """
        asked = {
            "params": params,
            "logical_time": logical_time,
            "partition": partition,
            "run_key": run_key or f"manual:{uuid.uuid4()}",
            "cause": cause or "asked for through the API",
        }
        path = f"/api/v1/dags/{quoted(dag_id)}/runs"
        return self._server.send("POST", path, asked, StartedRun).run_id

    def why_not(self, dag_id: str, *, partition: str | None = None) -> WhyNot:
        """Return why no run of a DAG starts now: what is there and what is missing."""
        path = f"/api/v1/dags/{quoted(dag_id)}/why-not"
        return self._server.get(path, WhyNot, {"partition": partition})

    def backfill(
        self,
        dag_id: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        partitions: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        again: bool = False,
    ) -> PlannedRuns:
        """Make the runs of past ticks or of partitions that do not exist yet.

        Args:
            dag_id: The DAG.
            since: From which tick on.
            until: Up to which tick, itself excluded; now if left out.
            partitions: Partition keys, in place of ticks.
            params: Values in place of the DAG's defaults.
            dry_run: Only tell what would start.
            again: Also make runs that exist.
        """
        asked = {
            "from": since,
            "to": until,
            "partitions": partitions,
            "params": params,
            "dry_run": dry_run,
            "again": again,
        }
        path = f"/api/v1/dags/{quoted(dag_id)}/backfill"
        return self._server.send("POST", path, asked, PlannedRuns)

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
        return self._server.list("/api/v1/runs", Page[RunView], asked, limit)

    def run(self, run_id: str) -> RunDetail:
        """Return a run."""
        return self._server.get(f"/api/v1/runs/{quoted(run_id)}", RunDetail)

    def explain(self, run_id: str) -> Explanation:
        """Return why a run exists, back to the origin."""
        return self._server.get(f"/api/v1/runs/{quoted(run_id)}/explain", Explanation)

    def wait(self, run_id: str, *, timeout_seconds: float | None = None) -> RunDetail:
        """Wait until a run has ended; return it as it is then, or when the time is over."""
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            part = max(0.0, min(left, _WAIT_SECONDS, self._server.timeout_seconds / 2))
            path = f"/api/v1/runs/{quoted(run_id)}/wait"
            run = self._server.get(path, RunDetail, {"timeout": f"{part:.3f}"})
            if RunState(run.state).final or (give_up is not None and left <= part):
                return run

    def cancel(self, run_id: str, *, reason: str = "cancelled") -> RunDetail:
        """End a run and stop its tasks; return it as it is then."""
        path = f"/api/v1/runs/{quoted(run_id)}/cancel"
        return self._server.send("POST", path, {"reason": reason}, RunDetail)

    def tasks(self, run_id: str, *, limit: int | None = None) -> Iterator[TaskView]:
        """Yield the task instances of a run in topological order, also those not started yet."""
        return self._server.list(f"/api/v1/runs/{quoted(run_id)}/tasks", Page[TaskView], {}, limit)

    def task(self, run_id: str, task_id: str) -> TaskDetail:
        """Return a task instance; that of a mapped task is named `<task_id>.<map_index>`."""
        return self._server.get(
            f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}", TaskDetail
        )

    def logs(
        self,
        run_id: str,
        task_id: str,
        *,
        attempt: int | None = None,
        map_index: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Return the output of a task instance, as it comes.

        Args:
            run_id: The run.
            task_id: The task.
            attempt: Which attempt; None for the latest.
            map_index: Which instance of a mapped task.
            follow: Go on until the task has ended.
        """
        asked = {"attempt": attempt, "map_index": map_index, "follow": follow or None}
        path = f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}/logs"
        decode = msgspec.json.Decoder(LogLine).decode
        return map(decode, self._server.lines(path, asked, endless=follow))

    def datasets(self, *, limit: int | None = None) -> Iterator[DatasetView]:
        """Yield datasets by URI."""
        return self._server.list("/api/v1/datasets", Page[DatasetView], {}, limit)

    def events(
        self, *, dataset: str | None = None, limit: int | None = None
    ) -> Iterator[EventView]:
        """Yield dataset events, the newest first.

        Args:
            dataset: Only those of this URI.
            limit: Number of events at most; None for all.
        """
        path = "/api/v1/datasets/events"
        return self._server.list(path, Page[EventView], {"dataset": dataset}, limit)

    def event_fates(
        self, *, dataset: str | None = None, limit: int | None = None
    ) -> Iterator[EventFate]:
        """Yield dataset events as `events` does, each with what became of it per subscription."""
        path, asked = "/api/v1/datasets/events", {"dataset": dataset, "fate": True}
        return self._server.list(path, Page[EventFate], asked, limit)

    def event_fate(self, event_id: str) -> EventFate:
        """Return one event with what became of it per subscription."""
        asked = {"event": event_id, "fate": True}
        return self._server.get("/api/v1/datasets/events", Page[EventFate], asked).items[0]

    def replay(
        self,
        *,
        since: datetime,
        until: datetime | None = None,
        dataset: str | None = None,
        dags: Sequence[str] = (),
        dry_run: bool = False,
        again: bool = False,
    ) -> list[PlannedRuns]:
        """Let DAGs decide about past events once more, from nothing pending.

        Args:
            since: From when on the events were recorded.
            until: Until when, itself excluded; now if left out.
            dataset: Only events of this URI; None for all that the DAGs subscribe to.
            dags: Which DAGs; all that subscribe to the dataset if left out.
            dry_run: Only tell what would start.
            again: Also make runs that exist.
        """
        asked = {
            "from": since,
            "to": until,
            "dataset": dataset,
            "dags": dags,
            "dry_run": dry_run,
            "again": again,
        }
        return self._server.send("POST", "/api/v1/datasets/replay", asked, list[PlannedRuns])

    def hooks(self, *, limit: int | None = None) -> Iterator[HookView]:
        """Yield webhooks by name, with what came through each since the daemon has started."""
        return self._server.list("/api/v1/hooks", Page[HookView], {}, limit)

    def triggers(
        self, *, kind: str | None = None, limit: int | None = None
    ) -> Iterator[TriggerView]:
        """Yield what tasks wait for and what watches datasets, the newest first.

        Args:
            kind: Only `time`, `trigger`, `event` or `watch`.
            limit: Number at most; None for all.
        """
        return self._server.list("/api/v1/triggers", Page[TriggerView], {"kind": kind}, limit)

    def dead_letters(
        self, *, resent: bool = False, limit: int | None = None
    ) -> Iterator[DeadLetterView]:
        """Yield what could not be done, the newest first.

        Args:
            resent: Also those that were sent again.
            limit: Number of dead letters at most; None for all.
        """
        asked = {"resent": resent}
        return self._server.list("/api/v1/dead-letters", Page[DeadLetterView], asked, limit)

    def dead_letter(self, number: int) -> DeadLetterDetail:
        """Return a dead letter with its payload."""
        return self._server.get(f"/api/v1/dead-letters/{number}", DeadLetterDetail)

    def resend(self, number: int, *, payload: object = None) -> Resent:
        """Try a dead letter again, as it is, or with another payload in JSON."""
        path = f"/api/v1/dead-letters/{number}/resend"
        return self._server.send("POST", path, {"payload": payload}, Resent)

    def emit(self, events: Sequence[Mapping[str, Any]]) -> PostedEvents:
        """Post dataset events and return their ids once they are durable.

        Args:
            events: Each with `dataset`, and perhaps `extra`, `partition`, `time`, `id`.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/v1/datasets/events"
        return self._server.send("POST", path, events, PostedEvents, headers=headers)

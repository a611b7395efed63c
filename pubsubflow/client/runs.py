"""Client methods for runs and their tasks."""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pubsubflow.client.bulk import run_filter, task_filter
from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.resources import (
    ClearedRun,
    LogLineView,
    Page,
    RunDetail,
    RunView,
    TaskDetail,
    TaskView,
)
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.runs.states import RunState

if TYPE_CHECKING:
    from pubsubflow.model.api import explain as explanations
    from pubsubflow.model.api.history import causality
    from pubsubflow.model.api.history import output as outputs
    from pubsubflow.model.api.history import timeline as timelines
else:
    explanations = lazy_module("pubsubflow.model.api.explain")
    causality = lazy_module("pubsubflow.model.api.history.causality")
    timelines = lazy_module("pubsubflow.model.api.history.timeline")
    outputs = lazy_module("pubsubflow.model.api.history.output")

_WAIT_SECONDS = 30.0
_decode_line = msgspec.json.Decoder(LogLineView).decode


class RunApi:
    """Methods of the client for runs and tasks."""

    _server: Transport

    def runs(
        self,
        *,
        dag_id: str | None = None,
        state: str | Sequence[str] | None = None,
        kind: str | Sequence[str] = (),
        tags: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        partition: str | None = None,
        params: Sequence[str] = (),
        backfill: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[RunView]:
        """Yield runs, the newest first.

        Args:
            dag_id: Only those of this DAG.
            state: Only those in this state, or in one of these.
            kind: Only those of this kind, or of one of these: `manual`, `dataset`, `cron`, ….
            tags: Only those that have all of these tags, or whose DAG has them.
            since: Only those created then or later; with a zone.
            until: Only those created before.
            partition: Only those of this partition.
            params: Only those with these params, each as `name=value`.
            backfill: Only those that the backfill of this id has made.
            limit: Number of runs at most; None for all.
        """
        chosen = run_filter(
            dag_id, state, kind, tags, since, until, partition, params, backfill=backfill
        )
        return self._server.list("/api/v1/runs", Page[RunView], chosen, limit)

    async def annotate(
        self,
        run_id: str,
        *,
        tags: Sequence[str] | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        note: str | None = None,
    ) -> RunDetail:
        """Change the tags and the note of a run; return it.

        Args:
            run_id: The run.
            tags: All of its tags; None to keep those that it has.
            add_tags: Tags to add.
            remove_tags: Tags to remove.
            note: A text for people; empty to remove the note, None to keep it.
        """
        body = {"tags": tags, "add_tags": add_tags, "remove_tags": remove_tags, "note": note}
        path = f"/api/v1/runs/{quoted(run_id)}"
        return await self._server.send("PATCH", path, body, RunDetail, idempotent=True)

    async def run(self, run_id: str) -> RunDetail:
        """Return a run."""
        return await self._server.get(f"/api/v1/runs/{quoted(run_id)}", RunDetail)

    async def explain(self, run_id: str) -> "explanations.Explanation":
        """Return why a run exists: the events it consumed and the runs that emitted them."""
        return await self._server.get(
            f"/api/v1/runs/{quoted(run_id)}/explain", explanations.Explanation
        )

    async def trace(
        self,
        run_id: str,
        *,
        task: str | None = None,
        causes: int = 4,
        effects: int = 4,
        breadth: int = 12,
        skip: int = 0,
    ) -> "causality.CausalTrace":
        """Return what led to a run, and what it has led to.

        Args:
            run_id: The run.
            task: Only effects of this task, with `.<map index>` for one instance.
            causes: How many steps back: from a run to an event, or back, is one.
            effects: How many steps on.
            breadth: How many causes, or effects, of each node at most.
            skip: How many of those of the run itself to leave out; for one direction alone.
        """
        params = {
            "causes": causes,
            "effects": effects,
            "breadth": breadth,
            "skip": skip,
            "task": task,
        }
        path = f"/api/v1/runs/{quoted(run_id)}/trace"
        return await self._server.get(path, causality.CausalTrace, params)

    async def timeline(self, run_id: str, *, task: str | None = None) -> "timelines.RunTimeline":
        """Return when the tasks of a run were queued, ran, waited and paused.

        Args:
            run_id: The run.
            task: Only this task; of a mapped one the first 500 instances one by one.
        """
        params = {"task": task, "limit": None if task is None else 500}
        path = f"/api/v1/runs/{quoted(run_id)}/timeline"
        return await self._server.get(path, timelines.RunTimeline, params)

    async def wait(self, run_id: str, *, timeout_seconds: float | None = None) -> RunDetail:
        """Wait until a run has ended, or until the timeout; return it."""
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            # Several short waits: each must end before the timeout of its request.
            part = max(0.0, min(left, _WAIT_SECONDS, self._server.timeout_seconds / 2))
            path = f"/api/v1/runs/{quoted(run_id)}/wait"
            run = await self._server.get(path, RunDetail, {"timeout": f"{part:.3f}"})
            if RunState(run.state).final or (give_up is not None and left <= part):
                return run

    async def cancel(self, run_id: str, *, reason: str = "cancelled") -> RunDetail:
        """Cancel a run and its tasks; return it."""
        path = f"/api/v1/runs/{quoted(run_id)}/cancel"
        return await self._server.send("POST", path, {"reason": reason}, RunDetail)

    async def retry(
        self, run_id: str, *, newest: bool = False, dry_run: bool = False
    ) -> ClearedRun:
        """Retry the tasks of an ended run that failed or could not start.

        Args:
            run_id: The run.
            newest: Use the DAG's newest version instead of the one that the run had.
            dry_run: Only return which tasks would run again.
        """
        path = f"/api/v1/runs/{quoted(run_id)}/retry"
        body = {"newest": newest, "dry_run": dry_run}
        return await self._server.send("POST", path, body, ClearedRun, idempotent=dry_run)

    async def clear(
        self,
        run_id: str,
        *,
        tasks: Sequence[str] = (),
        downstream: bool = False,
        upstream: bool = False,
        only_failed: bool = False,
        newest: bool = False,
        dry_run: bool = False,
    ) -> ClearedRun:
        """Clear tasks of a run and run them again, with the run's own events and params.

        Args:
            run_id: The run.
            tasks: Task ids, with `.<map index>` for one instance of a mapped task; all if empty.
            downstream: Also all tasks downstream of them.
            upstream: Also all tasks upstream of them.
            only_failed: Of all these only those that failed, were cancelled or could not start.
            newest: Use the DAG's newest version instead of the one that the run had.
            dry_run: Only return which tasks would run again.
        """
        body = {
            "tasks": tasks,
            "downstream": downstream,
            "upstream": upstream,
            "only_failed": only_failed,
            "newest": newest,
            "dry_run": dry_run,
        }
        path = f"/api/v1/runs/{quoted(run_id)}/clear"
        return await self._server.send("POST", path, body, ClearedRun, idempotent=dry_run)

    def tasks(
        self,
        run_id: str,
        *,
        states: Sequence[str] = (),
        map_index: int | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[TaskView]:
        """Yield the task instances of a run in topological order, also those not started yet.

        Args:
            run_id: The run.
            states: Only those in one of these states; `none` for those not started.
            map_index: Only those with this index of mapped tasks and groups.
            limit: Number of instances at most; None for all.
        """
        path = f"/api/v1/runs/{quoted(run_id)}/tasks"
        query = {"state": list(states) or None, "map_index": map_index}
        return self._server.list(path, Page[TaskView], query, limit)

    def tasks_of_runs(
        self,
        *,
        task_ids: Sequence[str] = (),
        states: Sequence[str] = (),
        run_states: Sequence[str] = (),
        limit: int | None = None,
        **chosen: Any,
    ) -> AsyncIterator[TaskView]:
        """Yield task instances of many runs that have become ready, those of the newest run first.

        Args:
            task_ids: Only instances of tasks with one of these ids.
            states: Only those in one of these states now.
            run_states: Only those of runs in one of these states now.
            limit: Number of instances at most; None for all.
            chosen: Which runs: as for `runs`.
        """
        query = task_filter(task_ids=task_ids, states=states, run_states=run_states, **chosen)
        return self._server.list("/api/v1/tasks", Page[TaskView], query, limit)

    async def task(self, run_id: str, task_id: str) -> TaskDetail:
        """Return a task instance; one of a mapped task is named `<task_id>.<map_index>`."""
        return await self._server.get(
            f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}", TaskDetail
        )

    async def task_result(self, run_id: str, task_id: str) -> Any:
        """Return what a task instance returned, as JSON values, whatever its size."""
        path = f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}/result"
        return await self._server.get(path, object)

    async def logs(
        self,
        run_id: str,
        task_id: str,
        *,
        attempt: int | None = None,
        map_index: int | None = None,
        follow: bool = False,
        full: bool = False,
    ) -> AsyncIterator[LogLineView]:
        """Yield the output of a task instance, as it is written, and why it ended.

        Args:
            run_id: The run.
            task_id: The task.
            attempt: Number of an attempt; None for the latest.
            map_index: Index of an instance of a mapped task.
            follow: Continue until the task has ended.
            full: Show the traceback at the end with the frames of pubsubflow.

        Raises:
            NotFound: The run, the task, the instance or the attempt does not exist.
            InvalidInput: The task is mapped, and no instance is named.
        """
        params = {
            "attempt": attempt,
            "map_index": map_index,
            "follow": follow or None,
            "full": full or None,
        }
        path = f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}/logs"
        async for line in self._server.lines(path, params):
            yield _decode_line(line)

    async def output_lines(
        self,
        run_id: str,
        task_id: str,
        *,
        attempt: int | None = None,
        map_index: int | None = None,
        first: int | None = None,
        last: int | None = None,
        limit: int | None = None,
    ) -> "outputs.OutputLines":
        """Return lines of the output of a task instance by their numbers, or the last ones.

        Args:
            run_id: The run.
            task_id: The task.
            attempt: Number of an attempt; None for the latest.
            map_index: Index of an instance of a mapped task.
            first: Number of the first line, from 0.
            last: In place of `first`: only the last lines, so many, 2,000 at most.
            limit: How many lines at most, 2,000 if more.

        Raises:
            NotFound: The run, the task, the instance or the attempt does not exist.
            InvalidInput: The task is mapped, and no instance is named.
        """
        params = {
            "attempt": attempt,
            "map_index": map_index,
            "first": first,
            "last": last,
            "limit": limit,
        }
        path = f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}/logs/lines"
        return await self._server.get(path, outputs.OutputLines, params)

    async def find_output(
        self,
        run_id: str,
        task_id: str,
        text: str,
        *,
        attempt: int | None = None,
        map_index: int | None = None,
        limit: int = 1000,
    ) -> "outputs.OutputMatches":
        """Return which lines of the output of a task instance have a text, in any case.

        Args:
            run_id: The run.
            task_id: The task.
            text: What is looked for.
            attempt: Number of an attempt; None for the latest.
            map_index: Index of an instance of a mapped task.
            limit: How many lines are named at most, 10,000 if more; all are counted.

        Raises:
            NotFound: The run, the task, the instance or the attempt does not exist.
            InvalidInput: The task is mapped, and no instance is named.
        """
        params = {"text": text, "attempt": attempt, "map_index": map_index, "limit": limit}
        path = f"/api/v1/runs/{quoted(run_id)}/tasks/{quoted(task_id)}/logs/find"
        return await self._server.get(path, outputs.OutputMatches, params)

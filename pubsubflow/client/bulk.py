"""Client methods for actions on many runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.bulk import BulkTasks, BulkView, MarkedRun


class BulkApi:
    """Methods of the client for many runs at once."""

    _server: Transport

    async def bulk(
        self,
        action: str,
        *,
        chosen: Mapping[str, Any] | None = None,
        runs: Sequence[Mapping[str, Any]] | None = None,
        dry_run: bool = False,
        limit: int = 200,
        after: str | None = None,
        **options: Any,
    ) -> BulkView:
        """Cancel, retry, clear or mark many runs; return what became of each.

        Sent again, it leaves the runs that it has changed: they have ended or were cleared since.

        Args:
            action: `cancel`, `retry`, `clear` or `mark`.
            chosen: Which runs: what `run_filter` returns.
            runs: In place of it exactly these: `run_id` and `cleared` of each, as a dry run
                returned them; at most 1,000.
            dry_run: Only return which runs it would change, and how many tasks would run again.
            limit: With a filter: how many runs at most, up to 1,000.
            after: With a filter: the `next` of the call before.
            options: `reason` to cancel or mark; `state` to mark; those of `clear` to clear.
        """
        body = {"action": action, "dry_run": dry_run, **options}
        if runs is None:
            given = {name: value for name, value in (chosen or {}).items() if value is not None}
            body |= {"filter": given, "limit": limit, "after": after}
        else:
            body["runs"] = runs
        path = "/api/v1/runs/bulk"
        return await self._server.send("POST", path, body, BulkView, idempotent=dry_run)

    async def bulk_tasks(
        self,
        action: str,
        *,
        chosen: Mapping[str, Any] | None = None,
        runs: Sequence[Mapping[str, Any]] | None = None,
        dry_run: bool = False,
        limit: int = 200,
        after: str | None = None,
        **options: Any,
    ) -> BulkTasks:
        """Clear or mark tasks of many runs; return what became of them, run by run.

        Args:
            action: `clear` or `mark`.
            chosen: Which tasks: what `task_filter` returns.
            runs: In place of it exactly these: `run_id`, `cleared` and `chosen` of each run, as a
                dry run returned them.
            dry_run: Only return which tasks it would change.
            limit: With a filter: how many tasks at most, up to 1,000.
            after: With a filter: the `next` of the call before.
            options: `downstream`, `upstream`; `newest` to clear; `state`, `reason` and `emit` to
                mark.
        """
        body = {"action": action, "dry_run": dry_run, **options}
        if runs is None:
            given = {name: value for name, value in (chosen or {}).items() if value is not None}
            body |= {"filter": given, "limit": limit, "after": after}
        else:
            body["runs"] = runs
        path = "/api/v1/tasks/bulk"
        return await self._server.send("POST", path, body, BulkTasks, idempotent=dry_run)

    async def mark(
        self,
        run_id: str,
        state: str,
        *,
        tasks: Sequence[str] = (),
        downstream: bool = False,
        upstream: bool = False,
        emit: bool = False,
        result: Any = None,
        reason: str = "marked",
        dry_run: bool = False,
    ) -> MarkedRun:
        """Mark a run, or tasks of it, as successful, failed or skipped.

        Args:
            run_id: The run.
            state: `success`, `failed` or, for tasks, `skipped`.
            tasks: Task ids, with `.<map index>` for one instance of a mapped task; the run is
                marked if empty.
            downstream: Also all tasks downstream of them.
            upstream: Also all tasks upstream of them.
            emit: Emit an event for each outlet of what is marked as successful.
            result: What the tasks return, for tasks that take it.
            reason: One line for people.
            dry_run: Only return which tasks would be marked.
        """
        body = {
            "state": state,
            "tasks": tasks,
            "downstream": downstream,
            "upstream": upstream,
            "emit": emit,
            "result": result,
            "reason": reason,
            "dry_run": dry_run,
        }
        path = f"/api/v1/runs/{quoted(run_id)}/mark"
        return await self._server.send("POST", path, body, MarkedRun, idempotent=dry_run)


def run_filter(
    dag_id: str | None = None,
    state: str | Sequence[str] | None = None,
    kind: str | Sequence[str] = (),
    tags: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    partition: str | None = None,
    params: Sequence[str] = (),
    *,
    backfill: str | None = None,
) -> dict[str, Any]:
    """Return a filter of runs as the server takes it; for its parameters see `Client.runs`."""
    states = [state] if isinstance(state, str) else list(state or ())
    kinds = [kind] if isinstance(kind, str) else list(kind)
    return {
        "dag": dag_id,
        "state": states or None,
        "kind": kinds or None,
        "tag": list(tags) or None,
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "partition": partition,
        "param": list(params) or None,
        "backfill": backfill,
    }


def task_filter(
    *,
    task_ids: Sequence[str] = (),
    states: Sequence[str] = (),
    run_states: Sequence[str] = (),
    **chosen: Any,
) -> dict[str, Any]:
    """Return a filter of tasks as the server takes it; see `Client.tasks_of_runs`."""
    found = run_filter(state=run_states, **chosen)
    found["run_state"] = found.pop("state")
    return {**found, "task": list(task_ids) or None, "state": list(states) or None}

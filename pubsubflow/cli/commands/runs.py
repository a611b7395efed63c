"""Runs: listed, shown, explained, awaited and cancelled."""

from collections.abc import AsyncIterable, Sequence
from pathlib import Path

from pubsubflow.cli import output
from pubsubflow.cli.commands.changes.bulk import Bulk, act_on_runs, check_single
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.run_choice import EVERY_RUN, RunChoice
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.texts import Grid, Text
from pubsubflow.cli.waiting import wait_for_run
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import CallbackView, RunDetail, RunView, TaskView
from pubsubflow.model.runs.states import RunState, TaskState

_SHOWN_FAILURES = 5


async def list_runs(
    *, choice: RunChoice = EVERY_RUN, limit: Limit = 20, target: Target = DEFAULT
) -> None:
    """List runs, the newest first.

    Args:
        choice: Which runs.
        limit: How many runs at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.runs(**choice.arguments(), limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("run", "dag", "state", "created", "took", "tags", "why"),
            narrow=5,
            right=["took"],
            elastic=["dag", "tags", "why"],
            times=["created"],
        )
        async for run in found:
            listing.row(
                run.run_id,
                run.dag_id,
                output.state(run.state),
                output.brief(run.created_at),
                output.duration(run.started_at, run.ended_at),
                ", ".join(run.tags),
                run.cause,
            )
    listing.show(none="no runs")


async def show_run(run: str, /, *, target: Target = DEFAULT) -> None:
    """Show a run and its tasks.

    Args:
        run: Id of the run.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.run(run)
        if target.json:
            output.show_json(found)
            return
        output.show(_facts(found), "")
        await show_tasks(client.tasks(run))
        show_callbacks(found.callbacks)
        for line in await failures(client, found, most=None):
            output.show(Text(line, "red"))


def show_callbacks(callbacks: Sequence[CallbackView]) -> None:
    """Show calls of functions and notifiers, and what they printed; nothing if there are none."""
    if not callbacks:
        return
    listing = output.Listing(
        *("callback", "for", "attempt", "state", "tries", "ended", "error"),
        right=["attempt", "tries"],
        elastic=["error"],
        times=["ended"],
    )
    for each in callbacks:
        listing.row(
            each.name,
            each.kind,
            str(each.attempt or ""),
            output.state(each.state),
            str(each.tries),
            output.brief(each.ended_at),
            each.error,
        )
    output.show("")
    listing.show(none="no callbacks")
    for each in callbacks:
        if each.output:
            output.show(*(f"{each.name}: {line}" for line in each.output.splitlines()))


async def wait_run(
    run: str,
    /,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the flag's name
    target: Target = DEFAULT,
) -> int:
    """Wait until a run has ended, and fail if the run failed.

    Args:
        run: Id of the run.
        timeout: Seconds to wait at most; the command fails after that too.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await wait_for_run(client, run, timeout)
        return await report_end(client, found, json=target.json)


async def cancel_run(
    run: str | None = None,
    /,
    *,
    reason: str | None = None,
    choice: RunChoice = EVERY_RUN,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Cancel a run and stop its tasks, or many runs by filters.

    Args:
        run: Id of the run; filters in place of it take many.
        reason: Reason, stored with the run.
        choice: Which runs.
        limit: How many runs at most by filters; 1000 if left out.
        dry_run: Only list the runs of the filters.
        yes: Do not prompt for confirmation.
        plan: File with what --dry-run --json printed: cancel exactly these runs.
        target: The daemon, and the format of the output.
    """
    text = reason or "cancelled at the command line"
    if run is None:
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        return await act_on_runs("cancel", choice, bulk, target, reason=text)
    check_single(choice, plan, dry_run=dry_run)
    async with target.client() as client:
        found = await client.cancel(run, reason=text)
    output.show_result(found, _end(found), json=target.json)
    return 0


async def tag_run(
    run: str, /, *tags: str, remove: tuple[str, ...] = (), target: Target = DEFAULT
) -> None:
    """Set tags of a run, and remove others.

    Args:
        run: Id of the run.
        tags: Tags to add.
        remove: Tag to remove; may be repeated.
        target: The daemon, and the format of the output.
    """
    if not (tags or remove):
        raise ConfigError("name tags to add, or --remove some")
    async with target.client() as client:
        found = await client.annotate(run, add_tags=tags, remove_tags=remove)
    text = f"{run}: {', '.join(found.tags) or 'no tags'}"
    output.show_result(found, text, json=target.json)


async def note_run(run: str, text: str, /, *, target: Target = DEFAULT) -> None:
    """Set the note of a run.

    Args:
        run: Id of the run.
        text: The note; empty to remove it.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.annotate(run, note=text)
    output.show_result(found, f"{run}: {found.note or 'no note'}", json=target.json)


async def report_end(client: Client, run: RunDetail, *, json: bool) -> int:
    """Print the end of a run and its failed tasks; return the exit code: 0 for success."""
    if json:
        output.show_json(run)
    else:
        output.show(_end(run))
        for line in await failures(client, run):
            output.show(Text(line, "red"))
    return 0 if run.state == RunState.SUCCESS else 1


async def failures(
    client: Client, run: RunView, *, most: int | None = _SHOWN_FAILURES
) -> list[str]:
    """Return a line for each task that failed by its own error, and what that kept from starting.

    Args:
        client: The client.
        run: The run.
        most: How many lines at most; all if None.
    """
    found: list[str] = []
    kept: list[str] = []
    # What has failed while other tasks go on is no less a failure.
    if run.state in (RunState.QUEUED, RunState.SUCCESS):
        return found
    async for task in client.tasks(run.run_id):
        name = task.id.removeprefix(f"{run.run_id}.")
        if task.error is not None and task.state != TaskState.SKIPPED:
            found.append(f"{name}: {task.error.type}: {task.error.message}")
        elif task.state == TaskState.UPSTREAM_FAILED:
            kept.append(name)
        if len(found) == most:
            return found
    if kept:
        found.append(f"did not start, because a task before failed: {', '.join(kept)}")
    return found


def why(run: RunView) -> str:
    """Format the cause of a run, with the kind of the run."""
    return run.cause if run.cause.startswith(run.kind) else f"{run.kind}: {run.cause}"


async def show_tasks(tasks: AsyncIterable[TaskView]) -> None:
    """Print task instances."""
    listing = output.Listing(
        *("task", "state", "attempt", "took", "started", "worker", "waits for"),
        narrow=5,
        right=["attempt", "took"],
        elastic=["worker", "waits for"],
        times=["started"],
    )
    async for task in tasks:
        index = "" if task.map_index is None else f".{task.map_index}"
        name = "" if task.map_name is None else f" {task.map_name}"
        listing.row(
            task.task_id + index + name,
            output.state(task.state),
            str(task.attempt or ""),
            output.duration(task.started_at, task.ended_at),
            output.brief(task.started_at),
            task.worker,
            task.waits_for,
        )
    listing.show(none="no tasks")


def _facts(run: RunDetail) -> Grid:
    return output.facts(
        [
            ("run", run.run_id),
            ("DAG", f"{run.dag_id}, version {run.version}"),
            ("state", output.state(run.state)),
            ("waits for", run.waits_for),
            ("why", run.cause),
            ("error", run.error),
            ("cleared", f"{run.cleared} times" if run.cleared else None),
            ("params", output.compact(run.params)),
            ("logical time", output.moment(run.logical_time)),
            ("partition", run.partition),
            ("tags", ", ".join(run.tags)),
            ("note", run.note),
            ("created", output.moment(run.created_at)),
            ("took", output.duration(run.started_at, run.ended_at)),
        ]
    )


def _end(run: RunDetail) -> Text:
    took = output.duration(run.started_at, run.ended_at)
    parts: list[str | Text] = [f"{run.dag_id} {run.run_id} ", output.state(run.state)]
    if took:
        parts.append(f" after {took}")
    if run.error:
        parts.append(f": {run.error}")
    return Text.assemble(*parts)

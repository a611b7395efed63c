"""Marks: commands that give a run, or tasks of it, a final state."""

from pathlib import Path
from typing import Any, Literal

from pubsubflow.cli import output
from pubsubflow.cli.commands.changes.bulk import Bulk, act_on_runs, check_single
from pubsubflow.cli.commands.changes.clearing import instances
from pubsubflow.cli.commands.changes.task_bulk import act_on_tasks, check_named
from pubsubflow.cli.parsers import Limit, json_or_text
from pubsubflow.cli.run_choice import EVERY_RUN, RunChoice
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.task_choice import EVERY_TASK, TaskChoice
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.bulk import MarkedRun

_SHOWN_TASKS = 50
_REASON = "marked at the command line"


async def mark_run(
    to: Literal["success", "failed"],
    run: str | None = None,
    /,
    *,
    reason: str | None = None,
    emit: bool = False,
    choice: RunChoice = EVERY_RUN,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Set a run, or many by filters, to success or failed; what of it runs is stopped.

    Args:
        to: The state: success or failed.
        run: Id of the run; filters in place of it take many.
        reason: Reason, stored as the error of tasks that are marked as failed.
        emit: Emit an event for each outlet of tasks that are marked as successful.
        choice: Which runs.
        limit: How many runs at most by filters; 1000 if left out.
        dry_run: Only list the tasks of the run, or the runs of the filters.
        yes: Do not prompt for confirmation; needed for many runs where stdin is not a terminal.
        plan: File with what --dry-run --json printed: mark exactly these runs.
        target: The daemon, and the format of the output.
    """
    text = reason or _REASON
    if run is None:
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        options: dict[str, Any] = {"emit": True} if emit else {}
        return await act_on_runs("mark", choice, bulk, target, state=to, reason=text, **options)
    check_single(choice, plan)
    async with target.client() as client:
        _show(await client.mark(run, to, emit=emit, reason=text, dry_run=dry_run), json=target.json)
    return 0


async def mark_tasks(
    to: Literal["success", "failed", "skipped"],
    run: str | None = None,
    /,
    *tasks: str,
    map_index: tuple[int, ...] = (),
    downstream: bool = False,
    upstream: bool = False,
    result: str | None = None,
    emit: bool = False,
    reason: str | None = None,
    choice: TaskChoice = EVERY_TASK,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Set the state of tasks of a run, or of many by filters; what follows is decided anew.

    Those that run are stopped.

    Args:
        to: The state: success, failed or skipped.
        run: Id of the run; filters in place of it take tasks of many.
        tasks: Ids of tasks of the run, with .0 for one instance of a mapped task.
        map_index: Only the instances of these mapped tasks with this index, from 0; may be
            repeated.
        downstream: Also mark all tasks downstream of these.
        upstream: Also mark all tasks upstream of these.
        result: What they return, for tasks that take it; JSON, or else text.
        emit: Emit an event for each outlet of tasks that are marked as successful.
        reason: Reason, stored as the error of tasks that are marked as failed.
        choice: Which tasks.
        limit: How many tasks at most by filters; 1000 if left out.
        dry_run: Only list the tasks that would be marked, or those of the filters.
        yes: Do not prompt for confirmation; needed for many runs where stdin is not a terminal.
        plan: File with what --dry-run --json printed: mark exactly these tasks.
        target: The daemon, and the format of the output.
    """
    if run is None:
        if result is not None or map_index:
            raise ConfigError("--result and --map-index are for tasks of one run")
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        options: dict[str, Any] = {"downstream": downstream, "upstream": upstream, "emit": emit}
        text = reason or _REASON
        return await act_on_tasks("mark", choice, bulk, target, state=to, reason=text, **options)
    check_named(tasks, choice, plan)
    async with target.client() as client:
        marked = await client.mark(
            run,
            to,
            tasks=instances(tasks, map_index),
            downstream=downstream,
            upstream=upstream,
            emit=emit,
            result=None if result is None else json_or_text(result),
            reason=reason or _REASON,
            dry_run=dry_run,
        )
    _show(marked, json=target.json)
    return 0


def _show(marked: MarkedRun, *, json: bool) -> None:
    if json:
        output.show_json(marked)
        return
    verb = "would be marked" if marked.dry_run else "marked"
    listing = output.Listing("task", "was", "")
    lines = [*((each, verb) for each in marked.tasks), *((each, "anew") for each in marked.anew)]
    for task, what in lines[:_SHOWN_TASKS]:
        index = "" if task.map_index is None else f".{task.map_index}"
        listing.row(task.task_id + index, output.state(task.state), what)
    listing.show(none="no tasks")
    if len(lines) > _SHOWN_TASKS:
        output.show(f"… and {len(lines) - _SHOWN_TASKS} more; --json lists all")
    anew = f", {len(marked.anew)} decided anew" if marked.anew else ""
    output.show(f"{len(marked.tasks)} {verb}{anew}; the run is {marked.state}")

"""Retries and clearing: commands that run tasks of a run again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pubsubflow.cli import output
from pubsubflow.cli.commands.changes.bulk import Bulk, act_on_runs, check_single
from pubsubflow.cli.commands.changes.task_bulk import act_on_tasks, check_named
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.run_choice import EVERY_RUN, RunChoice
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.task_choice import EVERY_TASK, TaskChoice
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import ClearedRun

_SHOWN_TASKS = 50


async def retry_run(
    run: str | None = None,
    /,
    *,
    newest: bool = False,
    choice: RunChoice = EVERY_RUN,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Run the failed and upstream-failed tasks of an ended run, or of many, again; keep the others.

    Args:
        run: Id of the run; filters in place of it take many, by default those that failed.
        newest: Use the DAG's newest version in place of the one that the run had.
        choice: Which runs.
        limit: How many runs at most by filters; 1000 if left out.
        dry_run: Only list the tasks that would run again, or the runs of the filters.
        yes: Do not prompt for confirmation; needed for many runs where stdin is not a terminal.
        plan: File with what --dry-run --json printed: retry exactly these runs.
        target: The daemon, and the format of the output.
    """
    if run is None:
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        return await act_on_runs("retry", choice, bulk, target, newest=newest)
    check_single(choice, plan)
    async with target.client() as client:
        _show(await client.retry(run, newest=newest, dry_run=dry_run), json=target.json)
    return 0


async def clear_run(
    run: str | None = None,
    /,
    *,
    task: tuple[str, ...] = (),
    downstream: bool = False,
    upstream: bool = False,
    only_failed: bool = False,
    newest: bool = False,
    choice: RunChoice = EVERY_RUN,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Clear tasks of a run, or of many, or all of them, and run them again.

    Args:
        run: Id of the run; filters in place of it take many, by default those that have ended.
        task: Id of a task, with .0 for one instance of a mapped task; may be repeated. All tasks
            if left out.
        downstream: Also clear all tasks downstream of these.
        upstream: Also clear all tasks upstream of these.
        only_failed: Of all these, clear only tasks that failed, were cancelled or could not start.
        newest: Use the DAG's newest version in place of the one that the run had.
        choice: Which runs.
        limit: How many runs at most by filters; 1000 if left out.
        dry_run: Only list the tasks that would run again, or the runs of the filters.
        yes: Do not prompt for confirmation.
        plan: File with what --dry-run --json printed: clear exactly these runs.
        target: The daemon, and the format of the output.
    """
    chosen = {
        "downstream": downstream,
        "upstream": upstream,
        "only_failed": only_failed,
        "newest": newest,
    }
    if run is None:
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        return await act_on_runs("clear", choice, bulk, target, tasks=task, **chosen)
    check_single(choice, plan)
    async with target.client() as client:
        if not dry_run and not yes:
            await _confirm(client, run, task, chosen)
        cleared = await client.clear(run, tasks=task, dry_run=dry_run, **chosen)
    _show(cleared, json=target.json)
    return 0


async def clear_tasks(
    run: str | None = None,
    /,
    *tasks: str,
    map_index: tuple[int, ...] = (),
    downstream: bool = False,
    upstream: bool = False,
    only_failed: bool = False,
    newest: bool = False,
    choice: TaskChoice = EVERY_TASK,
    limit: Limit = 1000,
    dry_run: bool = False,
    yes: bool = False,
    plan: Path | None = None,
    target: Target = DEFAULT,
) -> int:
    """Clear tasks of a run, or of many by filters, and run them again.

    Args:
        run: Id of the run; filters in place of it take tasks of many, by default those that have
            ended.
        tasks: Ids of tasks of the run, with .0 for one instance of a mapped task.
        map_index: Only the instances of these mapped tasks with this index, from 0; may be
            repeated.
        downstream: Also clear all tasks downstream of these.
        upstream: Also clear all tasks upstream of these.
        only_failed: Of all these, clear only tasks that failed, were cancelled or could not start.
        newest: Use the DAG's newest version in place of the one that the run had.
        choice: Which tasks.
        limit: How many tasks at most by filters; 1000 if left out.
        dry_run: Only list the tasks that would run again, or those of the filters.
        yes: Do not prompt for confirmation.
        plan: File with what --dry-run --json printed: clear exactly these tasks.
        target: The daemon, and the format of the output.
    """
    if run is None:
        if only_failed or map_index:
            raise ConfigError("--only-failed and --map-index are for one run")
        bulk = Bulk(limit=limit, dry_run=dry_run, yes=yes, plan=plan)
        options = {"downstream": downstream, "upstream": upstream, "newest": newest}
        return await act_on_tasks("clear", choice, bulk, target, **options)
    check_named(tasks, choice, plan)
    return await clear_run(
        run,
        task=instances(tasks, map_index),
        newest=newest,
        downstream=downstream,
        upstream=upstream,
        only_failed=only_failed,
        dry_run=dry_run,
        yes=yes,
        target=target,
    )


def instances(tasks: Sequence[str], indexes: Sequence[int]) -> tuple[str, ...]:
    """Return the names of instances of mapped tasks; without indexes the tasks."""
    names = tuple(f"{task}.{index}" for task in tasks for index in indexes)
    return names if indexes else tuple(tasks)


async def _confirm(client: Client, run: str, tasks: Sequence[str], chosen: dict[str, bool]) -> None:
    """List the tasks that would be cleared and prompt for confirmation.

    Raises:
        ConfigError: Stdin is not a terminal, or the user does not confirm.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "stdin is not a terminal, which confirmation needs: add --yes to clear the tasks, or "
            "--dry-run to list them"
        )
    _show(await client.clear(run, tasks=tasks, dry_run=True, **chosen), json=False)
    if not output.confirm("clear them and run them again?"):
        raise ConfigError("nothing was cleared")


def _show(cleared: ClearedRun, *, json: bool) -> None:
    if json:
        output.show_json(cleared)
        return
    verb = "would be cleared" if cleared.dry_run else "cleared"
    listing = output.Listing("task", "was")
    for task in cleared.tasks[:_SHOWN_TASKS]:
        index = "" if task.map_index is None else f".{task.map_index}"
        listing.row(task.task_id + index, output.state(task.state))
    listing.show(none="no tasks")
    if len(cleared.tasks) > _SHOWN_TASKS:
        output.show(f"… and {len(cleared.tasks) - _SHOWN_TASKS} more; --json lists all")
    output.show(f"{len(cleared.tasks)} {verb}; the run is {cleared.state}")

"""Actions on tasks of many runs: listed first, confirmed, then carried out part by part."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.commands.changes.bulk import Bulk, confirm, read_plan
from pubsubflow.cli.target import Target
from pubsubflow.cli.task_choice import TaskChoice
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.bulk import BulkOutcome, BulkTasks, BulkTasksView

_PART = 200
_SHOWN_RUNS = 50
_PAST = {"clear": "cleared", "mark": "marked"}


async def act_on_tasks(
    action: str, choice: TaskChoice, bulk: Bulk, target: Target, **options: Any
) -> int:
    """Carry out an action on the tasks of a choice; return the exit code.

    Args:
        action: `clear` or `mark`.
        choice: Which tasks.
        bulk: How.
        target: The daemon, and the format of the output.
        options: Of the action.

    Raises:
        ConfigError: Neither a run nor a filter is given, or nothing confirms the action.
    """
    if choice.empty == (bulk.plan is None):
        raise ConfigError(
            f"name a run and tasks, or the tasks to {action} by filters such as --dag and --state, "
            "or by --plan FILE with what --dry-run --json printed"
        )
    async with target.client() as client:
        if bulk.plan is not None:
            planned = read_plan(bulk.plan, action, BulkTasks, "tasks")
        else:
            planned = await _plan(client, action, choice, bulk.limit, options)
        if bulk.dry_run:
            return _show(planned, json=target.json)
        if not bulk.yes:
            confirm(planned, partial(_show, json=False), "tasks")
        runs = [run for run in planned.runs if run.outcome == BulkOutcome.PLANNED]
        return _show(await _carry_out(client, action, runs, options), json=target.json)


def check_named(tasks: Sequence[str], choice: TaskChoice, plan: Path | None) -> None:
    """Check that tasks of one run are named, and that nothing else chooses tasks.

    Raises:
        ConfigError: They are not, or something does.
    """
    if not tasks:
        raise ConfigError("name tasks of the run, or choose tasks by filters without a run")
    if not choice.empty or plan is not None:
        raise ConfigError("name tasks of one run, or choose tasks of many by filters; not both")


async def _plan(
    client: Client, action: str, choice: TaskChoice, limit: int, options: dict[str, Any]
) -> BulkTasks:
    """Return what an action would do, page by page."""
    chosen = choice.body()
    found: list[BulkTasksView] = []
    after: str | None = None
    left = limit
    while left > 0:
        page = await client.bulk_tasks(
            action, chosen=chosen, dry_run=True, limit=min(_PART, left), after=after, **options
        )
        found += page.runs
        left -= sum(len(each.chosen) for each in page.runs)
        after = page.next
        if after is None:
            break
    return _view(action, _merged(found), dry_run=True)


def _merged(found: Sequence[BulkTasksView]) -> list[BulkTasksView]:
    """Return each run once: the tasks of one may stand on several pages."""
    runs: dict[tuple[str, str, int], BulkTasksView] = {}
    for each in found:
        key = (each.run_id, each.outcome, each.cleared)
        if key in runs:
            chosen = (*runs[key].chosen, *each.chosen)
            # What follows from both may be the same tasks, so the sum would be too much.
            runs[key] = msgspec.structs.replace(runs[key], chosen=chosen, tasks=None)
        else:
            runs[key] = each
    return list(runs.values())


async def _carry_out(
    client: Client, action: str, runs: Sequence[BulkTasksView], options: dict[str, Any]
) -> BulkTasks:
    done: list[BulkTasksView] = []
    for start in range(0, len(runs), _PART):
        part = [
            {"run_id": run.run_id, "cleared": run.cleared, "chosen": run.chosen}
            for run in runs[start : start + _PART]
        ]
        done += (await client.bulk_tasks(action, runs=part, **options)).runs
        if len(runs) > _PART and sys.stderr.isatty():
            output.warn(f"{len(done)} of {len(runs)} runs")
    return _view(action, done, dry_run=False)


def _view(action: str, runs: list[BulkTasksView], *, dry_run: bool) -> BulkTasks:
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.outcome] = counts.get(run.outcome, 0) + len(run.chosen)
    return BulkTasks(action=action, dry_run=dry_run, counts=counts, runs=runs)


def _show(view: BulkTasks, *, json: bool) -> int:
    """Print the tasks of an action by run; return 1 if it has left some of them."""
    left = view.counts.get(BulkOutcome.LEFT, 0)
    code = 1 if left and not view.dry_run else 0
    if json:
        output.show_json(view)
        return code
    listing = output.Listing(
        *("run", "dag", "run was", "tasks", "with", "left because"),
        right=["with"],
        elastic=["tasks", "left because"],
    )
    for run in view.runs[:_SHOWN_RUNS]:
        total = "" if run.tasks is None else str(run.tasks)
        chosen = ", ".join(run.chosen)
        listing.row(run.run_id, run.dag_id, output.state(run.state), chosen, total, run.detail)
    listing.show(none="no tasks")
    if len(view.runs) > _SHOWN_RUNS:
        output.show(f"… and {len(view.runs) - _SHOWN_RUNS} more runs; --json lists all")
    number = sum(view.counts.values()) - left
    verb = f"would be {_PAST[view.action]}" if view.dry_run else _PAST[view.action]
    output.show(f"{number} task{'s' * (number != 1)} {verb}" + (f", {left} left" if left else ""))
    return code

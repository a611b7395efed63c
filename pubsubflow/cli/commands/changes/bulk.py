"""Actions on many runs: listed first, confirmed, then carried out part by part."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.run_choice import RunChoice
from pubsubflow.cli.target import Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.bulk import BulkOutcome, BulkRunView, BulkTasks, BulkView

P = TypeVar("P", BulkView, BulkTasks)

_PART = 200
_SHOWN_RUNS = 50
_PAST = {"cancel": "cancelled", "retry": "retried", "clear": "cleared", "mark": "marked"}


class Bulk(Struct, frozen=True, kw_only=True):
    """How an action on many runs is carried out.

    Attributes:
        limit: How many runs at most.
        dry_run: Whether it ends with the list of runs.
        yes: Whether to go on without a prompt.
        plan: A file with what a dry run printed in JSON: exactly its runs are taken.
    """

    limit: int = 1000
    dry_run: bool = False
    yes: bool = False
    plan: Path | None = None


async def act_on_runs(
    action: str, choice: RunChoice, bulk: Bulk, target: Target, **options: Any
) -> int:
    """Carry out an action on the runs of a choice; return the exit code.

    Args:
        action: `cancel`, `retry`, `clear` or `mark`.
        choice: Which runs.
        bulk: How.
        target: The daemon, and the format of the output.
        options: Of the action.

    Raises:
        ConfigError: Neither a run nor a filter is given, or nothing confirms the action.
    """
    if choice.empty == (bulk.plan is None):
        raise ConfigError(
            f"name a run, or the runs to {action} by filters such as --dag and --since, or by "
            "--plan FILE with what --dry-run --json printed"
        )
    async with target.client() as client:
        if bulk.plan is not None:
            planned = read_plan(bulk.plan, action, BulkView, "runs")
        else:
            planned = await _plan(client, action, choice, bulk.limit, options)
        if bulk.dry_run:
            return _show(planned, json=target.json)
        if not bulk.yes:
            confirm(planned, partial(_show, json=False), "runs")
        runs = [run for run in planned.runs if run.outcome == BulkOutcome.PLANNED]
        return _show(await _carry_out(client, action, runs, options), json=target.json)


def check_single(choice: RunChoice, plan: Path | None, *, dry_run: bool = False) -> None:
    """Check that nothing beside the id of one run chooses runs.

    Raises:
        ConfigError: Something does.
    """
    if not choice.empty or plan is not None or dry_run:
        raise ConfigError("name one run, or choose many by filters; not both")


async def _plan(
    client: Client, action: str, choice: RunChoice, limit: int, options: dict[str, Any]
) -> BulkView:
    """Return what an action would do, page by page."""
    chosen = choice.body()
    found: list[BulkRunView] = []
    after: str | None = None
    while len(found) < limit:
        page = await client.bulk(
            action,
            chosen=chosen,
            dry_run=True,
            limit=min(_PART, limit - len(found)),
            after=after,
            **options,
        )
        found += page.runs
        after = page.next
        if after is None:
            break
    return _view(action, found, dry_run=True)


async def _carry_out(
    client: Client, action: str, runs: Sequence[BulkRunView], options: dict[str, Any]
) -> BulkView:
    done: list[BulkRunView] = []
    for start in range(0, len(runs), _PART):
        part = [
            {"run_id": run.run_id, "cleared": run.cleared} for run in runs[start : start + _PART]
        ]
        done += (await client.bulk(action, runs=part, **options)).runs
        if len(runs) > _PART and sys.stderr.isatty():
            output.warn(f"{len(done)} of {len(runs)} runs")
    return _view(action, done, dry_run=False)


def _view(action: str, runs: list[BulkRunView], *, dry_run: bool) -> BulkView:
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.outcome] = counts.get(run.outcome, 0) + 1
    return BulkView(action=action, dry_run=dry_run, counts=counts, runs=runs)


def read_plan(file: Path, action: str, kind: type[P], what: str) -> P:
    """Return what a dry run printed.

    Args:
        file: The file.
        action: The action that it is to be a plan of.
        kind: The type of the plan.
        what: What the action is carried out on, in the plural.

    Raises:
        ConfigError: The file cannot be read, or is of another action.
    """
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file} is not what --dry-run --json prints: {error}") from error
    if plan.action != action:
        raise ConfigError(f"{file} is a plan to {plan.action} {what}, not to {action} them")
    return plan


def confirm(planned: P, show: Callable[[P], object], what: str) -> None:
    """List what an action is carried out on, and prompt for confirmation.

    Raises:
        ConfigError: Stdin is not a terminal, or the user does not confirm.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "stdin is not a terminal, which confirmation needs: add --yes to go on, or --dry-run "
            f"to list the {what}"
        )
    show(planned)
    if not output.confirm(f"{planned.action} them?"):
        raise ConfigError("nothing was changed")


def _show(view: BulkView, *, json: bool) -> int:
    """Print the runs of an action; return 1 if it has left some of them."""
    left = view.counts.get(BulkOutcome.LEFT, 0)
    code = 1 if left and not view.dry_run else 0
    if json:
        output.show_json(view)
        return code
    listing = output.Listing(
        *("run", "dag", "was", "tasks", "left because"), right=["tasks"], elastic=["left because"]
    )
    for run in view.runs[:_SHOWN_RUNS]:
        tasks = "" if run.tasks is None else str(run.tasks)
        listing.row(run.run_id, run.dag_id, output.state(run.state), tasks, run.detail)
    listing.show(none="no runs")
    if len(view.runs) > _SHOWN_RUNS:
        output.show(f"… and {len(view.runs) - _SHOWN_RUNS} more; --json lists all")
    number = len(view.runs) - left
    verb = f"would be {_PAST[view.action]}" if view.dry_run else _PAST[view.action]
    output.show(f"{number} run{'s' * (number != 1)} {verb}" + (f", {left} left" if left else ""))
    return code

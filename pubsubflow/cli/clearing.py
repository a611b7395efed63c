"""Commands that let runs go on: failed tasks again, or those that somebody chooses."""

import asyncio
import sys
from collections.abc import Sequence

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import ClearedRun

_DEFAULT = Asking()
_SHOWN_TASKS = 50


async def retry_run(
    run: str,
    /,
    *,
    newest: bool = False,
    dry_run: bool = False,
    asking: Asking = _DEFAULT,
) -> None:
    """Run the tasks of an ended run again that failed or could not start; keep the others.

    Args:
        run: Id of the run.
        newest: With the DAG's newest version in place of the one that it ran with.
        dry_run: Only tell which tasks would run again.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        _tell(await client.retry(run, newest=newest, dry_run=dry_run), asking)


async def clear_run(
    run: str,
    /,
    *,
    task: tuple[str, ...] = (),
    downstream: bool = False,
    upstream: bool = False,
    only_failed: bool = False,
    newest: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    asking: Asking = _DEFAULT,
) -> None:
    """Clear tasks of a run, all if none is named, and run them again.

    Args:
        run: Id of the run.
        task: Id of a task, with .0 for one instance of a mapped one; may be repeated.
        downstream: Also all that follows them.
        upstream: Also all that they follow from.
        only_failed: Of all these only what failed, was cancelled or could not start.
        newest: With the DAG's newest version in place of the one that the run had.
        dry_run: Only tell which tasks would run again.
        yes: Do not ask whether that is meant.
        asking: Which daemon to ask, and the form of the answer.
    """
    chosen = {
        "downstream": downstream,
        "upstream": upstream,
        "only_failed": only_failed,
        "newest": newest,
    }
    async with asking.client() as client:
        if not dry_run and not yes:
            await _confirm(client, run, task, chosen)
        _tell(await client.clear(run, tasks=task, dry_run=dry_run, **chosen), asking)


async def clear_tasks(
    run: str,
    task: str,
    /,
    *tasks: str,
    downstream: bool = False,
    upstream: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    asking: Asking = _DEFAULT,
) -> None:
    """Clear tasks of a run and run them again.

    Args:
        run: Id of the run.
        task: Id of a task, with .0 for one instance of a mapped one.
        tasks: Further ones.
        downstream: Also all that follows them.
        upstream: Also all that they follow from.
        only_failed: Of all these only what failed, was cancelled or could not start.
        dry_run: Only tell which tasks would run again.
        yes: Do not ask whether that is meant.
        asking: Which daemon to ask, and the form of the answer.
    """
    await clear_run(
        run,
        task=(task, *tasks),
        downstream=downstream,
        upstream=upstream,
        only_failed=only_failed,
        dry_run=dry_run,
        yes=yes,
        asking=asking,
    )


async def _confirm(client: Client, run: str, tasks: Sequence[str], chosen: dict[str, bool]) -> None:
    """Show what would be cleared and ask; go on only if that is meant.

    Raises:
        ConfigError: Nobody is there to ask, or it is not meant.
    """
    if not sys.stdin.isatty():
        raise ConfigError("say --yes to clear tasks, or --dry-run to see which")
    _show(await client.clear(run, tasks=tasks, dry_run=True, **chosen))
    said = await asyncio.to_thread(input, "clear them and run them again? [y/N] ")
    if said.strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was cleared")


def _tell(cleared: ClearedRun, asking: Asking) -> None:
    if asking.json:
        output.show_json(cleared)
    else:
        _show(cleared)


def _show(cleared: ClearedRun) -> None:
    verb = "would be cleared" if cleared.dry_run else "cleared"
    listing = output.Listing("task", "was")
    for task in cleared.tasks[:_SHOWN_TASKS]:
        index = "" if task.map_index is None else f".{task.map_index}"
        listing.row(task.task_id + index, output.state(task.state))
    listing.show(none="no tasks")
    if len(cleared.tasks) > _SHOWN_TASKS:
        output.show(f"… and {len(cleared.tasks) - _SHOWN_TASKS} more (--json tells them)")
    output.show(f"{len(cleared.tasks)} {verb}; the run is {cleared.state}")

"""Deletion of DAGs that no file defines any more."""

from collections.abc import Iterator

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.versions import DagDeletion


async def delete_dag(
    dag: str,
    /,
    *,
    keep_history: bool = False,
    cancel: bool = False,
    dry_run: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Delete a DAG that no file defines any more, with its history.

    Args:
        dag: Id of the DAG.
        keep_history: Keep its runs and versions.
        cancel: Cancel its runs under way; else they are a reason not to delete it.
        dry_run: Print what would be removed, and remove nothing.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.delete_dag(
            dag, keep_history=keep_history, cancel=cancel, dry_run=dry_run
        )
    begun = f"deleting {dag} would remove" if dry_run else f"{dag} is deleted:"
    output.show_result(found, f"{begun} {', '.join(_counts(found))}", json=target.json)


def _counts(found: DagDeletion) -> Iterator[str]:
    if found.active_runs:
        yield f"{found.active_runs} runs under way"
    if found.keeps_history:
        yield "not its history"
    else:
        yield f"{found.runs} runs"
        yield f"{found.versions} versions"
        yield f"{found.dead_letters} dead letters"
    yield f"{found.pending_events} pending events"
    yield f"{found.state_values} values of its state"
    yield f"{found.timers} timers"
    yield f"{found.subscriptions} subscriptions"

"""Triggers, timers and event waits of tasks, and watches of datasets."""

from typing import Literal

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.triggers import TriggerView


async def list_triggers(
    *,
    kind: Literal["time", "trigger", "event", "watch"] | None = None,
    limit: int = 20,
    target: Target = DEFAULT,
) -> None:
    """List triggers, timers and event waits of tasks, and watches of datasets, the newest first.

    Args:
        kind: Only those of this kind.
        limit: How many at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.triggers(kind=kind, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("trigger", "kind", "name", "state", "for", "since", "due", "run", "owner", "error"),
            narrow=6,
            right=["trigger"],
            elastic=["name", "for", "owner", "error"],
        )
        async for trigger in found:
            listing.row(
                str(trigger.number),
                trigger.kind,
                trigger.name,
                output.state(trigger.state),
                _waiter(trigger),
                output.brief(trigger.since),
                output.brief(trigger.due_at),
                trigger.run_id,
                trigger.owner,
                trigger.error,
            )
    listing.show(none="no triggers")


def _waiter(trigger: TriggerView) -> str | None:
    """Return the task that waits, or the watched dataset."""
    if trigger.task_id is None:
        return trigger.dataset
    index = "" if trigger.map_index is None else f".{trigger.map_index}"
    return f"{trigger.dag_id} {trigger.task_id}{index}"

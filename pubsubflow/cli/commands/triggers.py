"""Triggers, timers and event waits of tasks, and watches of datasets."""

from typing import Literal

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.triggers import TriggerView


async def list_triggers(
    *,
    kind: Literal["time", "trigger", "event", "watch"] | None = None,
    limit: Limit = 20,
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
            *("trigger", "kind", "name", "state", "for", "since", "error", "away since", "due"),
            *("looks at", "file", "run", "owner"),
            narrow=7,
            right=["trigger"],
            elastic=["name", "for", "looks at", "file", "owner", "error"],
            times=["since"],
        )
        async for trigger in found:
            listing.row(
                str(trigger.number),
                trigger.kind,
                trigger.name,
                output.state(trigger.state),
                _waiter(trigger),
                output.brief(trigger.since),
                trigger.error,
                output.brief(trigger.error_since),
                output.brief(trigger.due_at),
                output.compact(trigger.fields),
                ", ".join(trigger.files),
                trigger.run_id,
                trigger.owner,
            )
    listing.show(none="no triggers")


def _waiter(trigger: TriggerView) -> str | None:
    """Return the task that waits, or the watched dataset."""
    if trigger.task_id is None:
        return trigger.dataset
    index = "" if trigger.map_index is None else f".{trigger.map_index}"
    return f"{trigger.dag_id} {trigger.task_id}{index}"

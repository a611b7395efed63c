"""JSON types of triggers, and of everything else that tasks wait for."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class TriggerView(Struct, frozen=True, kw_only=True):
    """A wait of a task, or a watch of a dataset.

    Attributes:
        number: Its number, which grows with time.
        kind: `time`, `trigger`, `event`, `watch`.
        name: Of a trigger, the name of its entry point; of an event, the dataset or pattern.
        state: `waiting`, `cancelled` while it cleans up, `unclaimed` while no triggerer has leased
            it, `over capacity` while none has room for it.
        since: When the wait began.
        due_at: When a wait for a time ends.
        owner: The triggerer that runs it.
        run_id, dag_id, task_id, map_index: The task that waits.
        dataset: The dataset that is watched.
        files: The DAG files that declare the watch.
        fields: What the trigger looks at: its own fields, such as a URL, a path or a moment, with
            secrets masked.
        error: Why it cannot see its source, or why a watch was last restarted; None if it has been
            healthy since.
        error_since: Since when.
    """

    number: int
    kind: str
    name: str
    state: str
    since: datetime
    due_at: datetime | None = None
    owner: str | None = None
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    dataset: str | None = None
    files: list[str] = []
    fields: dict[str, Any] = {}
    error: str | None = None
    error_since: datetime | None = None

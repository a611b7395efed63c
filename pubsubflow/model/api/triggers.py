"""What people see of the things that are waited for."""

from datetime import datetime

from msgspec import Struct


class TriggerView(Struct, frozen=True, kw_only=True):
    """Something that a task waits for, or that watches a dataset.

    Attributes:
        number: Its number; grows with time.
        kind: `time`, `trigger`, `event`, `watch`.
        name: Of a trigger the name of its entry point; of an event the dataset or pattern.
        state: `waiting`, `cancelled` while it cleans up, `unclaimed` while no triggerer has taken
            it, `over capacity` while none has room for it.
        since: When the wait began.
        due_at: Of a time.
        owner: The triggerer that runs it.
        run_id, dag_id, task_id, map_index: The task that waits.
        dataset: What is watched.
        error: Of a watch, why it had to be started again last; it was well since if there is none.
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
    error: str | None = None

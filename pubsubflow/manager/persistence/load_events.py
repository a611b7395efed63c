"""Turns rows of the log into events as they are decided about."""

from collections.abc import Awaitable, Callable, Sequence

from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import LoggedEvent
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.store.manager_transaction import FoldTransaction, Row

ReadEvents = Callable[[Sequence[Row]], Awaitable[list[LoggedEvent]]]


async def read_infos(
    rows: Sequence[Row], versions: Versions, transaction: FoldTransaction
) -> list[LoggedEvent]:
    """Return the events of rows, in their order."""
    await versions.load(transaction, {row["version"] for row in rows if row["version"] is not None})
    return [_event(row, versions) for row in rows]


def _event(row: Row, versions: Versions) -> LoggedEvent:
    task_id = None
    if row["node"] is not None and row["version"] is not None:
        task_id = versions.get(row["version"]).spec.tasks[row["node"]].task_id
    info = EventInfo(
        str(row["event_id"]),
        row["uri"],
        row["extra"],
        row["partition"],
        row["time"],
        row["source"],
        None if row["run_id"] is None else str(row["run_id"]),
        row["dag_id"],
        task_id,
        row["trace"],
    )
    return LoggedEvent(
        row["event_id"],
        info,
        number=row["id"],
        recorded_at=row["recorded_at"],
        trail=tuple(row["trail"]),
    )

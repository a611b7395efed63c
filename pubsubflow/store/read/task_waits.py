"""Reasons why tasks wait: a limit without a free slot, a queue without a worker, or a busy one."""

from collections import Counter
from collections.abc import Sequence

import asyncpg
from msgspec import Struct

from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.pools import unavailable_limits
from pubsubflow.store.specs import SpecReader

SHOWN_WAITS = 20
_NEWEST_RUNS = 1000
NO_WORKER = (
    "no worker runs: start `pubsubflow up`, or `pubsubflow daemon` with the role worker; its log "
    "says why if it does"
)


class QueueWorkers(Struct, frozen=True):
    """The workers of a queue, by their last heartbeats.

    Attributes:
        workers: How many serve it.
        free: Kind of task → slots that were free.
    """

    workers: int
    free: dict[str, int]


class ServedQueues:
    """The queues that workers serve.

    Args:
        queues: Queue → its workers.
    """

    def __init__(self, queues: dict[str, QueueWorkers]) -> None:
        self._queues = queues

    @classmethod
    async def read(cls, connection: Connection) -> "ServedQueues":
        """Return the queues of all workers that have not signed off."""
        rows = await connection.fetch(SQL["read_served_queues"])
        return cls(
            {
                row["queue"]: QueueWorkers(
                    row["workers"], {"sync": row["free_sync"], "async": row["free_async"]}
                )
                for row in rows
            }
        )

    def unserved(self, queue: str) -> str | None:
        """Return why no worker will take the tasks of a queue; None if one will."""
        if not self._queues:
            return NO_WORKER
        if queue in self._queues:
            return None
        served = ", ".join(sorted(self._queues))
        return (
            f"no worker serves queue {queue}, only {served}: start one with "
            f"PUBSUBFLOW__WORKER__QUEUES={queue}"
        )

    def reason(self, queue: str, kind: str) -> str | None:
        """Return what a task of a queue waits for; None if it is about to start."""
        workers = self._queues.get(queue)
        if workers is None:
            return self.unserved(queue)
        if workers.free[kind] > 0:
            return None
        plural = "s are" if workers.workers != 1 else " is"
        return (
            f"a free slot for {kind} tasks: {workers.workers} worker{plural} busy on queue {queue}"
        )


async def read_wait_reasons(
    connection: Connection, run: int, spec: DagSpec, rows: Sequence[asyncpg.Record]
) -> dict[tuple[int, int], str]:
    """Return what the tasks among rows of a run wait for, by node and map index.

    Args:
        connection: To Postgres.
        run: Id of the run.
        spec: Its DAG.
        rows: With node, map index and state, in order.
    """
    reasons = await unavailable_limits(connection, run, rows)
    queued = [row for row in rows if row["state"] == TaskState.QUEUED]
    if queued:
        served = await ServedQueues.read(connection)
        for row in queued:
            task = spec.tasks[row["node"]]
            reason = served.reason(task.queue, task.kind)
            if reason is not None:
                reasons[row["node"], row["map_index"]] = reason
    return reasons


async def describe_waits(connection: Connection, run: int, spec: DagSpec) -> list[str]:
    """Return what the tasks of a run wait for, a line each; the first ones."""
    rows = await connection.fetch(SQL["read_waiting_tasks"], run, SHOWN_WAITS)
    reasons = await read_wait_reasons(connection, run, spec, rows)
    lines = []
    for (node, map_index), reason in sorted(reasons.items()):
        index = f".{map_index}" if map_index != NOT_MAPPED else ""
        lines.append(f"task {spec.tasks[node].task_id}{index} waits for {reason}")
    return lines


async def describe_unserved(connection: Connection, specs: SpecReader, dag: int) -> list[str]:
    """Return which queues hold back tasks of a DAG's runs, a line each.

    Args:
        connection: To Postgres.
        specs: Reads the versions of these runs.
        dag: Id of the DAG.
    """
    rows = await connection.fetch(SQL["count_queued_tasks"], dag, _NEWEST_RUNS)
    if not rows:
        return []
    versions = await specs.load(connection, {row["version"] for row in rows})
    tasks: Counter[str] = Counter()
    for row in rows:
        tasks[versions[row["version"]].tasks[row["node"]].queue] += row["tasks"]
    served = await ServedQueues.read(connection)
    lines = []
    for queue, count in sorted(tasks.items()):
        reason = served.unserved(queue)
        if reason is not None:
            plural = "s of its runs wait" if count != 1 else " of its runs waits"
            lines.append(f"{count} task{plural}: {reason}")
    return lines

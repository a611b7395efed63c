"""Reasons why tasks wait: a limit without a free slot, a queue without a worker, or a busy one."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

import asyncpg
import msgspec
from msgspec import Struct

from pubsubflow.model.runs.mapped.waits import describe_groups
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.runs.stored.split_progress import decode_stored
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.approvals import decode_approval
from pubsubflow.model.wire.executor_spec import BUNDLE, LOCAL, has_own_slots, split_queue
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.model.wire.task_resources import WorkerResources, lacking_room
from pubsubflow.model.wire.waits import POLL, decode_wait_set
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.pools import unavailable_limits
from pubsubflow.store.specs import SpecReader

SHOWN_WAITS = 20
_NEWEST_RUNS = 1000
NO_WORKER = (
    "a worker, and none runs: start `pubsubflow up`, or `pubsubflow daemon` with the role worker; "
    "its log says why if it does"
)


class _Line(Struct):
    m: str


_decode_line = msgspec.json.Decoder(_Line).decode


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
        """Return what tasks of a queue that no worker serves wait for; None if one serves it."""
        if not self._queues:
            return NO_WORKER
        if queue in self._queues:
            return None
        served = ", ".join(sorted(self._queues))
        name, executor = split_queue(queue)
        if executor.startswith(BUNDLE):
            bundle = executor.removeprefix(BUNDLE)
            return (
                f"a worker of queue {name} that knows the bundle {bundle} of Airflow's files, and "
                f"only {served} are served: give one a section [bundles.{bundle}] in its "
                "configuration"
            )
        if executor != LOCAL:
            return (
                f"a worker of queue {name} that offers the executor {executor}, and only {served} "
                f"are served: give one a section [executors.{executor}] in its configuration"
            )
        return (
            f"a worker of queue {queue}, and only {served} are served: start one with "
            f"PUBSUBFLOW__WORKER__QUEUES={queue}"
        )

    def reason(self, queue: str, kind: str) -> str | None:
        """Return what a task of a queue waits for; None if it is about to start."""
        workers = self._queues.get(queue)
        if workers is None:
            return self.unserved(queue)
        # Free slots are those of the workers' own processes; what an executor waits for, it says.
        if workers.free[kind] > 0 or has_own_slots(split_queue(queue)[1]):
            return None
        plural = "s are" if workers.workers != 1 else " is"
        return (
            f"a free slot for {kind} tasks: {workers.workers} worker{plural} busy on queue {queue}"
        )


async def read_wait_reasons(
    connection: Connection, run: int, spec: DagSpec, rows: Sequence[asyncpg.Record]
) -> dict[tuple[int, int], str]:
    """Return what the tasks among rows of a run wait for, by node and map index.

    Tasks that wait for the previous run, and so have no rows yet, are among them.

    Args:
        connection: To Postgres.
        run: Id of the run.
        spec: Its DAG.
        rows: With node, map index and state, in order.
    """
    reasons = await unavailable_limits(connection, run, rows)
    if any(
        row["state"] == TaskState.DEFERRED and spec.tasks[row["node"]].poll is not None
        for row in rows
    ):
        reasons |= await _read_looks(connection, run, spec, len(rows))
    queued = [row for row in rows if row["state"] == TaskState.QUEUED]
    if queued:
        served = await ServedQueues.read(connection)
        rooms: dict[str, list[WorkerResources]] | None = None
        for row in queued:
            task = spec.tasks[row["node"]]
            reason = served.reason(task.queue, task.kind)
            if reason is None and task.resources is not None:
                rooms = await _read_rooms(connection) if rooms is None else rooms
                reason = lacking_room(task.resources, rooms.get(task.queue, ()))
            if reason is not None:
                reasons[row["node"], row["map_index"]] = reason
        reasons = await _read_reports(connection, run, queued) | reasons
    if any(row["state"] == TaskState.DEFERRED for row in rows):
        reasons |= await _read_approvals(connection, run)
    if any(task.depends_on_past for task in spec.tasks):
        for row in await connection.fetch(SQL["read_past_waits"], run):
            named = row["on_task"] or spec.tasks[row["node"]].task_id
            on = "the previous run" if row["run_id"] is None else f"run {row['run_id']}"
            reasons[row["node"], NOT_MAPPED] = f"task {named} of {on}"
    return reasons


async def _read_reports(
    connection: Connection, run: int, rows: Sequence[asyncpg.Record]
) -> dict[tuple[int, int], str]:
    """Return what executors have said last about attempts of queued tasks: what these wait for."""
    nodes, indices = [row["node"] for row in rows], [row["map_index"] for row in rows]
    found = await connection.fetch(SQL["read_executor_reports"], run, nodes, indices)
    return {
        (row["node"], row["map_index"]): _decode_line(row["text"].split("\n")[-2]).m
        for row in found
    }


async def _read_looks(
    connection: Connection, run: int, spec: DagSpec, limit: int
) -> dict[tuple[int, int], str]:
    """Return how often the sensors of a run have looked that are between two looks."""
    nodes = [task.node for task in spec.tasks if task.poll is not None]
    if not nodes:
        return {}
    found = {}
    for row in await connection.fetch(SQL["read_looks"], run, nodes, limit):
        wait_set = decode_wait_set(row["wait_set"])
        if wait_set.key != POLL or wait_set.waits[0].due_at is None:
            continue
        due = datetime.fromtimestamp(wait_set.waits[0].due_at, UTC)
        times = "once" if wait_set.looks == 1 else f"{wait_set.looks:,} times"
        found[row["node"], row["map_index"]] = (
            f"its next look at {due:%H:%M:%S} UTC, looked {times}"
        )
    return found


async def _read_approvals(connection: Connection, run: int) -> dict[tuple[int, int], str]:
    """Return which answers of people the tasks of a run wait for."""
    found = {}
    for row in await connection.fetch(SQL["read_run_approvals"], run, SHOWN_WAITS):
        spec = decode_approval(row["data"])
        people = ", ".join(spec.by)
        found[row["node"], row["map_index"]] = f"an answer to {spec.title!r} by {people}"
    return found


async def _read_rooms(connection: Connection) -> dict[str, list[WorkerResources]]:
    """Return what each queue's workers have for tasks that declare resources."""
    rooms: dict[str, list[WorkerResources]] = {}
    for row in await connection.fetch(SQL["read_workers"]):
        room = WorkerResources(
            *(row["worker"], row["memory"], row["cpu"], row["free_memory"], row["free_cpu"])
        )
        for queue in row["queues"]:
            rooms.setdefault(queue, []).append(room)
    return rooms


async def describe_waits(connection: Connection, run: int, spec: DagSpec) -> list[str]:
    """Return what the tasks of a run wait for, a line each; the first ones."""
    rows = await connection.fetch(SQL["read_waiting_tasks"], run, SHOWN_WAITS)
    reasons = await read_wait_reasons(connection, run, spec, rows)
    reasons |= await _read_looks(connection, run, spec, SHOWN_WAITS)
    reasons |= await _read_approvals(connection, run)
    lines = []
    for (node, map_index), reason in sorted(reasons.items()):
        index = f".{map_index}" if map_index != NOT_MAPPED else ""
        lines.append(f"task {spec.tasks[node].task_id}{index} waits for {reason}")
    if any(task.map_group for task in spec.tasks):
        found = await connection.fetchrow(SQL["read_run_progress"], run)
        if found is not None:
            progress = decode_stored(found["progress"], found["chunks"])
            waits = describe_groups(Plan(spec), progress)
            lines += islice(waits, SHOWN_WAITS)
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
            lines.append(f"{count} task{plural} for {reason}")
    return lines

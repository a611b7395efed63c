"""Orders for workers: built in the transaction that makes tasks ready, published after it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import MessageRefused
from pubsubflow.manager.persistence.load import load_journals
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import InstanceKey, RunWork
from pubsubflow.model.runs.progress import mapped_indexes, mapped_lengths
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.elements import elements_of
from pubsubflow.model.wire.messages import JournalEntry, TaskKey, TaskMessage, encode
from pubsubflow.model.wire.stored_results import is_stored
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction

log = structlog.get_logger()

INLINE_BYTES = 128 * 1024
LATEST_SECONDS = 4.0
"""Orders of a transaction that took longer are left to a sweeper, which waits a little longer."""
_LEAST_SECONDS = 0.001
_NIL = b"\xc0"


class Results:
    """Results of the runs of one batch, from memory where they just came in."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], bytes] = {}
        self._lists: dict[tuple[int, int], list[msgspec.Raw]] = {}
        self._instances: dict[TaskKey, bytes] = {}

    async def load(
        self, transaction: ManagerTransaction, wanted: Iterable[tuple[RunWork, int]]
    ) -> None:
        """Make the results of nodes available."""
        missing = []
        for run, node in wanted:
            if node in run.results:
                self._values[run.id, node] = run.results[node] or _NIL
            else:
                missing.append((run, node))
        if not missing:
            return
        rows = await transaction.fetch_rows(
            "read_results", sorted({(run.id, node) for run, node in missing})
        )
        found: dict[tuple[int, int], list[bytes]] = {}
        for row in rows:
            found.setdefault((row["run"], row["node"]), []).append(row["result"] or _NIL)
        for run, node in missing:
            values = found.get((run.id, node), [])
            if run.version.spec.tasks[node].mapped:
                self._values[run.id, node] = encode([msgspec.Raw(value) for value in values])
            else:
                self._values[run.id, node] = values[0] if values else _NIL

    async def load_instances(
        self, transaction: ManagerTransaction, wanted: Iterable[tuple[RunWork, InstanceKey]]
    ) -> None:
        """Make the results of single instances available, which others of their index take."""
        missing = []
        for run, key in wanted:
            if key in run.instance_results:
                self._instances[run.id, *key] = run.instance_results[key] or _NIL
            else:
                missing.append((run.id, *key))
        if missing:
            for row in await transaction.fetch_rows("read_instance_results", sorted(missing)):
                task = row["run"], row["node"], row["map_index"]
                self._instances[task] = row["result"] or _NIL

    def value(self, run: int, node: int) -> bytes:
        """Return the encoded result of a node."""
        return self._values[run, node]

    def instance(self, run: int, node: int, map_index: int) -> bytes:
        """Return the encoded result of an instance; that of None when it has none."""
        return self._instances.get((run, node, map_index), _NIL)

    def element(self, run: int, node: int, index: int) -> msgspec.Raw:
        """Return one encoded element of a list result."""
        key = (run, node)
        if key not in self._lists:
            self._lists[key] = elements_of(self._values[key])
        return self._lists[key][index]


async def build_orders(
    uow: UnitOfWork, transaction: ManagerTransaction
) -> list[tuple[str, TaskMessage]]:
    """Return queue and order of every task that is to be handed out; all else is written."""
    dispatched = [(run, key) for run in uow.runs.by_id.values() for key in run.dispatch]
    # A task that was never handed out has an empty journal.
    repeated = sorted(
        (run.id, *key)
        for run, key in dispatched
        if run.live[key].attempt > 1 or run.live[key].delivery > 1
    )
    journals = await load_journals(repeated, transaction) if repeated else {}
    results = Results()
    wanted = dict.fromkeys(
        (run, node)
        for run, key in dispatched
        for task in [run.version.spec.tasks[key[0]]]
        for node in [
            *task.inputs,
            *(each.node for each in task.mapped_arguments if not each.unused),
        ]
        if node is not None and not (task.map_group and _shares_index(run, node, task))
    )
    if wanted:
        await results.load(transaction, wanted)
    if any(run.version.plan.groups for run, _ in dispatched):
        await results.load_instances(transaction, _wanted_instances(dispatched))
    return [
        (
            run.version.spec.tasks[key[0]].queue,
            build_order(run, key, results, tuple(journals.get((run.id, *key), ())), uow.now),
        )
        for run, key in dispatched
    ]


def _shares_index(run: RunWork, node: int, task: TaskSpec) -> bool:
    return run.version.spec.tasks[node].shares_index(task)


def _wanted_instances(
    dispatched: Iterable[tuple[RunWork, InstanceKey]],
) -> dict[tuple[RunWork, InstanceKey], None]:
    """Return the instances of mapped groups whose results others of their index take."""
    return dict.fromkeys(
        (run, (node, index))
        for run, (number, index) in dispatched
        for task in [run.version.spec.tasks[number]]
        for node in task.inputs
        if _shares_index(run, node, task)
    )


def build_order(
    run: RunWork,
    key: InstanceKey,
    results: Results,
    journal: tuple[JournalEntry, ...],
    now: datetime,
) -> TaskMessage:
    """Return the order to run one task instance; the worker requests what is too large for it."""
    node, map_index = key
    spec = run.version.spec
    task = spec.tasks[node]
    live = run.live[key]
    room = INLINE_BYTES
    # NATS takes 1 MiB a message: what does not fit is left out, and the worker requests it.
    inputs = {}
    for upstream in task.inputs:
        own = task.map_group and _shares_index(run, upstream, task)
        value = (
            results.instance(run.id, upstream, map_index)
            if own
            else results.value(run.id, upstream)
        )
        if len(value) <= room:
            inputs[upstream] = msgspec.Raw(value)
            room -= len(value)
    indexes: tuple[int, ...] = ()
    elements: dict[str, msgspec.Raw] = {}
    if task.mapped_arguments:
        indexes = _indexes(run, task, map_index)
        elements = _elements_of(run, task, indexes, results, room)
    chain = () if task.mapped_arguments or run.progress.clear_number else run.chains[node]
    timeout = task.timeout_seconds
    if timeout is not None and live.started_at is not None:  # it has waited
        timeout = max(timeout - (now - live.started_at).total_seconds(), _LEAST_SECONDS)
    return TaskMessage(
        run.id,
        node,
        map_index,
        live.attempt,
        live.delivery,
        task.kind,
        spec.dag_id,
        task.task_id,
        run.source,
        msgspec.Raw(run.encoded_info),
        inputs,
        elements,
        indexes,
        chain,
        (timeout, *(spec.tasks[each].timeout_seconds for each in chain)),
        journal if sum(len(entry.value) for entry in journal) <= INLINE_BYTES else None,
        live.crashes > 0,
        task.resources,
        task.executor,
    )


def _indexes(run: RunWork, task: TaskSpec, map_index: int) -> tuple[int, ...]:
    """Return per mapped argument which element an instance has."""
    lengths = mapped_lengths(run.version.plan, task, run.progress)
    if isinstance(lengths, str):
        raise TypeError(lengths)
    return mapped_indexes(lengths, map_index)


def _elements_of(
    run: RunWork, task: TaskSpec, indexes: Sequence[int], results: Results, room: int
) -> dict[str, msgspec.Raw]:
    """Return the elements of mapped results, as far as there is room for them."""
    elements = {}
    for argument, index in zip(task.mapped_arguments, indexes, strict=True):
        if argument.node is None or argument.unused:
            continue
        if is_stored(results.value(run.id, argument.node)):
            continue  # a list in the result store: the runner takes its element out of that
        element = results.element(run.id, argument.node, index)
        if len(element) <= room:
            elements[argument.name] = element
            room -= len(element)
    return elements


def publish_orders(
    bus: Bus, orders: Sequence[tuple[str, TaskMessage]], seconds: float = 0.0
) -> None:
    """Publish orders; the sweeper publishes again what gets lost, after a while.

    On a cluster, where elections lose messages, orders are kept until they are stored.
    None are published if the process stood still since: another one's sweeper may have done so.

    Args:
        bus: The connection.
        orders: Queues and orders.
        seconds: How long ago the transaction began that made them.

    Raises:
        BusUnavailable: Too much waits for the socket already.
    """
    if seconds >= LATEST_SECONDS and orders:
        log.warning("manager.orders_left", tasks=len(orders), seconds=round(seconds, 1))
        return
    publish = bus.publish if bus.keep is None else bus.keep
    for queue, order in orders:
        try:
            publish(Subjects.task(queue, order), encode(order))
        except MessageRefused as error:
            log.error("manager.message_refused", reason=str(error))  # noqa: TRY400
    if orders:
        # They are on their way to workers while the rest of the batch is put together.
        bus.write_now()

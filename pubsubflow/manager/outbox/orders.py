"""Builds the orders that go out to workers."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from pubsubflow.manager.persistence.save_waits import read_records
from pubsubflow.manager.unit_of_work import Ledger, Place, RunWork
from pubsubflow.model.runs.progress import factor_indexes, factor_sizes
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED, Step, TaskMessage
from pubsubflow.store.manager_transaction import FoldTransaction

INLINE_BYTES = 128 * 1024
LEAST_SECONDS = 0.001
NIL = b"\xc0"
_elements = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode


class Results:
    """Results of the runs of one batch, from memory where they just came in."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], bytes] = {}
        self._lists: dict[tuple[int, int], list[msgspec.Raw]] = {}

    async def load(
        self, transaction: FoldTransaction, asked: Iterable[tuple[RunWork, int]]
    ) -> None:
        """Make the results of nodes available; those too large to travel are left out."""
        missing = []
        for run, node in asked:
            if node in run.values:
                self._values[run.number, node] = run.values[node] or NIL
            else:
                missing.append((run, node))
        if not missing:
            return
        rows = await transaction.fetch_rows(
            "read_results", sorted({(run.number, node) for run, node in missing})
        )
        found: dict[tuple[int, int], list[bytes]] = {}
        for row in rows:
            found.setdefault((row["run"], row["node"]), []).append(row["result"] or NIL)
        for run, node in missing:
            values = found.get((run.number, node), [])
            if run.version.spec.tasks[node].mapped:
                self._values[run.number, node] = _encode([msgspec.Raw(value) for value in values])
            elif values:
                self._values[run.number, node] = values[0]
            else:
                self._values[run.number, node] = NIL

    def value(self, run: int, node: int) -> bytes:
        """Return the encoded result of a node."""
        return self._values[run, node]

    def element(self, run: int, node: int, index: int) -> msgspec.Raw:
        """Return one encoded element of a list result."""
        key = (run, node)
        if key not in self._lists:
            self._lists[key] = _elements(self._values[key])
        return self._lists[key][index]


class Dispatch:
    """Turns ready tasks into task messages, after everything of the batch is written."""

    def __init__(self, ledger: Ledger, transaction: FoldTransaction) -> None:
        self._ledger = ledger
        self._transaction = transaction

    async def build(self) -> list[tuple[str, TaskMessage]]:
        """Return (queue, message) for every task of the ledger that is to be handed out."""
        results = Results()
        await results.load(self._transaction, self._needed())
        records = await read_records(sorted(self._recorded()), self._transaction)
        now = self._ledger.now
        return [
            (
                run.version.spec.tasks[node].queue,
                build_order(
                    run,
                    node,
                    map_index,
                    results,
                    steps=tuple(records.get((run.number, node, map_index), ())),
                    now=now,
                ),
            )
            for run in self._ledger.runs.values()
            for node, map_index in run.dispatch
        ]

    def _recorded(self) -> Iterable[Place]:
        """Name the tasks that may have recorded something: all but those handed out first."""
        for run in self._ledger.runs.values():
            for node, map_index in run.dispatch:
                task = run.live[node, map_index]
                if task.attempt > 1 or task.delivery > 1:
                    yield run.number, node, map_index

    def _needed(self) -> Iterable[tuple[RunWork, int]]:
        for run in self._ledger.runs.values():
            nodes: set[int] = set()
            for node in {node for node, _ in run.dispatch}:
                task = run.version.spec.tasks[node]
                nodes.update(task.inputs)
                nodes.update(factor.node for factor in task.factors if factor.node is not None)
            yield from ((run, node) for node in sorted(nodes))


def build_order(
    run: RunWork,
    node: int,
    map_index: int,
    results: Results,
    *,
    steps: tuple[Step, ...],
    now: datetime,
) -> TaskMessage:
    """Return the order to run one task instance; what is too large is left out and asked for."""
    spec = run.version.spec
    task = spec.tasks[node]
    live = run.live[node, map_index]
    room = INLINE_BYTES
    inputs = {}
    for upstream in task.inputs:
        value = results.value(run.number, upstream)
        if len(value) <= room:
            inputs[upstream] = msgspec.Raw(value)
            room -= len(value)
    indexes = _indexes(run, task, map_index)
    elements = _elements_of(run, task, indexes, results, room)
    chain = () if task.mapped or run.progress.cleared else run.version.plan.chains[node]
    return TaskMessage(
        run.number,
        node,
        map_index,
        live.attempt,
        live.delivery,
        task.kind,
        spec.dag_id,
        task.task_id,
        spec.source,
        msgspec.Raw(run.info),
        inputs,
        elements,
        indexes,
        chain,
        (
            _left(task.timeout_seconds, live.started_at, now),
            *(spec.tasks[each].timeout_seconds for each in chain),
        ),
        steps if sum(len(step.value) for step in steps) <= INLINE_BYTES else None,
    )


def _indexes(run: RunWork, task: TaskSpec, map_index: int) -> tuple[int, ...]:
    """Return per factor which element an instance has; nothing for a plain task."""
    if map_index == NOT_MAPPED:
        return ()
    sizes = factor_sizes(run.version.plan, task, run.progress)
    if isinstance(sizes, str):
        raise TypeError(sizes)
    return factor_indexes(sizes, map_index)


def _elements_of(
    run: RunWork, task: TaskSpec, indexes: Sequence[int], results: Results, room: int
) -> dict[str, msgspec.Raw]:
    """Return the elements of mapped results, as far as there is room for them."""
    elements = {}
    for factor, index in zip(task.factors if indexes else (), indexes, strict=True):
        if factor.node is None:
            continue
        element = results.element(run.number, factor.node, index)
        if len(element) <= room:
            elements[factor.name] = element
            room -= len(element)
    return elements


def _left(
    timeout_seconds: float | None, started_at: datetime | None, now: datetime
) -> float | None:
    """Return what is left of a timeout for a task that has waited."""
    if timeout_seconds is None or started_at is None:
        return timeout_seconds
    return max(timeout_seconds - (now - started_at).total_seconds(), LEAST_SECONDS)

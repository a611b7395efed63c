"""Binding of a task: its node and its inputs become a call, and its value becomes a result."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.authoring.binding import TaskBinding, bad_task, map_name
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.context import (
    CURRENT_CONTEXT,
    ConsumedEvents,
    Context,
    CurrentRun,
    TaskInfo,
)
from pubsubflow.authoring.runtime.history import JournalHistory
from pubsubflow.authoring.runtime.host import EventPublisher, TaskHost
from pubsubflow.authoring.runtime.journal import TaskJournal, wait_error
from pubsubflow.authoring.runtime.wait_specs import as_event
from pubsubflow.authoring.task_data import TaskData
from pubsubflow.authoring.tasks.graph import Node, Reference
from pubsubflow.authoring.tasks.mapped.group_mapping import JoinedElements
from pubsubflow.model.runs.rules.forks import LEAVES_OUT
from pubsubflow.model.schedule.conditions import inputs as dataset_inputs
from pubsubflow.model.source.elements import digest_elements, element_order
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.values.state import StateChange
from pubsubflow.model.wire.messages import NOT_MAPPED, EmittedEvent, JournalEntry, RunInfo
from pubsubflow.model.wire.outputs import encode_outputs
from pubsubflow.model.wire.waits import WaitSet, decode_completions


class RunnableDag:
    """A complete DAG, with what its tasks need to know of it at hand.

    Args:
        dag: The DAG.
        tasks: The tasks of the version of its runs, which are those of the DAG: their order is the
            one that numbers the nodes. The DAG's own order when left out.

    Attributes:
        nodes: Its nodes by number.
        tasks: Their serialised forms.
        datasets: The inputs of its schedule.
        params: Its declared params.
    """

    def __init__(self, dag: DAG, tasks: Sequence[TaskSpec] | None = None) -> None:
        self.tasks = dag.to_spec("", "").tasks if tasks is None else tasks
        # The order in which a file makes its tasks may change from import to import.
        self.nodes = tuple(dag.nodes[task.task_id] for task in self.tasks)
        self.params = dag.params
        self._orders = {
            task.node: orders for task in self.tasks if any(orders := _element_orders(self, task))
        }
        schedule = dag.schedule
        self.datasets = [] if schedule is None else list(dataset_inputs(schedule.condition))

    def own_indexes(self, node: int, indexes: Sequence[int]) -> Sequence[int]:
        """Return where the elements of a mapped task's instance stand in the file as it is now.

        Args:
            node: Number of the task.
            indexes: Where they stand in the version of the run, per mapped argument.
        """
        orders = self._orders.get(node)
        if orders is None:
            return indexes
        return [
            index if order is None else order[index]
            for index, order in zip(indexes, orders, strict=True)
        ]


def _element_orders(dag: RunnableDag, task: TaskSpec) -> list[list[int] | None]:
    expanded = dag.nodes[task.node].mapped_over
    return [
        None
        if isinstance(given.values, Reference | JoinedElements)
        else element_order(argument.elements, digest_elements(given.values))
        for argument, given in zip(task.mapped_arguments, expanded, strict=True)
    ]


class BoundTask(Struct, frozen=True):
    """A task that is ready to run.

    Attributes:
        is_async: Whether `run` returns an awaitable.
        run: Runs the task and returns its value; to be called once.
        context: Its context; the current one while `run` runs.
        node: Its node.
    """

    task_id: str
    is_async: bool
    run: Callable[[], Any]
    context: Context
    node: Node


class TaskOutcome(Struct, frozen=True):
    """The outcome of a task that succeeded, as a ResultMessage carries it.

    Attributes:
        value: The encoded return value; empty for None.
        length: Number of elements of a list.
        follow: Task ids that a branch follows; `()` when a short circuit stops.
        outputs: What it leaves behind besides its value, encoded.
        state: Changes of its DAG's state.
        map_name: Name of the instance.
    """

    value: bytes
    length: int | None
    emits: tuple[EmittedEvent, ...]
    follow: tuple[str, ...] | None = None
    published: tuple[str, ...] = ()
    outputs: bytes = b""
    state: tuple[StateChange, ...] = ()
    map_name: str = ""


def bind(
    dag: RunnableDag,
    node: int,
    *,
    info: RunInfo,
    attempt: int,
    host: TaskHost,
    inputs: Mapping[int, Any] | None = None,
    elements: Mapping[str, Any] | None = None,
    indexes: Sequence[int] = (),
    map_index: int = NOT_MAPPED,
    journal: Sequence[JournalEntry] = (),
    delivery: int = 1,
    trace: str | None = None,
) -> BoundTask:
    """Return a task with all its arguments.

    Args:
        dag: The imported DAG.
        node: Number of the task.
        info: The run.
        attempt: Counted from 1.
        host: The process, for the context.
        inputs: Node → decoded result.
        elements: Mapped argument → decoded element, for those mapped over results.
        indexes: Per mapped argument, the index of this instance's element.
        map_index: Number of this instance.
        journal: The recorded entries of the task, in order.
        delivery: Of the attempt; it implies how often tasks of the run were cleared.
        trace: The trace context in which it runs.

    Raises:
        DefinitionError: The arguments do not fit, or a template is invalid.
        TriggerError: The wait before the task's start failed; likewise WaitTimeout.
    """
    chosen, spec = dag.nodes[node], dag.tasks[node]
    given = dict(inputs or {})
    history = JournalHistory(journal)
    is_async = spec.kind == "async"
    running_journal = (
        TaskJournal(host, history, host.write_log, polling=spec.poll is not None)
        if is_async
        else None
    )
    outlets = chosen.options.outlets
    context = _context(
        dag, chosen, info, host, given,
        attempt=attempt,
        task=TaskInfo(spec.task_id, map_index, node, outlets.uris, outlets.patterns),
        publisher=EventPublisher(host, info.key, node, map_index, delivery, trace),
        journal=running_journal,
        trigger_event=spec.start_wait and _start_event(chosen, spec.start_wait, history),
        trace=trace,
    )  # fmt: skip
    if indexes:
        indexes = dag.own_indexes(node, indexes)
    binding = TaskBinding(dag.nodes, chosen, context, given, elements or {}, indexes)
    binding.looks = history.looks
    if indexes:
        context.read_elements = lambda: binding.all_elements(host.fetch_element)
    try:
        call = chosen.body.bind(binding)
    except (TypeError, msgspec.ValidationError) as error:
        raise bad_task(chosen, f"the arguments do not fit: {error}") from error
    run = partial(_run, call, context)
    if running_journal is not None:
        run = partial(_run_async, call, context, running_journal)
    return BoundTask(chosen.task_id, is_async, run, context, chosen)


def task_outcome(
    call: BoundTask,
    value: Any,
    mask: Callable[[str], str] = str,
    *,
    max_bytes: int = results.MAX_RESULT_BYTES,
) -> TaskOutcome:
    """Return the outcome of a task that returned.

    Args:
        call: The task.
        value: What it returned.
        mask: Returns a text without secrets.
        max_bytes: How many bytes its encoded value may have.

    Raises:
        DefinitionError: The value cannot be encoded, or a branch chose a task that is not
            downstream.
    """
    data, length = encode_result(value, call.node, max_bytes=max_bytes)
    if call.context.length is not None:
        length = call.context.length
    if call.node.options.multiple_outputs:
        _check_keys(value, call.node)
    follow: tuple[str, ...] | None = None
    context = call.context
    if call.node.role in ("branch", "short_circuit"):
        chosen = value if context.follow is None else context.follow
        if call.node.role == "branch":
            follow = _follow(call.node, chosen)
        elif not chosen:
            follow = ()
    return TaskOutcome(
        data,
        length,
        tuple(context.emitted),
        follow,
        context.published,
        task_outputs(call, mask),
        context.state_changes,
        instance_name(call, mask),
    )


def instance_name(call: BoundTask, mask: Callable[[str], str]) -> str:
    """Return the name of an instance of a mapped task, without secrets; empty for none."""
    return mask(map_name(call.node.options.map_index_template, call.context))


def task_outputs(call: BoundTask, mask: Callable[[str], str]) -> bytes:
    """Return what a task leaves behind besides its result, encoded; no bytes for nothing."""
    context = call.context
    return encode_outputs(
        context.pushed, {name: mask(text) for name, text in context.rendered.items()}
    )


def encode_result(
    value: Any, node: Node, *, max_bytes: int = results.MAX_RESULT_BYTES
) -> tuple[bytes, int | None]:
    """Return a task's encoded value and its length when it is a list.

    Raises:
        DefinitionError: Its type is not supported, or it is larger than `max_bytes`.
    """
    try:
        return results.encode(value, max_bytes)
    except results.UnsupportedResult as error:
        raise bad_task(node, str(error)) from error


def _context(
    dag: RunnableDag,
    node: Node,
    info: RunInfo,
    host: TaskHost,
    inputs: dict[int, Any],
    **more: Any,
) -> Context:
    run = CurrentRun(
        info.run_id,
        info.dag_id,
        info.kind,
        info.params
        if dag.params.type is None
        else msgspec.convert(info.params, dag.params.type, str_keys=True),
        info.logical_time,
        info.partition,
        info.cause,
        info.created_at,
    )
    return Context(
        run=run,
        events=ConsumedEvents(
            lambda: host.fetch_events() if info.events is None else info.events, dag.datasets
        ),
        data=TaskData(dag.nodes, node, info, host, inputs, more["task"].map_index),
        write_log=host.write_log,
        start_run=host.start_run,
        **more,
    )


def _start_event(node: Node, wait_set: WaitSet, history: JournalHistory) -> Any:
    """Return the event of the task's start trigger."""
    entry = history.start
    if entry is None:
        raise bad_task(node, "its start trigger is not in its journal; clear the task")
    if entry.error is not None:
        raise wait_error(entry.label, entry.error)
    return as_event(wait_set.waits[0], decode_completions(entry.value)[0])


def _run(call: Callable[[], Any], context: Context) -> Any:
    CURRENT_CONTEXT.set(context)
    try:
        return call()
    finally:
        CURRENT_CONTEXT.set(None)


async def _run_async(call: Callable[[], Any], context: Context, journal: TaskJournal) -> Any:
    CURRENT_CONTEXT.set(context)
    journal.function_task = asyncio.current_task()
    try:
        value = await call()
    except BaseException as error:
        # User code may have replaced the deferral by an exception of its own; the journal decides.
        ending = journal.conclude(error)
        if ending is None or ending is error:
            raise
        raise ending from None
    finally:
        CURRENT_CONTEXT.set(None)
    ending = journal.conclude(None)
    if ending is not None:
        raise ending
    return value


def _follow(node: Node, value: Any) -> tuple[str, ...]:
    chosen = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(chosen, list | tuple) or not all(isinstance(name, str) for name in chosen):
        raise bad_task(node, f"a branch returns task ids, or None to follow nothing, not {value!r}")
    if chosen and chosen[0].startswith(LEAVES_OUT):
        return tuple(chosen)
    following = [other for other in node.graph.nodes.values() if node in other.upstream]
    after = [other.task_id for other in following]
    # A group stands for its first tasks.
    after += sorted({group for other in following for group in other.groups})
    for task_id in chosen:
        if task_id not in after:
            raise bad_task(
                node,
                f"the branch chose {task_id!r}, which does not follow it; "
                f"choose one of: {', '.join(after) or 'none'}",
            )
    return tuple(chosen)


def _check_keys(value: Any, node: Node) -> None:
    if not isinstance(value, dict):
        raise bad_task(
            node,
            f"a task with multiple_outputs=True returns a dict, not {type(value).__name__}; "
            "return one, or leave multiple_outputs out",
        )

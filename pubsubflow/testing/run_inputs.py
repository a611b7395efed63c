"""Run inputs of an in-process run: params, events, results and connections, checked."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.datasets import Dataset
from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.source_location import suggestion
from pubsubflow.authoring.template_checks import check_templates
from pubsubflow.errors import InvalidInput
from pubsubflow.model.cel.expressions import evaluate
from pubsubflow.model.connections import Connection
from pubsubflow.model.datasets import matches
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.schedule.conditions import DatasetInput, inputs
from pubsubflow.model.schedule.partitions import map_key
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.values.variables import Variable, make_variable
from pubsubflow.model.wire.messages import EventInfo, RunInfo, encode
from pubsubflow.testing.connections import read_connections
from pubsubflow.testing.events import UndatedEvent, event
from pubsubflow.testing.questions import TestQuestions
from pubsubflow.testing.results import RunResults
from pubsubflow.testing.selection import find_node, restrict_spec, selected_nodes
from pubsubflow.testing.state import TestState

_FULL = 4


class RunInputs(Struct, frozen=True):
    """The inputs of a run.

    Attributes:
        spec: The whole DAG.
        plan: The DAG restricted to the tasks that run.
        chosen: Nodes that run.
        info: The encoded RunInfo.
        consumed: The events that the run consumed.
        future_events: Events that tasks may wait for.
        run_id: The run.
        results: Its results.
        now: When it starts.
        connections: The connections that its tasks may use.
        variables: Likewise the variables.
        state: The state of the DAG.
        answers: Question → the answer to an approval.
        questions: Answers the tasks of Airflow's files.
    """

    dag: RunnableDag
    spec: DagSpec
    plan: Plan
    chosen: frozenset[int]
    info: bytes
    run_id: str
    results: RunResults
    now: datetime
    consumed: tuple[EventInfo, ...] = ()
    future_events: tuple[EventInfo, ...] = ()
    connections: dict[str, Connection] = {}
    variables: dict[str, Variable] = {}
    state: TestState = field(default_factory=TestState)
    answers: dict[str, Any] = {}
    questions: TestQuestions = field(default_factory=lambda: TestQuestions({}))


def prepare_run(
    dag: DAG,
    params: Mapping[str, Any] | Struct | None,
    events: Iterable[Any] | None,
    select: str | Iterable[str] | None,
    *,
    results: Mapping[str, Any] | None,
    connections: Mapping[str, Any] | None,
    variables: Mapping[str, Any] | None,
    state: Mapping[Any, Any] | None,
    answers: Mapping[str, Any] | None,
    logical_time: datetime | None,
    now: datetime,
) -> RunInputs:
    """Check the inputs of a run and return them.

    Raises:
        InvalidInput: An input does not fit the DAG.
    """
    # File and hash matter to stored versions only.
    check_templates(dag)
    spec = dag.to_spec("", "")
    given = results or {}
    stubs = {find_node(spec, task_id, "results"): given[task_id] for task_id in given}
    encoded = {node: _encoded(spec, node, value) for node, value in stubs.items()}
    chosen = selected_nodes(spec, select) - encoded.keys()
    lengths = {node: len(value) for node, value in stubs.items() if isinstance(value, list | tuple)}
    consumed, future = _split_events(spec, _events(events or (), now))
    partition = _partition(spec, consumed[-1]) if consumed else None
    given_params = {**_computed(spec, params, consumed, partition), **(_builtins(params) or {})}
    info = _run_info(
        spec, validate_params(spec, given_params), consumed, partition, logical_time, now
    )
    known = {name: make_variable(name, value) for name, value in (variables or {}).items()}
    return RunInputs(
        RunnableDag(dag),
        spec,
        Plan(restrict_spec(spec, chosen, lengths)),
        chosen,
        encode(info),
        info.run_id,
        RunResults(spec, chosen, encoded),
        now,
        consumed,
        future,
        read_connections(connections or {}),
        known,
        TestState(state),
        dict(answers or {}),
        TestQuestions(known, consumed),
    )


def read_events(spec: DagSpec, events: Iterable[Any], now: datetime) -> tuple[EventInfo, ...]:
    """Return events in any form that `DAG.test` accepts.

    Raises:
        InvalidInput: One is not an event, or of a dataset that the DAG does not wait for.
    """
    found = _events(events, now)
    for each in found:
        if not _consumes(spec, each):
            raise _unknown(spec, each)
    return found


def _split_events(
    spec: DagSpec, events: tuple[EventInfo, ...]
) -> tuple[tuple[EventInfo, ...], tuple[EventInfo, ...]]:
    """Return the events that the run consumed, and those that its tasks may wait for."""
    future = tuple(each for each in events if not _consumes(spec, each))
    if future and not any(task.kind == "async" or task.start_wait for task in spec.tasks):
        raise _unknown(spec, future[0])
    return tuple(each for each in events if _consumes(spec, each)), future


def _consumes(spec: DagSpec, event: EventInfo) -> bool:
    held = inputs(spec.schedule.condition) if spec.schedule is not None else ()
    return any(_matches(each, event) for each in held)


def _matches(given: DatasetInput, event: EventInfo) -> bool:
    return matches(given.uri, event.dataset) if given.pattern else given.uri == event.dataset


def _unknown(spec: DagSpec, event: EventInfo) -> InvalidInput:
    held = inputs(spec.schedule.condition) if spec.schedule is not None else ()
    expected = {each.uri for each in held if not each.pattern}
    hint = suggestion(event.dataset, expected) if expected else "; it waits for none"
    return InvalidInput(f"events: DAG {spec.dag_id!r} does not wait for {event.dataset!r}{hint}")


def _events(events: Iterable[Any], now: datetime) -> tuple[EventInfo, ...]:
    if isinstance(events, Mapping):
        # As `ctx.events` has them: dataset → what its events carry.
        carried = [
            (each, given if isinstance(given, list) else [given]) for each, given in events.items()
        ]
        events = [(dataset, extra) for dataset, extras in carried for extra in extras]
    return tuple(_event(each, now) for each in events)


def _event(given: Any, now: datetime) -> EventInfo:
    if isinstance(given, UndatedEvent):
        given = msgspec.structs.replace(given, time=now)
    if isinstance(given, DatasetEvent):
        return given.to_info()
    if isinstance(given, EventInfo):
        return given
    if isinstance(given, Dataset | str):
        return event(given, time=now).to_info()
    if isinstance(given, tuple | list) and 0 < len(given) <= _FULL:
        parts: list[Any] = [*given, None, None, None]
        made = event(parts[0], extra=parts[1], partition=parts[2], time=parts[3] or now)
        return made.to_info()
    if hasattr(given, "dataset"):
        extra, part = getattr(given, "extra", None), getattr(given, "partition", None)
        return event(given.dataset, extra=extra, partition=part, time=now).to_info()
    raise InvalidInput(f"events: {given!r} is not an event; write (dataset, {{'rows': 42}})")


def _run_info(
    spec: DagSpec,
    params: dict[str, Any],
    events: tuple[EventInfo, ...],
    partition: str | None,
    logical_time: datetime | None,
    now: datetime,
) -> RunInfo:
    kind, cause = "manual", "requested by a test"
    if events:
        kind, cause = "dataset", f"{events[-1].dataset} was updated"
    elif logical_time is not None and spec.schedule is not None:
        kind, cause = "cron", f"its time came: {logical_time.isoformat()}"
    run_id = str(new_id())
    return RunInfo(
        0, run_id, spec.dag_id, kind, params, logical_time, partition, cause, now, events
    )


def _computed(
    spec: DagSpec, params: Any, events: tuple[EventInfo, ...], partition: str | None
) -> dict[str, Any]:
    """Return the computed params that are not given."""
    if not events:
        return {}
    given = _builtins(params) or {}
    left = {name: text for name, text in spec.params_from.items() if name not in given}
    return evaluate(left, events, partition)


def _partition(spec: DagSpec, last: EventInfo) -> str | None:
    """Return the run's partition key; the first one, where an event maps to several."""
    partitioning = spec.schedule.partitioning if spec.schedule is not None else None
    if partitioning is None or last.partition is None or spec.schedule is None:
        return None
    for each in inputs(spec.schedule.condition):
        if _matches(each, last):
            keys = map_key(partitioning.mapper(each.uri), last.partition)
            return keys[0][0] if keys else last.partition
    return last.partition


def _builtins(params: Mapping[str, Any] | Struct | None) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = msgspec.to_builtins(params, str_keys=True)
    return found


def _encoded(spec: DagSpec, node: int, value: Any) -> bytes:
    task = spec.tasks[node]
    if task.mapped and not isinstance(value, list | tuple):
        raise InvalidInput(
            f"results: task {task.task_id!r} is mapped, so its result is a list, not {value!r}"
        )
    try:
        return results.encode(value)[0] or encode(None)
    except results.UnsupportedResult as error:
        raise InvalidInput(f"results[{task.task_id!r}]: {error}") from error

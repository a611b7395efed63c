"""Callbacks of an in-process run: called once it has ended, in the order of the outcomes."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from msgspec import Struct

from pubsubflow.authoring.alerts.callbacks import Callback, callback_name
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.callback_context import CallbackContext
from pubsubflow.authoring.runtime.inprocess import CallbackCall, RunResult
from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.callbacks import CallbackFacts, FailedTask
from pubsubflow.model.connection_dags import check_dag
from pubsubflow.model.connections import Connection
from pubsubflow.model.runs.states import TaskState, kind_of_run, kind_of_task
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import RunInfo, TaskError, decode_run_info
from pubsubflow.testing.run_inputs import RunInputs

RunHere = Callable[[Callable[[], Any]], Awaitable[Any]]


class EndedAttempt(Struct, frozen=True):
    """The end of a task, or of an attempt that another one follows."""

    node: int
    map_index: int
    attempt: int
    state: TaskState
    error: TaskError | None = None


async def call_callbacks(
    dag: DAG,
    inputs: RunInputs,
    endings: Sequence[EndedAttempt],
    result: RunResult,
    run_here: RunHere,
) -> list[CallbackCall]:
    """Call what follows from the outcomes of a run, and return how that went.

    Args:
        dag: The DAG.
        inputs: The run.
        endings: How its tasks have ended, in order.
        result: How the run has.
        run_here: Runs a function where plain tasks run.
    """
    calls = [call for ending in endings for call in _of_task(inputs, ending)]
    calls += _of_run(dag, inputs, endings, result)
    return [await run_here(_Call(inputs, *call).run) for call in calls]


def _of_task(inputs: RunInputs, ending: EndedAttempt) -> list[tuple[Callback, CallbackFacts]]:
    kind = kind_of_task(ending.state)
    if kind is None:
        return []
    node = inputs.dag.nodes[ending.node]
    error = None if ending.error is None else f"{ending.error.type}: {ending.error.message}"
    facts = CallbackFacts(
        kind=kind,
        **_run_facts(inputs),
        node=ending.node,
        task_id=node.task_id,
        map_index=ending.map_index,
        attempt=ending.attempt,
        state=ending.state,
        error=error,
    )
    return [(each, facts) for each in getattr(node.options, kind)]


def _of_run(
    dag: DAG, inputs: RunInputs, endings: Sequence[EndedAttempt], result: RunResult
) -> list[tuple[Callback, CallbackFacts]]:
    kind = kind_of_run(result.state)
    if kind is None:
        return []
    failed = tuple(
        FailedTask(
            each.node,
            inputs.dag.tasks[each.node].task_id,
            each.map_index,
            each.attempt,
            "" if each.error is None else f"{each.error.type}: {each.error.message}",
        )
        for each in endings
        if each.state is TaskState.FAILED
    )
    facts = CallbackFacts(
        kind=kind, **_run_facts(inputs), state=result.state, error=result.error, failed=failed
    )
    return [(each, facts) for each in getattr(dag, kind)]


def _run_facts(inputs: RunInputs) -> dict[str, Any]:
    info: RunInfo = decode_run_info(inputs.info)
    return {
        "dag_id": info.dag_id,
        "run_id": info.run_id,
        "run_kind": info.kind,
        "params": info.params,
        "logical_time": info.logical_time,
        "partition": info.partition,
        "cause": info.cause,
        "created_at": info.created_at,
    }


class _Call:
    """One call of a function or notifier."""

    def __init__(self, inputs: RunInputs, callback: Callback, facts: CallbackFacts) -> None:
        self._inputs = inputs
        self._callback = callback
        self._facts = facts
        self._output = StringIO()

    def run(self) -> CallbackCall:
        """Call it, and return how that went."""
        context = CallbackContext(
            self._facts,
            read_connection=self._connection,
            read_variable=self._variable,
            write_log=self._log,
        )
        error = None
        with redirect_stdout(self._output), redirect_stderr(self._output):
            try:
                found = self._callback(context)
                if inspect.isawaitable(found):
                    asyncio.run(_wait(found))
            except Exception as raised:  # noqa: BLE001 - whatever user code raises is an outcome
                error = raised
        facts = self._facts
        name, output = callback_name(self._callback), self._output.getvalue()
        return CallbackCall(facts.kind, name, facts.task_id, facts.map_index, output, error)

    def _connection(self, name: str) -> Connection:
        found = self._inputs.connections.get(name)
        if found is None:
            raise ConfigError(
                f"{NotFound('connection', name)}: give one, "
                f"test(connections={{{name!r}: 'https://…'}})"
            )
        check_dag(name, found.dags, self._inputs.spec.dag_id)
        return found

    def _variable(self, name: str) -> Variable | None:
        return self._inputs.variables.get(name)

    def _log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        more = "".join(f" {name}={value}" for name, value in fields.items())
        self._output.write(f"{level} {event}{more}\n")


async def _wait(found: Awaitable[Any]) -> None:
    await found

"""Attempts of tasks in this process: async ones side by side, others one at a time."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import anyio
import anyio.lowlevel
from msgspec import Struct

from pubsubflow.authoring.bind import (
    BoundTask,
    TaskOutcome,
    bind,
    instance_name,
    task_outcome,
    task_outputs,
)
from pubsubflow.authoring.runtime.host import TaskHost
from pubsubflow.authoring.runtime.results import MAX_RESULT_BYTES
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.authoring.tasks.retries import after_seconds, judged
from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.connection_dags import check_dag
from pubsubflow.model.connections import Connection
from pubsubflow.model.runs.polling import poll_timeout
from pubsubflow.model.runs.retry import retries_time_limit
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.values.state import StateValue
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    EventInfo,
    JournalEntry,
    Outcome,
    PublishedEvent,
    TaskError,
    decode_run_info,
)
from pubsubflow.model.wire.outputs import PulledValues
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.model.wire.waits import WaitSet
from pubsubflow.model.wire.worker_requests import PreviousRun, PullRequest, WantedRun
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.output import TaskOutput
from pubsubflow.runner.redaction import Redactor
from pubsubflow.testing.output import Capture
from pubsubflow.testing.run_inputs import RunInputs

_MAX_RESULT_BYTES = 64 << 20
"""As much as goes to a result store by default; a test keeps it in memory."""


class AttemptEnd(Struct, frozen=True):
    """The end of one attempt.

    Attributes:
        finished: The task's outcome, after a success.
        exception: The exception that it raised; None after a success.
        outputs: What it leaves behind besides its result, encoded.
        wait_set: The wait, when it was deferred.
        retry_after: Seconds until the next attempt, if the task demands them.
        map_name: Name of the instance.
    """

    outcome: Outcome
    finished: TaskOutcome | None = None
    error: TaskError | None = None
    exception: BaseException | None = None
    wait_set: WaitSet | None = None
    retry_after: float | None = None
    outputs: bytes = b""
    map_name: str = ""


Publish = Callable[[PublishedEvent], None]
Mask = Callable[[str], str]
RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]


class Instance(Struct, frozen=True):
    """One task, or one instance of a mapped task.

    Attributes:
        task: The task in the run's plan.
        indexes: Per mapped argument, the index of its element.
    """

    task: TaskSpec
    map_index: int = NOT_MAPPED
    indexes: tuple[int, ...] = ()


class Execution(Struct, frozen=True):
    """One execution of a task's function: an attempt has one more of them than it has waits.

    Attributes:
        attempt: Counted from 1.
        output: Collects its output.
        publish: Records the events that it publishes.
        now: Returns the time in seconds since 1970.
        journal: The recorded entries; grows.
        seconds: The rest of its timeout.
    """

    instance: Instance
    attempt: int
    output: TaskOutput
    publish: Publish
    now: Callable[[], float]
    journal: list[JournalEntry]
    seconds: float | None


class AttemptRunner:
    """Runs attempts: async ones side by side, the others one at a time.

    Args:
        inputs: The run's inputs.
        capture: Captures their output.
        run_sync: Runs a function in the thread of plain tasks.
    """

    def __init__(self, inputs: RunInputs, capture: Capture, run_sync: RunSync) -> None:
        self._inputs = inputs
        self._capture = capture
        self._run_sync = run_sync
        redactor = Redactor()
        for connection in inputs.connections.values():
            redactor.add(connection)
        for variable in inputs.variables.values():
            redactor.add(variable)
        self._mask = redactor.text
        self._one_at_a_time = anyio.Lock()

    async def run(self, execution: Execution) -> AttemptEnd:
        """Execute a task's function and return how it ended."""
        if execution.instance.task.kind == "async":
            return await self._run_concurrently(execution)
        async with self._one_at_a_time:
            ended: AttemptEnd = await self._run_sync(lambda: self._run_alone(execution))
            return ended

    def _run_alone(self, execution: Execution) -> AttemptEnd:
        """Execute a plain task; it fails after its timeout, but is not stopped."""
        began = time.monotonic()
        with self._capture.writing(execution.output, alone=True):
            call = None
            try:
                call = self._bind(execution)
                ended = _succeeded(call, call.run(), self._mask)
            except BaseException as error:  # noqa: BLE001 - the task's, kept in the result
                ended = _failed(error, self._retries(execution), call, self._mask)
        late = execution.seconds is not None and time.monotonic() - began > execution.seconds
        return timed_out(execution.instance.task) if late else ended

    async def _run_concurrently(self, execution: Execution) -> AttemptEnd:
        ended = timed_out(execution.instance.task)
        with self._capture.writing(execution.output), anyio.CancelScope() as scope:
            if execution.seconds is not None:
                scope.deadline = anyio.current_time() + execution.seconds
            call = None
            try:
                call = self._bind(execution)
                ended = _succeeded(call, await call.run(), self._mask)
            except BaseException as error:
                if _is_cancelled(error) and not scope.cancel_called:
                    raise
                ended = _failed(error, self._retries(execution), call, self._mask)
        return timed_out(execution.instance.task) if scope.cancel_called else ended

    def _retries(self, execution: Execution) -> object:
        """Return the `retries` of the task, as its file gives them."""
        return self._inputs.dag.nodes[execution.instance.task.node].options.retries

    def _bind(self, execution: Execution) -> BoundTask:
        run, instance = self._inputs, execution.instance
        info = decode_run_info(run.info)
        task = run.spec.tasks[instance.task.node]
        index = instance.map_index
        inputs = {node: run.results.input(node, task, index) for node in task.inputs}
        elements = {
            argument.name: run.results.element(argument.node, index)
            for argument, index in zip(task.mapped_arguments, instance.indexes, strict=True)
            if argument.node is not None and not argument.unused
        }
        return bind(
            run.dag,
            task.node,
            info=info,
            attempt=execution.attempt,
            host=_Host(run, execution, info.events or ()),
            inputs=inputs,
            elements=elements,
            indexes=instance.indexes,
            map_index=instance.map_index,
            journal=execution.journal,
        )


class _Host(TaskHost):
    """This process as the host of a task."""

    def __init__(
        self, inputs: RunInputs, execution: Execution, events: Sequence[EventInfo]
    ) -> None:
        self._inputs = inputs
        self._execution = execution
        self._events = events

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._execution.output.record(level, event, fields)

    def fetch_result(self, node: int) -> bytes:
        instance = self._execution.instance
        return self._inputs.results.fetch(node, instance.task, instance.map_index)

    def fetch_element(self, node: int, index: int) -> bytes:
        return self._inputs.results.fetch_element(node, index)

    def fetch_pulled(self, request: PullRequest) -> PulledValues:
        found = self._inputs.results.pull(request)
        if not request.early:
            return found
        return self._inputs.questions.with_early(
            found, request.task_id, request.key, request.map_index
        )

    def fetch_events(self) -> Sequence[EventInfo]:
        return self._events

    def fetch_connection(self, name: str) -> Connection:
        found = self._inputs.connections.get(name)
        if found is None:
            raise ConfigError(
                f"{NotFound('connection', name)}: give one, "
                f"test(connections={{{name!r}: 'postgres://…'}})"
            )
        check_dag(name, found.dags, self._inputs.spec.dag_id)
        return found

    def fetch_variable(self, name: str) -> Variable:
        found = self._inputs.variables.get(name)
        if found is None:
            raise NotFound("variable", name)
        return found

    def fetch_state(self, name: str) -> StateValue:
        return self._inputs.state.read(name)

    def fetch_previous_success(self) -> PreviousRun | None:
        return None  # it is the first run

    def fetch_answer(self, question: TaskQuestion) -> Any:
        instance = self._execution.instance
        return self._inputs.questions.answer(question, instance.task.task_id, instance.map_index)

    def publish(self, event: PublishedEvent) -> None:
        self._execution.publish(event)

    async def apublish(self, event: PublishedEvent) -> None:
        self._execution.publish(event)
        await anyio.lowlevel.checkpoint()

    def now(self) -> float:
        return self._execution.now()

    async def start_run(self, wanted: WantedRun) -> str:
        await anyio.lowlevel.checkpoint()
        fields = {"dag_id": wanted.dag_id, "params": wanted.params}
        self.write_log("info", "run.would_start", fields)
        return str(uuid5(NAMESPACE_URL, wanted.run_key or wanted.dag_id))

    async def record(self, entry: JournalEntry) -> JournalEntry:
        await anyio.lowlevel.checkpoint()
        self._execution.journal.append(entry)
        return entry

    def describe(self, error: Exception) -> TaskError:
        return outcome_of(error)[1]


def _succeeded(call: BoundTask, value: Any, mask: Mask) -> AttemptEnd:
    done = task_outcome(call, value, mask, max_bytes=_MAX_RESULT_BYTES)
    if len(done.value) > MAX_RESULT_BYTES:
        text = "the result is so large that it needs a result store: [results] store"
        call.context.log.warning(text, bytes=len(done.value))
    return AttemptEnd(Outcome.SUCCESS, done, outputs=done.outputs, map_name=done.map_name)


def _failed(
    error: BaseException, retries: object, call: BoundTask | None, mask: Mask
) -> AttemptEnd:
    """Return the deferral or the failure, without our own frame in the traceback."""
    if isinstance(error, TaskDeferred):
        return AttemptEnd(Outcome.DEFERRED, wait_set=error.wait_set)
    trace = error.__traceback__
    # The user's traceback begins below our own frame.
    error = error.with_traceback(trace.tb_next if trace is not None else None)
    outcome, described = outcome_of(error)
    described = judged(retries, error, described)
    outputs = b"" if call is None else task_outputs(call, mask)
    return AttemptEnd(
        outcome,
        error=described,
        exception=error,
        retry_after=after_seconds(error),
        outputs=outputs,
        map_name="" if call is None else instance_name(call, mask),
    )


def timed_out(task: TaskSpec, meanwhile: str = "") -> AttemptEnd:
    """Return the end of an attempt that exceeded its timeout."""
    text = f"timed out after {task.timeout_seconds or 0:g} s{meanwhile}"
    error = TaskError("TimeoutError", text, final=not retries_time_limit(task.retry))
    return AttemptEnd(Outcome.FAILED, error=error, exception=TimeoutError(text))


def poll_timed_out(task: TaskSpec, looks: int | None = None) -> AttemptEnd:
    """Return the end of a polling sensor that was not done in its time."""
    if task.poll is None:
        return timed_out(task)
    outcome, error = poll_timeout(task.poll, task.timeout_seconds, looks)
    return AttemptEnd(outcome, error=error, exception=TimeoutError(error.message))


def _is_cancelled(error: BaseException) -> bool:
    """Return whether a cancellation came from outside, rather than from the task's own code."""
    cancelled = isinstance(error, anyio.get_cancelled_exc_class())
    return cancelled and anyio.current_effective_deadline() == -math.inf

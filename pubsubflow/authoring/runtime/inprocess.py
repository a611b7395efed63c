"""In-process runs of a DAG: `DAG.test`, `DAG.atest` and their results."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.source_location import suggestion
from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.messages import NOT_MAPPED, TaskError


class LogLine(Struct, frozen=True):
    """One line of a task's output.

    Attributes:
        attempt: The attempt that wrote it, from 1.
        stream: `stdout`, `stderr` or `log`.
        message: The line, or the event of a `ctx.log` call.
        level: Of a `ctx.log` call, else None.
        fields: Of a `ctx.log` call.
    """

    attempt: int
    stream: str
    message: str
    level: str | None = None
    fields: dict[str, Any] = {}


class TaskResult(Struct, frozen=True):
    """The outcome of one task, or of one instance of a mapped task.

    Attributes:
        attempts: Attempts made; 0 when it never started.
        value: The return value that downstream tasks get; None unless it succeeded.
        error: The error of its last attempt, with the user's part of the traceback.
        map_index: Number of the instance, from 0; -1 for a plain task.
        logs: The lines that it printed and logged, in order, of all attempts.
        pushed: Key → value of what it has pushed.
        rendered: Template field → its text.
        map_name: Name of the instance, by its `map_index_template`.
    """

    task_id: str
    state: TaskState
    attempts: int = 0
    value: Any = None
    error: TaskError | None = None
    map_index: int = NOT_MAPPED
    logs: tuple[LogLine, ...] = ()
    pushed: dict[str, Any] = {}
    rendered: dict[str, str] = {}
    map_name: str = ""


class CallbackCall(Struct, frozen=True):
    """A call of a function or notifier after an outcome.

    Attributes:
        kind: `on_success`, `on_failure`, `on_retry` or `on_skipped`.
        name: What was called.
        task_id: The task; None for a callback of the run.
        output: What it printed and logged.
        error: What it raised; it changes no outcome.
    """

    kind: str
    name: str
    task_id: str | None = None
    map_index: int = NOT_MAPPED
    output: str = ""
    error: Exception | None = None


class RunResult(Struct, frozen=True):
    """The outcome of a run.

    Attributes:
        state: `success` or `failed`.
        tasks: Task id → its instances in map order; one for a plain task. Tasks that were not
            selected are left out.
        emitted: The dataset events, in the order in which their tasks ended.
        started_at: When it started, on the virtual clock.
        ended_at: When it ended, on the virtual clock: the delays between attempts have passed.
        error: The reason why the run itself was ended, such as its timeout.
        state_values: The state of the DAG at its end, by name or URI.
        callbacks: The calls that followed, in the order of the outcomes, with `callbacks=True`.
    """

    state: RunState
    tasks: dict[str, list[TaskResult]]
    emitted: list[DatasetEvent]
    started_at: datetime
    ended_at: datetime
    error: str | None = None
    state_values: dict[str, Any] = {}
    callbacks: list[CallbackCall] = []

    @property
    def states(self) -> dict[str, TaskState]:
        """Task id → the state that downstream tasks see; tasks that never started are left out."""
        found = {}
        for task_id, instances in self.tasks.items():
            if instances:
                # The manager's own rule for several instances, so that both agree.
                entry = NodeProgress()
                for instance in instances:
                    entry.count(instance.state)
                found[task_id] = entry.state
        return found

    def result(self, task_id: str) -> Any:
        """Return a task's value as downstream tasks get it; of a mapped task the list of values.

        Raises:
            NotFound: The task does not exist or was not selected.
            InvalidInput: The task did not succeed.
        """
        if task_id not in self.tasks:
            raise NotFound("task in this run", task_id + suggestion(task_id, self.tasks))
        instances = self.tasks[task_id]
        values = [task.value for task in instances if task.state is TaskState.SUCCESS]
        if instances and instances[0].map_index != NOT_MAPPED:
            return values
        if not values:
            state = instances[0].state if instances else "not started"
            error = instances[0].error if instances else None
            reason = f": {error.type}: {error.message}" if error else ""
            raise InvalidInput(f"task {task_id!r} has no result, it is {state}{reason}")
        return values[0]


class InProcessKeywords(TypedDict, total=False):
    """Further keywords of `DAG.test`."""

    results: Mapping[str, Any] | None
    connections: Mapping[str, Any] | None
    variables: Mapping[str, Any] | None
    state: Mapping[Any, Any] | None
    answers: Mapping[str, Any] | None
    logical_time: datetime | None
    now: datetime | None
    raise_on_error: bool
    callbacks: bool


class InProcessRuns:
    """The methods of a DAG that run it in the calling process."""

    def test(
        self,
        params: Mapping[str, Any] | Struct | None = None,
        events: Iterable[Any] | None = None,
        select: str | Iterable[str] | None = None,
        **more: Unpack[InProcessKeywords],
    ) -> RunResult:
        """Run the DAG in this process, without servers, and return its outcome.

        Async tasks run side by side on an event loop, the others one after another in the calling
        thread. Delays between attempts pass on a virtual clock.

        Args:
            params: The run's params, over the DAG's defaults.
            events: The consumed events: datasets, tuples `(dataset, extra, partition, time)` of
                which the end may be left out, or events such as those of another run's `emitted`.
            select: Task ids, each with `+` (one layer), `++` (two) … or `*` (all) before it for
                upstream tasks and after it for downstream ones; a comma or a list joins several.
            more: `results`: task id → value, for tasks that are not to run; `connections`: name →
                Connection, URI or mapping of `uri`, `secrets`, `extra`, `kind`; `variables`: name
                → value; `state`: name or dataset → value; `logical_time`: the tick; `now`:
                when the run starts; `raise_on_error`: raise a task's exception; `callbacks`: call
                what is in `on_success=`, `on_failure=` and the like. Without it nothing is called:
                a notifier would send its message.

        Raises:
            InvalidInput: The params, events or the selection do not fit the DAG, a needed result
                is missing, or an event loop runs in this thread: use `atest`.
        """
        done: RunResult = _testing().run(self, params, events, select, **more)
        return done

    async def atest(
        self,
        params: Mapping[str, Any] | Struct | None = None,
        events: Iterable[Any] | None = None,
        select: str | Iterable[str] | None = None,
        **more: Unpack[InProcessKeywords],
    ) -> RunResult:
        """Do what `test` does, on the running event loop.

        Tasks that are not async run one after another in a worker thread, so the loop goes on.
        """
        done: RunResult = await _testing().arun(self, params, events, select, **more)
        return done


@cache
def _testing() -> Any:
    """Import the in-process runner at its first use: files that define DAGs do not need it."""
    return import_module("pubsubflow.testing.inprocess")

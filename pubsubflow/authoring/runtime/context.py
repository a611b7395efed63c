"""Context of a running task: its run, its events, what it emits, results and connections."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn, Protocol

from msgspec import Struct

from pubsubflow.authoring.datasets import Dataset, json_object, uri_of
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.runtime.host import EventPublisher
from pubsubflow.authoring.runtime.logger import TaskLogger, WriteLog
from pubsubflow.authoring.runtime.result_keys import NO_DEFAULT, ResultMethods, ResultSource
from pubsubflow.authoring.runtime.state import DagState
from pubsubflow.authoring.runtime.waiting import IN_STEP, Journal, WaitMethods
from pubsubflow.authoring.schedules.dataset_expressions import DatasetExpression
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import NotFound
from pubsubflow.model.connections import Connection
from pubsubflow.model.datasets import matches
from pubsubflow.model.schedule.conditions import DatasetInput
from pubsubflow.model.traces import trace_headers
from pubsubflow.model.values.state import StateChange, StateValue
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import EmittedEvent, EventInfo
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.model.wire.worker_requests import PreviousRun, WantedRun


class CurrentRun(Struct, frozen=True):
    """The run that a task belongs to.

    Attributes:
        kind: `dataset`, `cron`, `manual`.
        params: A dict, or the Struct that the DAG declared.
        logical_time: The tick, for a run by time.
        cause: The reason for the run, in one line.
    """

    run_id: str
    dag_id: str
    kind: str
    params: Any
    logical_time: datetime | None
    partition: str | None
    cause: str
    created_at: datetime


class TaskInfo(Struct, frozen=True):
    """The task that runs.

    Attributes:
        map_index: Number of this instance of a mapped task, from 0; -1 for a plain one.
        node: Number of the task in its DAG.
        outlets: URIs of the datasets it may emit.
        outlet_patterns: Patterns of further ones.
    """

    task_id: str
    map_index: int
    node: int
    outlets: tuple[str, ...]
    outlet_patterns: tuple[str, ...] = ()

    def may_emit(self, uri: str) -> bool:
        """Return whether a dataset is an outlet."""
        return uri in self.outlets or any(matches(one, uri) for one in self.outlet_patterns)


class ConsumedEvents(Mapping["DatasetExpression | str", list[DatasetEvent]]):
    """The events that the run consumed, by dataset; read at the first use.

    A URI stands for its dataset.

    A dataset of the DAG's schedule without an event has an empty list. `Dataset.match(…)` has the
    events of all datasets that match.
    """

    def __init__(
        self, read: Callable[[], Sequence[EventInfo]], expected: Sequence[DatasetInput]
    ) -> None:
        self._read = read
        self._expected = [each.uri for each in expected if not each.pattern]
        self._patterns = [each.uri for each in expected if each.pattern]

    @cached_property
    def all(self) -> list[DatasetEvent]:
        """All of them, in order."""
        return [DatasetEvent.of(each) for each in self._read()]

    @cached_property
    def _lists(self) -> dict[Dataset, list[DatasetEvent]]:
        lists: dict[Dataset, list[DatasetEvent]] = {Dataset(uri): [] for uri in self._expected}
        for event in self.all:
            lists.setdefault(event.dataset, []).append(event)
        return lists

    def __getitem__(self, dataset: "DatasetExpression | str") -> list[DatasetEvent]:
        pattern = isinstance(dataset, DatasetExpression) and dataset.dataset_input.pattern
        uri = (
            dataset.dataset_input.uri if isinstance(dataset, DatasetExpression) else uri_of(dataset)
        )
        if pattern:
            return [event for event in self.all if matches(uri, event.dataset.uri)]
        found = self._lists.get(Dataset(uri))
        if found is not None:
            return found
        if any(matches(one, uri) for one in self._patterns):
            return []
        # An empty list would hide a misspelt dataset.
        known = ", ".join([*map(str, self._lists), *self._patterns]) or "none"
        raise KeyError(f"this run consumed no events of {uri!r}; its datasets: {known}")

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)


class DataSource(ResultSource, Protocol):
    """What a task reads of its DAG and of the store.

    Attributes:
        dag: The DAG as its file makes it.
    """

    dag: Any

    def connection(self, name: str) -> Connection:
        """Return a connection with its secrets."""

    def variable(self, name: str) -> Variable | None:
        """Return a variable; None if it is not set."""

    def state(self, name: str) -> StateValue:
        """Return a value of the DAG's state, as it is stored."""

    def previous_success(self) -> PreviousRun | None:
        """Return the last run before this one that has succeeded."""

    def answer(self, question: TaskQuestion) -> Any:
        """Return the answer to a question of a task of Airflow's."""

    def forget_variable(self, name: str) -> None:
        """Read a variable anew at its next use."""


class Context(WaitMethods, ResultMethods):
    """The context of a running task; a parameter `ctx: Context` of its function gets it.

    Attributes:
        run: The run: `run_id, dag_id, kind, params, logical_time, partition, cause`.
        task: The task: `task_id, map_index`.
        attempt: Counted from 1.
        events: Dataset → the events that this run consumed.
        log: Writes to the attempt's log: `ctx.log.info("loaded", rows=42)`.
        follow: Of a branch whose value is something else: the tasks that follow it.
        length: The number of elements of its value, where that is not to be seen.
        trace: The distributed trace to which the task belongs, as HTTP headers: `traceparent` and
            perhaps `tracestate`; empty without one.
    """

    _data: DataSource
    length: int | None = None

    def __init__(
        self,
        *,
        run: CurrentRun,
        task: TaskInfo,
        attempt: int,
        events: ConsumedEvents,
        data: DataSource,
        write_log: WriteLog,
        publisher: EventPublisher,
        start_run: Callable[[WantedRun], Awaitable[str]] | None = None,
        journal: Journal | None = None,
        trigger_event: Any = None,
        trace: str | None = None,
    ) -> None:
        self.run = run
        self.trace = {} if trace is None else trace_headers(trace)
        self.task = task
        self.attempt = attempt
        self.events = events
        self.log = TaskLogger(write_log)
        self.emitted: list[EmittedEvent] = []
        self.rendered: dict[str, str] = {}
        self.follow: tuple[str, ...] | None = None
        self.read_elements: Callable[[], dict[str, Any]] = dict
        self._state: DagState | None = None
        self._data = data
        self._publisher = publisher
        self._start_run = start_run
        self._started_runs = 0
        self._journal = journal
        self._trigger_event = trigger_event

    @property
    def element(self) -> dict[str, Any]:
        """Argument → the element that this instance of a mapped task, or its group, is mapped to.

        Empty for a task that is not mapped.
        """
        return self.read_elements()

    @property
    def published(self) -> tuple[str, ...]:
        """URIs of which it has published events."""
        return self._publisher.uris

    def now(self) -> datetime:
        """Return the time, in UTC; in a test that of its clock."""
        return datetime.fromtimestamp(self._publisher.now(), UTC)

    def emit(
        self,
        dataset: Dataset | str,
        *,
        extra: Mapping[str, Any] | None = None,
        partition: str | None = None,
    ) -> None:
        """Emit an event of an outlet; it takes effect exactly once, when the task succeeds.

        Args:
            dataset: One of the task's outlets.
            extra: A JSON object of the event.
            partition: The part of the dataset that was updated.

        Raises:
            DefinitionError: It is not an outlet of the task, or `extra` is not a JSON object.
        """
        self._refuse_in_step("emit")
        self.emitted.append(self._emitted_event(dataset, extra, partition))

    async def publish(
        self,
        dataset: Dataset | str,
        *,
        extra: Mapping[str, Any] | None = None,
        partition: str | None = None,
        time: datetime | None = None,
        key: str | None = None,
    ) -> None:
        """Publish an event of an outlet at once, for a task that streams.

        It is durable on return and stays whether or not the task succeeds. A further attempt does
        not duplicate it: without a `key`, the first event that an attempt publishes counts as the
        same as the first of the attempt before, and so on.

        Args:
            dataset: One of the task's outlets.
            extra: A JSON object of the event.
            partition: The part of the dataset that was updated.
            time: When it happened, with a zone; now when left out.
            key: Identifies the event among those of the task, for a task that continues where the
                attempt before stopped; for example an offset.

        Raises:
            DefinitionError: It is not an outlet of the task, or another argument is invalid.
            Unavailable: The bus refuses it.
        """
        self._refuse_in_step("publish")
        await self._publisher.apublish(self._emitted_event(dataset, extra, partition), time, key)

    def publish_now(
        self,
        dataset: Dataset | str,
        *,
        extra: Mapping[str, Any] | None = None,
        partition: str | None = None,
        time: datetime | None = None,
        key: str | None = None,
    ) -> None:
        """Do what `publish` does, in a task that is a plain `def`."""
        self._refuse_in_step("publish_now")
        self._publisher.publish(self._emitted_event(dataset, extra, partition), time, key)

    def _emitted_event(
        self, dataset: Dataset | str, extra: Mapping[str, Any] | None, partition: str | None
    ) -> EmittedEvent:
        uri = uri_of(dataset)
        if not self.task.may_emit(uri):
            declared = ", ".join((*self.task.outlets, *self.task.outlet_patterns)) or "none"
            self._refuse(
                f"{uri!r} is not an outlet of this task (declared: {declared}); "
                "add it: @task(outlets=[…])"
            )
        if partition is not None and not isinstance(partition, str):
            self._refuse(f"a partition must be a string, not {partition!r}")
        if partition is not None and partition.encode(errors="ignore").decode() != partition:
            self._refuse(f"partition {partition!r} cannot be encoded as UTF-8")
        return EmittedEvent(uri, json_object(extra, "extra"), partition)

    @property
    def state(self) -> DagState:
        """Small values that the DAG keeps from run to run, by dataset or name.

        `ctx.state["watermark"] = 42` takes effect when the task succeeds; `ctx.state.get(name,
        default)` reads.
        """
        if self._state is None:
            self._state = DagState(self._data.state, lambda: self._refuse_in_step("state"))
        return self._state

    @property
    def state_changes(self) -> tuple[StateChange, ...]:
        """The changes of the state that this attempt has made."""
        return () if self._state is None else self._state.changes()

    @property
    def dag(self) -> Any:
        """The DAG as its file makes it."""
        return self._data.dag

    @property
    def previous_success(self) -> PreviousRun | None:
        """The last run of the DAG before this one that has succeeded; None without one."""
        return self._data.previous_success()

    def connection(self, name: str) -> Connection:
        """Return a connection with its secrets, as it is now; the task's log masks them.

        Raises:
            ConfigError: The connection does not exist, or its secrets cannot be decrypted.
            Unavailable: No manager answers.
            LeaseLost: The task belongs to another worker.
        """
        return self._data.connection(name)

    def variable(self, name: str, default: Any = NO_DEFAULT) -> Any:
        """Return the value of a variable, as it is at its first use in this attempt.

        Args:
            name: Its name.
            default: Returned when it is not set.

        Raises:
            NotFound: No value is set, and none is given as the default.
            Unavailable: No manager answers.
            LeaseLost: The task belongs to another worker.
        """
        found = self._data.variable(name)
        if found is not None:
            return found.value
        if default is NO_DEFAULT:
            raise NotFound("variable", name, f"set it with `pubsubflow variables set {name}`")
        return default

    async def start_run(
        self,
        dag_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        logical_time: datetime | None = None,
        partition: str | None = None,
        run_key: str | None = None,
    ) -> str:
        """Start a run of a DAG, and return its id; for `async def` tasks.

        An attempt that is run again, since its worker died, starts no second one: without a
        `run_key`, the first run that it starts counts as the same, and so on.

        Args:
            dag_id: The DAG.
            params: Of the run.
            logical_time: Of the run, with a zone.
            partition: Of the run.
            run_key: If the DAG has a run of this key, that one is returned.

        Raises:
            ConfigError: The DAG does not exist, or refuses the params.
            Unavailable: No manager answers.
            LeaseLost: The task belongs to another worker.
        """
        if self._start_run is None:
            self._refuse("ctx.start_run() works in `async def` tasks")
        if logical_time is not None and logical_time.tzinfo is None:
            self._refuse(f"logical_time needs a time zone: {logical_time} has none")
        self._started_runs += 1
        address = (self.task.node, self.task.map_index, self.attempt, self._started_runs)
        key = run_key or f"task:{self.run.run_id}.{'.'.join(map(str, address))}"
        given = json_object(params, "params")
        return await self._start_run(WantedRun(dag_id, given, logical_time, partition, key))

    def progress(self, done: float, total: float | None = None) -> None:
        """Log the progress of the work, in any unit."""
        self.log.info("progress", done=done, total=total)

    def _refuse_in_step(self, method: str) -> None:
        """Refuse a call inside of a step, or after the attempt's end."""
        # A replay skips the step's function, and would skip the call with it.
        if IN_STEP.get():
            self._refuse(f"ctx.{method}() is inside of a step; move it after that step")
        if self._journal is not None:
            self._journal.check_open()

    def _refuse(self, message: str) -> NoReturn:
        raise definition_error(message, dag_id=self.run.dag_id, task_id=self.task.task_id)


CURRENT_CONTEXT: ContextVar[Context | None] = ContextVar("pubsubflow_context", default=None)
"""The context of the task that runs in this thread or coroutine."""


def current_context() -> Context:
    """Return the context of the running task.

    Raises:
        DefinitionError: No task runs in this thread or coroutine.
    """
    context = CURRENT_CONTEXT.get()
    if context is None:
        raise definition_error("current_context() works while a task runs, not while a file loads")
    return context

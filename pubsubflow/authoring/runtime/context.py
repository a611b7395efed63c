"""What a running task may know and do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote

from msgspec import Struct

from pubsubflow.authoring.datasets import Dataset, json_object, uri_of
from pubsubflow.authoring.runtime.logger import TaskLogger, WriteLog
from pubsubflow.authoring.runtime.waiting import IN_STEP, Waits
from pubsubflow.authoring.schedules.dataset_expressions import Source
from pubsubflow.authoring.source_location import mistake, nearest
from pubsubflow.model.connections import Connection
from pubsubflow.model.datasets import matches
from pubsubflow.model.schedule.conditions import Input
from pubsubflow.model.traces import carried
from pubsubflow.model.wire.messages import Emit, EventInfo, PublishedEvent, Step, TaskError

if TYPE_CHECKING:
    from pubsubflow.authoring.runtime.journal import Journal

DatasetEvent = EventInfo
MAX_KEY_CHARACTERS = 100


class Host(Protocol):
    """The process that runs a task, as the task's context sees it; all calls may block."""

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add one line to the attempt's log."""

    def fetch_result(self, node: int) -> bytes:
        """Return the encoded result of a node; of a mapped one the list of its results."""

    def fetch_events(self) -> Sequence[EventInfo]:
        """Return the events that the run consumed."""

    def fetch_connection(self, name: str) -> Connection:
        """Return a connection with its secrets, and keep these out of the logs."""

    def publish(self, event: PublishedEvent) -> None:
        """Hand over an event and return when it is stored."""

    async def apublish(self, event: PublishedEvent) -> None:
        """Do the same without blocking the tasks beside it."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    async def record(self, step: Step) -> Step:
        """Record a step; see `journal.Recorder`."""

    def describe(self, error: Exception) -> TaskError:
        """Say why a step failed."""


class Run(Struct, frozen=True):
    """The run that a task belongs to.

    Attributes:
        kind: `dataset`, `cron`, `manual`.
        params: A dict, or the Struct that the DAG declared.
        logical_time: The tick, for a run by time.
        cause: One line: why this run exists.
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


class Events(Mapping["Source | str", list[EventInfo]]):
    """The events that the run consumed, by dataset or URI; read when first asked for.

    A dataset of the DAG's schedule that had no event gives an empty list, and so does
    `Dataset.match(…)`, which gives the events of all datasets that match.
    """

    def __init__(self, read: Callable[[], Sequence[EventInfo]], expected: Sequence[Input]) -> None:
        self._read = read
        self._expected = [place.uri for place in expected if not place.pattern]
        self._patterns = [place.uri for place in expected if place.pattern]

    @cached_property
    def all(self) -> list[EventInfo]:
        """All of them, in order."""
        return list(self._read())

    @cached_property
    def _lists(self) -> dict[str, list[EventInfo]]:
        lists: dict[str, list[EventInfo]] = {uri: [] for uri in self._expected}
        for event in self.all:
            lists.setdefault(event.dataset, []).append(event)
        return lists

    def __getitem__(self, dataset: "Source | str") -> list[EventInfo]:
        pattern = isinstance(dataset, Source) and dataset.place.pattern
        uri = dataset.place.uri if isinstance(dataset, Source) else uri_of(dataset)
        if pattern:
            return [event for event in self.all if matches(uri, event.dataset)]
        if uri in self._lists:
            return self._lists[uri]
        if any(matches(one, uri) for one in self._patterns):
            return []
        known = ", ".join([*self._lists, *self._patterns]) or "none"
        raise KeyError(f"this run consumed no events of {uri!r}; its datasets: {known}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)


class Publisher:
    """Numbers the events that one attempt publishes, and hands them over.

    Args:
        host: The process that runs the task.
        run: The run's number.
        node: The task's.
        map_index: Number of this instance.
        life: Grows when tasks of the run are cleared: what they publish then is new.
        trace: The context in which the task runs.
    """

    def __init__(
        self,
        host: Host,
        run: int,
        node: int,
        map_index: int,
        life: int = 0,
        trace: str | None = None,
    ) -> None:
        self._host = host
        self._trace = trace
        self._address = (run, node, map_index)
        self._life = f"l{life}." if life else ""
        self._count = 0
        self._uris: dict[str, None] = {}

    @property
    def uris(self) -> tuple[str, ...]:
        """What it has published events of."""
        return tuple(self._uris)

    def publish(self, news: Emit, time: datetime | None, key: str | None) -> None:
        """Publish and block until it is stored."""
        self._host.publish(self._event(news, time, key))
        self._uris[news.uri] = None

    async def apublish(self, news: Emit, time: datetime | None, key: str | None) -> None:
        """Publish and wait until it is stored."""
        await self._host.apublish(self._event(news, time, key))
        self._uris[news.uri] = None

    def _event(self, news: Emit, time: datetime | None, key: str | None) -> PublishedEvent:
        if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
            raise mistake(f"time must be a datetime with a zone, not {time!r}")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARACTERS):
            raise mistake(
                f"key must be a text of 1 to {MAX_KEY_CHARACTERS} characters, not {key!r}"
            )
        name = str(self._count) if key is None else f"k{quote(key, safe='')}"
        self._count += 1
        address = ".".join(map(str, self._address))
        return PublishedEvent(
            *self._address,
            f"{address}.{self._life}{name}",
            news.uri,
            news.extra,
            news.partition,
            time,
            self._trace,
        )


class Context(Waits):
    """What a running task may know and do; ask for it with `ctx: Context`.

    Attributes:
        run: The run: `run_id, dag_id, kind, params, logical_time, partition, cause`.
        task: The task: `task_id, map_index`.
        attempt: Counted from 1.
        events: Dataset → the events that this run consumed.
        log: Writes to the attempt's log: `ctx.log.info("loaded", rows=42)`.
        trace: The distributed trace to which the task belongs, as HTTP headers: `traceparent` and
            perhaps `tracestate`; empty without one.
    """

    def __init__(
        self,
        *,
        run: Run,
        task: TaskInfo,
        attempt: int,
        events: Events,
        result: Callable[[str], Any],
        connection: Callable[[str], Connection],
        write_log: WriteLog,
        publisher: Publisher,
        journal: "Journal | None" = None,
        trigger_event: Any = None,
        trace: str | None = None,
    ) -> None:
        self.run = run
        self.trace = carried(trace)
        self.task = task
        self.attempt = attempt
        self.events = events
        self.log = TaskLogger(write_log)
        self.emitted: list[Emit] = []
        self._result = result
        self._connection = connection
        self._publisher = publisher
        self._journal = journal
        self._trigger_event = trigger_event

    @property
    def published(self) -> tuple[str, ...]:
        """URIs of which it has published events."""
        return self._publisher.uris

    def emit(
        self,
        dataset: Dataset | str,
        *,
        extra: Mapping[str, Any] | None = None,
        partition: str | None = None,
    ) -> None:
        """Report news of an outlet; takes effect exactly once, when the task succeeds.

        Args:
            dataset: One of the task's outlets.
            extra: A JSON object that travels with the event.
            partition: The part of the dataset that is new.

        Raises:
            DefinitionError: It is no outlet of the task, or `extra` is no JSON object.
        """
        self._refuse_in_step("emit")
        self.emitted.append(self._news(dataset, extra, partition))

    async def publish(
        self,
        dataset: Dataset | str,
        *,
        extra: Mapping[str, Any] | None = None,
        partition: str | None = None,
        time: datetime | None = None,
        key: str | None = None,
    ) -> None:
        """Publish news of an outlet at once, whatever becomes of the task; for one that streams.

        It is durable on return. A further attempt of the task does not double it: the first event
        that it publishes is taken for the first of the attempt before, and so on, unless `key`
        tells which is which.

        Args:
            dataset: One of the task's outlets.
            extra: A JSON object that travels with the event.
            partition: The part of the dataset that is new.
            time: When it happened, with a zone; now when left out.
            key: Identifies the event among those of the task, for one that goes on where the
                attempt before stopped; for example an offset.

        Raises:
            DefinitionError: It is no outlet of the task, or another argument is bad.
            Unavailable: The bus refuses it.
        """
        self._refuse_in_step("publish")
        await self._publisher.apublish(self._news(dataset, extra, partition), time, key)

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
        self._publisher.publish(self._news(dataset, extra, partition), time, key)

    def _news(
        self, dataset: Dataset | str, extra: Mapping[str, Any] | None, partition: str | None
    ) -> Emit:
        uri = uri_of(dataset)
        if not self.task.may_emit(uri):
            declared = ", ".join((*self.task.outlets, *self.task.outlet_patterns)) or "none"
            self._refuse(
                f"{uri!r} is not an outlet of this task (declared: {declared}); "
                "add it: @task(outlets=[…])"
            )
        if partition is not None and not isinstance(partition, str):
            self._refuse(f"a partition must be a text, not {partition!r}")
        return Emit(uri, json_object(extra, "extra"), partition)

    def result(self, task_id: str) -> Any:
        """Return the result of a task that this one comes after.

        Raises:
            DefinitionError: There is no such task before this one.
        """
        return self._result(task_id)

    def connection(self, name: str) -> Connection:
        """Return a connection with its secrets, as it is now; the task's log masks them.

        Raises:
            ConfigError: There is no such connection, or its secrets cannot be decrypted.
            Unavailable: No manager answers.
            LeaseLost: The task is somebody else's by now.
        """
        return self._connection(name)

    def progress(self, done: float, total: float | None = None) -> None:
        """Tell how far the work is, in any unit."""
        self.log.info("progress", done=done, total=total)

    def _refuse_in_step(self, method: str) -> None:
        """Refuse what a step may not do, as it is not done again, and what comes after the end."""
        if IN_STEP.get():
            self._refuse(f"ctx.{method}() stands inside of a step; put it after that")
        if self._journal is not None:
            self._journal.check_open()

    def _refuse(self, message: str) -> NoReturn:
        raise mistake(message, dag_id=self.run.dag_id, task_id=self.task.task_id)


_CURRENT: ContextVar[Context | None] = ContextVar("pubsubflow_context", default=None)


def current_context() -> Context:
    """Return the context of the task that runs here.

    Raises:
        DefinitionError: No task runs here.
    """
    context = _CURRENT.get()
    if context is None:
        raise mistake("current_context() works while a task runs, not while a file loads")
    return context


def use_context(context: Context | None) -> None:
    """Make a context the current one of this thread or coroutine."""
    _CURRENT.set(context)


def no_such_task(task_id: str, known: Sequence[str], context: Context) -> Exception:
    """Return the error for a result that cannot be asked for."""
    hint = nearest(task_id, known) if known else "; it has none"
    return mistake(
        f"ctx.result({task_id!r}): no such task comes before this one{hint}",
        dag_id=context.run.dag_id,
        task_id=context.task.task_id,
    )

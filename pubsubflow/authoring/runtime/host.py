"""Host of a running task: the process that runs it, and the publisher of its events."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.model.connections import Connection
from pubsubflow.model.runs.fences import clear_number_of
from pubsubflow.model.values.state import StateValue
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import (
    EmittedEvent,
    EventInfo,
    JournalEntry,
    PublishedEvent,
    TaskError,
)
from pubsubflow.model.wire.outputs import PulledValues
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.model.wire.worker_requests import PreviousRun, PullRequest, WantedRun

MAX_KEY_CHARACTERS = 100


class TaskHost(Protocol):
    """The process that runs a task, as the task's context uses it; all calls may block."""

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add one line to the attempt's log."""

    def fetch_result(self, node: int) -> bytes:
        """Return the encoded result of a node; of a mapped one the list of its results."""

    def fetch_element(self, node: int, index: int) -> bytes:
        """Return one encoded element of the result of a node that a task is mapped over."""

    def fetch_pulled(self, request: PullRequest) -> PulledValues:
        """Return what a task has left under a key."""

    def fetch_events(self) -> Sequence[EventInfo]:
        """Return the events that the run consumed."""

    def fetch_connection(self, name: str) -> Connection:
        """Return a connection with its secrets, and mask these in the logs."""

    def fetch_variable(self, name: str) -> Variable:
        """Return a variable, and mask a secret one in the logs.

        Raises:
            NotFound: It does not exist.
        """

    def fetch_state(self, name: str) -> StateValue:
        """Return a value of the DAG's state."""

    def fetch_previous_success(self) -> PreviousRun | None:
        """Return the last run before this one that has succeeded."""

    def fetch_answer(self, question: TaskQuestion) -> Any:
        """Return the answer to a question of a task of Airflow's.

        Raises:
            ConfigError: It is refused.
        """

    def publish(self, event: PublishedEvent) -> None:
        """Publish an event and return when it is stored."""

    async def apublish(self, event: PublishedEvent) -> None:
        """Do the same without blocking other tasks of the event loop."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    async def start_run(self, wanted: WantedRun) -> str:
        """Start a run on behalf of the task, once an attempt and key, and return its id."""

    async def record(self, entry: JournalEntry) -> JournalEntry:
        """Record a step; see `journal.JournalStore`."""

    def describe(self, error: Exception) -> TaskError:
        """Return the error of a step that failed."""


class EventPublisher:
    """Publishes the events of one attempt, each under a key that another attempt repeats.

    Args:
        host: The process that runs the task.
        run: The run's number.
        node: The task's.
        map_index: Number of this instance.
        delivery: The attempt's; a task that was cleared before it publishes new events.
        trace: The trace context in which the task runs.
    """

    def __init__(
        self,
        host: TaskHost,
        run: int,
        node: int,
        map_index: int,
        delivery: int = 1,
        trace: str | None = None,
    ) -> None:
        self._host = host
        self._trace = trace
        self._address = (run, node, map_index)
        self._delivery = delivery
        cleared = clear_number_of(delivery)
        self._cleared = f"c{cleared}." if cleared else ""
        self._count = 0
        self._uris: dict[str, None] = {}

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._host.now()

    @property
    def uris(self) -> tuple[str, ...]:
        """URIs of the datasets that it has published events of."""
        return tuple(self._uris)

    def publish(self, event: EmittedEvent, time: datetime | None, key: str | None) -> None:
        """Publish and block until it is stored."""
        self._host.publish(self._published(event, time, key))
        self._uris[event.uri] = None

    async def apublish(self, event: EmittedEvent, time: datetime | None, key: str | None) -> None:
        """Publish and wait until it is stored."""
        await self._host.apublish(self._published(event, time, key))
        self._uris[event.uri] = None

    def _published(
        self, event: EmittedEvent, time: datetime | None, key: str | None
    ) -> PublishedEvent:
        if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
            raise definition_error(f"time must be a datetime with a zone, not {time!r}")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARACTERS):
            raise definition_error(
                f"key must be a string of 1 to {MAX_KEY_CHARACTERS} characters, not {key!r}"
            )
        # A counted name and a given key never meet: the latter begins with k.
        name = str(self._count) if key is None else f"k{quote(key, safe='')}"
        self._count += 1
        address = ".".join(map(str, self._address))
        return PublishedEvent(
            *self._address,
            f"{address}.{self._cleared}{name}",
            event.uri,
            event.extra,
            event.partition,
            time,
            self._trace,
            self._delivery,
        )

"""Triggers: the base class, their context, and the events that they yield."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.task_questions import TaskQuestion


class TriggerEvent(Struct, frozen=True):
    """An event of a trigger.

    Attributes:
        payload: JSON value that the waiting task gets. For a watched dataset an object is the
            event's `extra`; any other value becomes `{"value": …}`.
        id: Identity of the event, if it has one: the same id is the same event.
        partition: For a watched dataset, the event's partition.
        time: For a watched dataset, when it happened, with a zone; None for now.
        position: For a watched dataset, the position from which to continue after a restart, as a
            JSON value: it is stored together with the event and comes back as
            `TriggerContext.position`.
        acknowledge: Called once the event is durable, for sources with acknowledgements. After a
            crash it may not be called: the source then sends the event again, under the same `id`.
        rejected: Why no event can be made of it. For a watched dataset it becomes a dead letter,
            with its payload, once, and the watch goes on; a task that waits does not see it.
    """

    payload: Any = None
    id: str | None = None
    partition: str | None = None
    time: datetime | None = None
    position: Any = None
    acknowledge: Callable[[], Awaitable[None]] | None = None
    rejected: str | None = None


class TriggerContext(Protocol):
    """The context of a running trigger."""

    @property
    def position(self) -> Any:
        """The last stored position of a watched dataset; None at its first start."""

    @property
    def started_at(self) -> datetime:
        """When the wait began, with a zone; the same after a restart."""

    def now(self) -> datetime:
        """Return the time, with a zone."""

    async def sleep_until(self, moment: datetime) -> None:
        """Return at `moment`; one heap of timers serves all triggers."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; in the same heap."""

    async def connection(self, name: str) -> Connection:
        """Return a connection with its secrets, as it is now.

        Raises:
            TriggerError: Its name is unknown, or its secrets cannot be decrypted.
        """

    def trouble(self, error: str | None) -> None:
        """Show why the trigger cannot see its source; None once it can.

        It goes on trying: lists show the error and since when, and the log has one warning.
        """

    def log(self, event: str, **fields: Any) -> None:
        """Write a line to the daemon's log, with the trigger's name and number."""


@runtime_checkable
class AnswersQuestions(Protocol):
    """A context that answers triggers of Airflow's, too; that of a test does not."""

    async def answer(self, question: TaskQuestion) -> Any:
        """Return the answer to a question that changes nothing.

        Raises:
            TriggerError: It is refused.
        """


class Trigger(Struct, frozen=True, kw_only=True):
    """Base of all triggers; the fields of a subclass are its serialised form.

    Subclasses implement `run`. It may be started again at any time, also in another process, and
    must then yield the events that it has not yielded. A subclass is found by its entry point in
    the group `pubsubflow.triggers`, whose name is stored with every wait: never change it.
    """

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield an event each time it fires; a waiting task takes the first.

        Raises:
            TriggerError: It can never fire; the waiting task fails with this message.
        """
        raise NotImplementedError(f"{type(self).__name__} needs `async def run(self, ctx)`")

    async def cancelled(self, ctx: TriggerContext) -> None:
        """Clean up after a user cancelled the wait; not called on a restart."""

    def share_key(self) -> str | None:
        """Return a key under which equal triggers share one poll, or None."""
        return None

    def timer(self) -> datetime | timedelta | None:
        """Return when it fires, if it waits for time alone; None for all others.

        A moment, or a time counted from the start of the wait. Such a wait is a stored timer, and
        `run` is never called for it.
        """
        return None


RUN_ENDED = "pubsubflow.RunEnded"
"""The name of the trigger `RunEnded`."""


class RunEnded(Trigger, frozen=True, kw_only=True):
    """Fires when a run of this installation has ended, or a task of it; at once if it has.

    No process of user code is used for it, and nothing is polled: a change of the store wakes the
    triggerer.

    Attributes:
        run_id: The run; None for the first one that matches what follows.
        dag_id: Runs of this DAG.
        task_id: Only until this task of the run has ended.
        logical_time: The run of this tick.
        partition: Runs of this partition.
        since: Runs made then or later.
        states: End states that count; all if there are none.
    """

    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    logical_time: datetime | None = None
    partition: str | None = None
    since: datetime | None = None
    states: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise DefinitionError for a wait that names no run."""
        if (self.run_id is None) == (self.dag_id is None):
            raise DefinitionError("RunEnded needs run_id= or dag_id=, and not both")
        if self.dag_id is not None and self.logical_time is None and self.since is None:
            raise DefinitionError("RunEnded with dag_id= needs logical_time= or since=")
        for name in ("logical_time", "since"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise DefinitionError(f"RunEnded: {name} needs a time zone: {moment} has none")

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:  # noqa: ARG002
        """Fail: only a triggerer knows of other runs.

        Raises:
            TriggerError: Always.
        """
        raise TriggerError(
            "a test knows of no other runs: give it the task's result, test(results={…})"
        )


class EndedRun(Struct, frozen=True):
    """A run that has ended, or whose task has: the payload of `RunEnded`.

    Attributes:
        state: Of the task, if the wait names one; else of the run.
        error: Why the run ended, if it says so.
    """

    run_id: str
    dag_id: str
    state: str
    logical_time: datetime | None = None
    partition: str | None = None
    error: str | None = None

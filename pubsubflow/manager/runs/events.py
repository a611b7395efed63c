"""Events of tasks: what a success emits, recorded for the log and for the DAGs that subscribe."""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from pubsubflow.manager.traces import attempt_context
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import RunWork, new_event
from pubsubflow.model.runs.outlets import outlet_events
from pubsubflow.model.wire.messages import EmittedEvent, EventInfo, ResultMessage
from pubsubflow.store.database import printable


class TaskEvents(Struct, frozen=True):
    """Records the events of the tasks of one unit of work.

    Attributes:
        uow: What the transaction changes.
        new_id: Gives ids to events.
    """

    uow: UnitOfWork
    new_id: Callable[[], str]

    def emit(self, run: RunWork, message: ResultMessage, outlets: tuple[str, ...]) -> None:
        """Record a success's events: what it emitted, and one for each other outlet."""
        events = outlet_events(
            outlets, message.emits, follow=message.follow, published=message.published
        )
        for event in events:
            self.record(run, event, message.node, message.map_index, message)

    def record(
        self,
        run: RunWork,
        emitted: EmittedEvent,
        node: int,
        map_index: int,
        message: ResultMessage | None = None,
    ) -> None:
        """Record an event of a task, for the log and the DAGs that subscribe to it."""
        spec = run.version.spec
        info = EventInfo(
            self.new_id(),
            emitted.uri,
            emitted.extra,
            None if emitted.partition is None else printable(emitted.partition),
            self.uow.now,
            "task",
            run.info.run_id,
            spec.dag_id,
            spec.tasks[node].task_id,
            attempt_context(run.info, message),
        )
        self.uow.log.undecided.append(
            new_event(
                info,
                (run.id, node, map_index),
                now=self.uow.now,
                ancestry=(*run.info.ancestry, run.version.dag),
                accepted_at=self.uow.now if message is None else moment_of(message.ended_at),
            )
        )


def moment_of(seconds: float) -> datetime:
    """Return the moment so many seconds after 1970."""
    return datetime.fromtimestamp(seconds, UTC)

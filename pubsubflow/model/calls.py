"""What the inside of a daemon asks of the manager; the answers come after the commit."""

from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.messages import NewEvent


class Timer(Struct, frozen=True, array_like=True):
    """A timer as it is stored.

    Attributes:
        kind: `retry`, `tick`, `run_timeout`.
        number: The row's id; 0 for one that is not stored yet.
    """

    due_at: datetime
    kind: str
    dag: int | None = None
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    attempt: int | None = None
    number: int = 0


class PostEvents(Struct, frozen=True):
    """Record events from outside.

    Attributes:
        keys: Per event the key under which its sender may send it again, or None.
        source: `api`, `cli`, `bus`.
    """

    events: tuple[NewEvent, ...]
    keys: tuple[str | None, ...]
    source: str = "api"


class Recorded(Struct, frozen=True):
    """An event is durable.

    Attributes:
        duplicate: It was already; `event_id` is the first one's.
    """

    event_id: UUID
    duplicate: bool


class StartRun(Struct, frozen=True):
    """Start a run because somebody asks for it.

    Attributes:
        run_key: Asking again under the same key gives the same run.
    """

    dag_id: str
    params: dict[str, Any] | None = None
    logical_time: datetime | None = None
    run_key: str | None = None
    cause: str = "asked for"


class SetPaused(Struct, frozen=True):
    """Pause or unpause a DAG."""

    dag_id: str
    paused: bool


class CancelRun(Struct, frozen=True):
    """End a run and stop its tasks."""

    run_id: UUID
    reason: str = "cancelled"


class TimersDue(Struct, frozen=True):
    """The clock says that timers are due."""

    timers: tuple[Timer, ...]


Call = PostEvents | StartRun | SetPaused | CancelRun | TimersDue


class Calls(Protocol):
    """Whoever carries out calls: the manager of this daemon."""

    async def call(self, call: Call) -> Any:
        """Carry out a call and return its answer once it is durable.

        Returns:
            `list[Recorded]` for PostEvents, one per event; the run id (text) for StartRun; None
            for the others.

        Raises:
            NotFound: There is no such DAG or run.
            InvalidInput: The params do not fit, or the run has ended.
            StoreUnavailable: Postgres is away and the call was not carried out.
        """

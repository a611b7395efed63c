"""The triggers' protocol: what the world must do before a waiting task goes on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec import Struct

from pubsubflow.model.connections import Connection


class TriggerEvent(Struct, frozen=True):
    """Something a trigger saw.

    Attributes:
        payload: JSON value that the waiting task gets. For a watched dataset an object is the
            event's `extra`; any other value becomes `{"value": …}`.
        id: Identity of what was seen, where it has one: the same id is the same event.
        partition: For a watched dataset, the event's partition.
        time: For a watched dataset, when it happened, with a zone; None for now.
        position: For a watched dataset, from where to go on after a restart, as a JSON value: it
            is kept together with the event, and comes back as `TriggerContext.position`.
        acknowledge: Called once the event is durable, for a source that wants to hear so. It may
            not be called, after a crash: the source then tells again, and `id` says it is the same.
    """

    payload: Any = None
    id: str | None = None
    partition: str | None = None
    time: datetime | None = None
    position: Any = None
    acknowledge: Callable[[], Awaitable[None]] | None = None


class TriggerContext(Protocol):
    """What a running trigger may use."""

    @property
    def position(self) -> Any:
        """The last position that was kept for a watched dataset; None at its first start."""

    @property
    def started_at(self) -> datetime:
        """When the wait began, with a zone; the same after a restart."""

    def now(self) -> datetime:
        """Return the time, with a zone."""

    async def sleep_until(self, moment: datetime) -> None:
        """Return at `moment`; kept in the triggerer's one heap of timers."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; kept in the same heap."""

    async def connection(self, name: str) -> Connection:
        """Return a connection with its secrets, as it is now.

        Raises:
            TriggerError: There is none by that name, or its secrets cannot be decrypted.
        """

    def log(self, event: str, **fields: Any) -> None:
        """Write a line to the daemon's log, with the trigger's name and number."""


class Trigger(Struct, frozen=True, kw_only=True):
    """Base of all triggers; the fields of a subclass are its serialised form.

    Subclasses write `run`. It may be started again at any time, also in another process, and must
    then see what it had not reported. A subclass is found by its entry point in the group
    `pubsubflow.triggers`, whose name is stored with every wait: keep it.
    """

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield an event each time it fires; a waiting task takes the first.

        Raises:
            TriggerError: It can never fire; the waiting task fails with this text.
        """
        raise NotImplementedError(f"{type(self).__name__} needs `async def run(self, ctx)`")

    async def cancelled(self, ctx: TriggerContext) -> None:
        """Clean up after a user cancelled the wait; not called on a restart."""

    def share_key(self) -> str | None:
        """Return a key under which equal triggers share one poll, or None."""
        return None

    def timer(self) -> datetime | timedelta | None:
        """Return when it fires, for one that waits for time alone; None for all others.

        A moment, or a time counted from the start of the wait. Such a wait is a timer of the
        clock and `run` is never called for it.
        """
        return None

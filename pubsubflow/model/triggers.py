"""The triggers' protocol: what the world must do before a waiting task goes on."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct


class TriggerEvent(Struct, frozen=True):
    """Something a trigger saw.

    Attributes:
        payload: JSON value that the waiting task gets.
        id: Identity of what was seen, where it has one: the same id is the same event.
    """

    payload: Any = None
    id: str | None = None


class TriggerContext(Protocol):
    """What a running trigger may use."""

    def now(self) -> datetime:
        """Return the time, with a zone."""

    async def sleep_until(self, moment: datetime) -> None:
        """Return at `moment`; kept in the triggerer's one heap of timers."""


class Trigger(Struct, frozen=True, kw_only=True):
    """Base of all triggers; the fields of a subclass are its serialised form.

    Subclasses write `run`. It may be started again at any time, also in another process, and must
    then see what it had not reported.
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

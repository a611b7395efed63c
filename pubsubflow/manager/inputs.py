"""What the manager folds: messages from the bus and calls from inside the daemon."""

from collections.abc import Callable
from typing import Any

from pubsubflow.model.calls import Call
from pubsubflow.model.messages import (
    GoneMessage,
    LogMessage,
    ResultMessage,
    StartedMessage,
)

Message = ResultMessage | StartedMessage | LogMessage | GoneMessage


class Item:
    """One thing to fold, and whom to tell.

    Attributes:
        what: The message or the call; an exception when the bytes say nothing.
        subject: Where it came from, for the dead letters.
        payload: Its bytes, likewise.
        done: Called after the commit with the answer.
        failed: Called when it cannot be folded; the error is the sender's.
        later: Called when it came too early and must be delivered again.
    """

    __slots__ = (
        "answer",
        "done",
        "error",
        "failed",
        "later",
        "payload",
        "postponed",
        "subject",
        "what",
    )

    def __init__(
        self,
        what: Call | Message | Exception,
        *,
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        later: Callable[[], None] | None = None,
        subject: str = "",
        payload: bytes = b"",
    ) -> None:
        self.what = what
        self.done = done
        self.failed = failed
        self.later = later
        self.subject = subject
        self.payload = payload
        self.reset()

    def reset(self) -> None:
        """Forget what a transaction that was rolled back had answered."""
        self.answer: Any = None
        self.error: Exception | None = None
        self.postponed = False

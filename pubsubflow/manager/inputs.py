"""What the manager folds: messages from the bus and calls from inside the daemon."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from pubsubflow.errors import InvalidInput
from pubsubflow.model.calls import Call
from pubsubflow.model.messages import (
    GoneMessage,
    LogMessage,
    ResultMessage,
    StartedMessage,
)

MAX_KEY_CHARACTERS = 500
OWN_KEYS = ("dataset:", "partition:", "tick:", "late:")
Message = ResultMessage | StartedMessage | LogMessage | GoneMessage


class Item:
    """One thing to fold, and whom to tell.

    Attributes:
        what: The message or the call; an exception when the bytes say nothing.
        subject: Where it came from, for the dead letters; empty for what did not come by bus.
        payload: Its bytes, likewise.
        done: Called after the commit with the answer.
        failed: Called when it cannot be folded; the error is the sender's.
        later: Called when it came too early and must be delivered again.
        tried: A transaction with it broke, and may have committed all the same.
        ids: What it makes gets these, in every transaction that tries: so a second can tell.
    """

    __slots__ = (
        "answer",
        "done",
        "error",
        "failed",
        "ids",
        "later",
        "payload",
        "postponed",
        "subject",
        "tried",
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
        self.tried = False
        self.ids: list[UUID] = []
        self.reset()

    def reset(self) -> None:
        """Forget what a transaction that was rolled back had answered."""
        self.answer: Any = None
        self.error: Exception | None = None
        self.postponed = False


def check_key(key: str | None) -> None:
    """Check a key that a caller chose.

    Raises:
        InvalidInput: It is too long for an index, or holds NUL.
    """
    if key is not None and (len(key) > MAX_KEY_CHARACTERS or "\x00" in key):
        raise InvalidInput(
            f"the key {key[:40]!r}… must have at most {MAX_KEY_CHARACTERS} characters and no NUL"
        )


def check_run_key(key: str | None) -> None:
    """Check the key that a caller chose for a run.

    Raises:
        InvalidInput: It cannot be a key, or looks like one that a schedule gives.
    """
    check_key(key)
    if key is not None and key.startswith(OWN_KEYS):
        raise InvalidInput(f"the key {key[:40]!r} begins like those that schedules give")

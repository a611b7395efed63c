"""Handlers of messages: their declaration, and their requests to the client."""

from collections.abc import Callable
from typing import Any

from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.channel import Channel

OK = messages.OKResponse(ok=True)
Handler = Callable[[Any, Any], Any]


class UnsupportedError(RuntimeError):
    """An attempt needs what is not there yet.

    Args:
        what: What is needed.
        remedy: What to write in its place.
    """

    def __init__(self, what: str, remedy: str = "see the table in its docs") -> None:
        super().__init__(f"{what} is not supported by pubsubflow: {remedy}")


def answers(*names: str) -> Callable[[Handler], Handler]:
    """Declare the messages that a method answers."""

    def declare(function: Handler) -> Handler:
        function.messages = names  # type: ignore[attr-defined]
        return function

    return declare


def handlers_of(kind: type) -> dict[str, str]:
    """Return message → name of the method that answers it."""
    found = {name: getattr(getattr(kind, name), "messages", ()) for name in dir(kind)}
    return {message: name for name, messages in found.items() for message in messages}


def absent(kind: Any, **detail: Any) -> Any:
    """Return the answer for what does not exist."""
    return messages.ErrorResponse(error=kind, detail=detail)


def fitting(model: Any, **values: Any) -> Any:
    """Return a model with those of the values that this version of the SDK knows."""
    return model(**{name: each for name, each in values.items() if name in model.model_fields})


class Handlers:
    """Sends requests to the client on the other side of a channel.

    Args:
        channel: To the client; None when there is none, as in tests of a file alone.
    """

    def __init__(self, channel: Channel | None) -> None:
        self._channel = channel

    def request(self, question: str, **arguments: Any) -> Any:
        """Request it of the client; None without one."""
        return None if self._channel is None else self._channel.request(question, **arguments)

    def fact(self, kind: str, **fields: Any) -> Any:
        """Request what only managers know; see `outside.questions`."""
        return self.request("fact", kind=kind, **fields)

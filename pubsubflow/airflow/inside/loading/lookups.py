"""Variables and connections that files read while they are loaded: answered, counted, missed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms, task_runner

_NO_FIELDS = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))


class Values(Protocol):
    """Where variables and connections come from while a file is loaded."""

    def variable(self, key: str) -> str | None:
        """Return what a variable holds; None if there is none."""

    def connection(self, name: str) -> Mapping[str, Any] | None:
        """Return the fields of a connection, as the SDK names them; None if there is none."""


class GivenValues:
    """Values that are known beforehand.

    Args:
        variables: Key → what it holds.
        connections: Name → fields: `conn_type`, `host`, `login`, `password`, `schema`, `port`,
            `extra`.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._variables = variables or {}
        self._connections = connections or {}

    def variable(self, key: str) -> str | None:
        """Return what a variable holds; None if there is none."""
        return self._variables.get(key)

    def connection(self, name: str) -> Mapping[str, Any] | None:
        """Return the fields of a connection; None if there is none."""
        return self._connections.get(name)


class ImportComms:
    """The supervisor's side of the SDK while a file is loaded, which has no task.

    The SDK looks into custom secrets backends and the environment first, and comes here last.

    Args:
        values: Where variables and connections come from; None for `inner`.
        inner: What answered before.
    """

    def __init__(self, values: Values | None, inner: Any = None) -> None:
        self._values = values
        self._inner = inner
        self.variables: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.missing_variables: list[str] = []
        self.missing_connections: list[str] = []

    def __getattr__(self, name: str) -> Any:
        # Of the SDK's own comms: the socket, and what later versions add.
        return getattr(self._inner, name)

    def send(self, message: Any) -> Any:
        """Answer a message of the SDK."""
        answer = self._inner.send(message) if self._values is None else self._answer(message)
        absent = answer is None or isinstance(answer, comms.ErrorResponse)
        if isinstance(message, comms.GetVariable):
            self.variables[message.key] += 1
            self.missing_variables += [message.key] * absent
        elif isinstance(message, comms.GetConnection):
            self.connections[message.conn_id] += 1
            self.missing_connections += [message.conn_id] * absent
        return answer

    async def asend(self, message: Any) -> Any:
        """Answer a message of the SDK."""
        return self.send(message)

    def _answer(self, message: Any) -> Any:
        values = self._values or GivenValues()
        if isinstance(message, comms.MaskSecret):
            return comms.OKResponse(ok=True)
        if isinstance(message, comms.GetVariable):
            value = values.variable(message.key)
            if value is not None:
                return comms.VariableResult(key=message.key, value=value)
            return _absent(ErrorType.VARIABLE_NOT_FOUND, f"Variable {message.key} not found")
        if isinstance(message, comms.GetConnection):
            fields = values.connection(message.conn_id)
            if fields is not None:
                given = {**_NO_FIELDS, **fields, "conn_id": message.conn_id}
                return comms.ConnectionResult(**given)
            return _absent(ErrorType.CONNECTION_NOT_FOUND, f"{message.conn_id} not found")
        name = type(message).__name__
        text = f"{name}: a file can read variables and connections while it is loaded"
        return _absent(ErrorType.GENERIC_ERROR, text)


def _absent(kind: ErrorType, text: str) -> Any:
    return comms.ErrorResponse(error=kind, detail={"message": text})


@contextmanager
def answers_from(values: Values | None) -> Iterator[ImportComms]:
    """Have the SDK's requests of this process answered, and counted; then as before.

    Args:
        values: Where variables and connections come from. If left out, what answers the SDK already
            does, else they are absent.
    """
    before = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if values is None and before is None:
        values = GivenValues()
    task_runner.SUPERVISOR_COMMS = found = ImportComms(values, before)
    try:
        yield found
    finally:
        task_runner.SUPERVISOR_COMMS = before

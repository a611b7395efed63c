"""Variables and connections that files read while they are loaded: answered, counted, missed."""

from collections import Counter
from collections.abc import Mapping
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
        values: Where variables and connections come from.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self.variables: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.missing_variables: list[str] = []
        self.missing_connections: list[str] = []

    def send(self, message: Any) -> Any:
        """Answer a message of the SDK."""
        if isinstance(message, comms.GetVariable):
            return self._variable(message.key)
        if isinstance(message, comms.GetConnection):
            return self._connection(message.conn_id)
        if isinstance(message, comms.MaskSecret):
            return comms.OKResponse(ok=True)
        name = type(message).__name__
        detail = {"message": f"{name}: a file can read variables and connections while it loads"}
        return comms.ErrorResponse(error=ErrorType.GENERIC_ERROR, detail=detail)

    async def asend(self, message: Any) -> Any:
        """Answer a message of the SDK."""
        return self.send(message)

    def _variable(self, key: str) -> Any:
        self.variables[key] += 1
        value = self._values.variable(key)
        if value is not None:
            return comms.VariableResult(key=key, value=value)
        self.missing_variables.append(key)
        return comms.ErrorResponse(
            error=ErrorType.VARIABLE_NOT_FOUND, detail={"message": f"Variable {key} not found"}
        )

    def _connection(self, name: str) -> Any:
        self.connections[name] += 1
        fields = self._values.connection(name)
        if fields is not None:
            return comms.ConnectionResult(**{**_NO_FIELDS, **fields, "conn_id": name})
        self.missing_connections.append(name)
        return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": name})


def answer_with(values: Values) -> ImportComms:
    """Have the SDK's questions of this process answered from some values.

    Args:
        values: Where variables and connections come from.
    """
    found = ImportComms(values)
    task_runner.SUPERVISOR_COMMS = found
    return found

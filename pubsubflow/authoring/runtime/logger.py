"""The logger of one attempt, in the manner of structlog: an event and its fields."""

import traceback
from collections.abc import Mapping
from typing import Any, Protocol


class WriteLog(Protocol):
    """A function that writes one line of the log."""

    def __call__(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write the line."""


class TaskLogger:
    """Write facts to the attempt's log: `log.info("rows.loaded", rows=42)`.

    Positional arguments are put into the event with `%`, as `logging` does.
    """

    def __init__(self, write: WriteLog, fields: Mapping[str, Any] | None = None) -> None:
        self._write = write
        self._fields = dict(fields or {})

    def bind(self, **fields: Any) -> "TaskLogger":
        """Return a logger that adds these fields to every line."""
        return TaskLogger(self._write, self._fields | fields)

    def debug(self, event: str, *args: object, **fields: Any) -> None:
        """Log at level debug."""
        self._log("debug", event, args, fields)

    def info(self, event: str, *args: object, **fields: Any) -> None:
        """Log at level info."""
        self._log("info", event, args, fields)

    def warning(self, event: str, *args: object, **fields: Any) -> None:
        """Log at level warning."""
        self._log("warning", event, args, fields)

    def error(self, event: str, *args: object, **fields: Any) -> None:
        """Log at level error."""
        self._log("error", event, args, fields)

    def exception(self, event: str, *args: object, **fields: Any) -> None:
        """Log at level error, with the traceback of the exception being handled."""
        self._log("error", event, args, fields | {"exception": traceback.format_exc()})

    def _log(
        self, level: str, event: str, args: tuple[object, ...], fields: dict[str, Any]
    ) -> None:
        self._write(level, str(event) % args if args else str(event), self._fields | fields)

"""Output of attempts: Airflow's log lines become lines of the attempt's log."""

from typing import Any

import msgspec

from pubsubflow.authoring.runtime.logger import TaskLogger

_LEVELS = {"debug", "info", "warning", "error", "critical"}
_DROPPED = ("timestamp", "level", "event", "logger", "filename", "lineno", "error_detail")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class LogLines:
    """Writes the output of one attempt to its log.

    Args:
        log: The log.
    """

    def __init__(self, log: TaskLogger) -> None:
        self._log = log

    def write(self, line: str) -> None:
        """Write one line."""
        record = _record(line)
        if record is None:
            print(line)  # noqa: T201 - the output of the task
            return
        event = str(record["event"])
        level = "error" if record["level"] == "critical" else record["level"]
        fields = {name: each for name, each in record.items() if name not in _DROPPED}
        for part in record.get("error_detail") or ():
            fields["error"] = f"{part.get('exc_type')}: {part.get('exc_value')}"
        getattr(self._log, level)(event, **{_name(key): value for key, value in fields.items()})


def _record(line: str) -> dict[str, Any] | None:
    """Return a log line of Airflow's; None for any other line."""
    if not line.startswith('{"timestamp"'):
        return None
    try:
        found = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.get("level") in _LEVELS and "event" in found else None


def _name(key: str) -> str:
    """Return a field's name that is none of the logger's own arguments."""
    return f"{key}_" if key in ("event", "self") else key

"""Log lines: output as lines of JSON, `{"t": seconds, "s": "stdout", "m": "the line"}`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

MAX_LINE_CHARACTERS = 16_384
RECORD_MARK = "\x1e"
NODE_MARK = "\x1e\x1d"
_RESERVED = frozenset({"t", "s", "m", "level"})
_ENCODE = msgspec.json.Encoder().encode


class LineSplitter:
    """Splits text into lines, and keeps a last one without a line end for the next text."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Add text and return the lines that are complete now, at most 16,384 characters each."""
        text = self._rest + text
        if "\n" not in text and len(text) < MAX_LINE_CHARACTERS:
            self._rest = text
            return []
        *lines, self._rest = text.split("\n")
        found = [chunk for line in lines for chunk in _chunks(line)]
        # A line that never ends must not grow in memory.
        while len(self._rest) >= MAX_LINE_CHARACTERS:
            found.append(self._rest[:MAX_LINE_CHARACTERS])
            self._rest = self._rest[MAX_LINE_CHARACTERS:]
        return found

    def finish(self) -> list[str]:
        """Return the last line, if it had no line end."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []


def split_records(lines: str) -> list[str]:
    """Return lines of JSON one by one, with their line ends.

    `str.splitlines` would also split at characters that JSON does not escape, such as U+2028.
    """
    return [f"{line}\n" for line in lines.split("\n") if line]


def log_line(stream: str, message: str) -> str:
    """Return a line of output as JSON with its line end.

    Args:
        stream: `stdout`, `stderr` or `log`.
        message: One line of output.
    """
    return _written({"t": _now(), "s": stream, "m": message})


def log_record(level: str, event: str, fields: Mapping[str, Any]) -> str:
    """Return a record of a task's log as JSON with its line end.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        event: What happened.
        fields: Further fields; values that JSON does not have are written as text.
    """
    more = {f"{key}_" if key in _RESERVED else key: value for key, value in fields.items()}
    line = _written({"t": _now(), "s": "log", "m": event, "level": level} | more)
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    cut = {"t": _now(), "s": "log", "m": event[:4096], "level": level, "truncated": True}
    return _written(cut)


def plain_text(make: Callable[[], str]) -> str:
    """Return a text that user code has a part in: one that can be encoded, whatever it does.

    Lone surrogates are escaped; where making the text raises, a note of that stands in its place.
    """
    try:
        return make().encode(errors="backslashreplace").decode()
    except BaseException as error:  # noqa: BLE001 - `__str__` is user code, and may raise anything
        return f"<its text cannot be made: {type(error).__name__}>"


def _now() -> float:
    return round(time.time(), 3)


def _written(record: dict[str, Any]) -> str:
    try:
        data = _ENCODE(record)
    except Exception:  # noqa: BLE001 - a value of user code may raise anything when it is encoded
        data = _ENCODE({_plain(key): _plain(value) for key, value in record.items()})
    return data.decode() + "\n"


def _plain(value: object) -> object:
    if isinstance(value, int | float | bool) or value is None:
        return value
    return plain_text(lambda: str(value))


def _chunks(line: str) -> list[str]:
    if len(line) <= MAX_LINE_CHARACTERS:
        return [line]
    starts = range(0, len(line), MAX_LINE_CHARACTERS)
    return [line[start : start + MAX_LINE_CHARACTERS] for start in starts]

"""Keeps the secrets of connections out of what tasks write and how they fail."""

from typing import Any

import msgspec

from pubsubflow.model.connections import MASK, Connection
from pubsubflow.model.wire.messages import TaskError

MIN_CHARACTERS = 4
"""What is shorter stands in half of all lines by chance: it is not masked."""

_OURS = frozenset({"t", "s", "level"})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Mask:
    """Hides the secrets that tasks of one process have fetched; it forgets none."""

    def __init__(self) -> None:
        self._hidden: list[str] = []
        self._written: list[str] = []

    def add(self, connection: Connection) -> None:
        """Hide the secrets of a connection from now on, each line of those that have several."""
        lines = {line.strip() for text in connection.hidden() for line in text.splitlines()}
        known = {line for line in lines if len(line) >= MIN_CHARACTERS} | set(self._hidden)
        self._hidden = sorted(known, key=len, reverse=True)
        self._written = [_encode(text).decode()[1:-1] for text in self._hidden]

    def text(self, text: str) -> str:
        """Return a text with `***` in the place of secrets."""
        for hidden in self._hidden:
            text = text.replace(hidden, MASK)
        return text

    def error(self, error: TaskError) -> TaskError:
        """Return an error without secrets in its message and traceback."""
        if not self._hidden:
            return error
        message, traceback = self.text(error.message), self.text(error.traceback)
        return msgspec.structs.replace(error, message=message, traceback=traceback)

    def lines(self, lines: str) -> str:
        """Return lines of output, in JSON, without secrets."""
        if not any(hidden in lines for hidden in self._written):
            return lines
        return "".join(map(self._line, lines.splitlines(keepends=True)))

    def _line(self, line: str) -> str:
        if not any(hidden in line for hidden in self._written):
            return line
        record = {
            self.text(name): value if name in _OURS else self.value(value)
            for name, value in _decode(line).items()
        }
        return _encode(record).decode() + "\n"

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets in its texts, names and numbers."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.value(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        if isinstance(value, int | float) and any(hidden in str(value) for hidden in self._hidden):
            return MASK
        return value

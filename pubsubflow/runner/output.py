"""What async tasks print, told apart although they share one process."""

import io
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TextIO

from pubsubflow.runner.log_lines import LineCutter, log_line, log_record

_PIECE_CHARACTERS = 32_768


class TaskOutput:
    """The output of one task, gathered until it leaves.

    Args:
        first: Called, in any thread, when there is output where there was none.
        full: Called, in any thread, when it should leave now.
    """

    def __init__(
        self, first: Callable[["TaskOutput"], None], full: Callable[["TaskOutput"], None]
    ) -> None:
        self._first = first
        self._full = full
        self._lock = threading.Lock()
        self._cutters: dict[str, LineCutter] = {}
        self._lines: list[str] = []
        self._size = 0

    def write(self, stream: str, text: str) -> None:
        """Add text that a task wrote to `stdout` or `stderr`."""
        with self._lock:
            cutter = self._cutters.get(stream)
            if cutter is None:
                cutter = self._cutters[stream] = LineCutter()
            lines = [log_line(stream, line) for line in cutter.feed(text)]
        self._add(lines)

    def record(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line of the task's log."""
        self._add([log_record(level, event, fields)])

    def take(self, *, last: bool = False) -> str:
        """Return the lines that have not left yet; the `last` time also one without an end."""
        if not (self._lines or self._cutters):
            return ""
        with self._lock:
            if last:
                for stream, cutter in self._cutters.items():
                    self._lines += [log_line(stream, line) for line in cutter.finish()]
            text = "".join(self._lines)
            self._lines.clear()
            self._size = 0
            return text

    def _add(self, lines: Iterable[str]) -> None:
        with self._lock:
            had_none = not self._lines
            self._lines += lines
            self._size += sum(map(len, lines))
            has_some = bool(self._lines)
            is_full = self._size >= _PIECE_CHARACTERS
        if is_full:
            self._full(self)
        elif had_none and has_some:
            self._first(self)


CURRENT_OUTPUT: ContextVar[TaskOutput | None] = ContextVar("pubsubflow_output", default=None)


class TaskStream(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr` and knows which task writes.

    What no task wrote goes to the stream that it stands in for.

    Args:
        name: `stdout` or `stderr`.
        beneath: The real stream.
    """

    def __init__(self, name: str, beneath: TextIO) -> None:
        super().__init__()
        self._name = name
        self._beneath = beneath
        self.buffer = _TaskBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of bytes written to `buffer`."""
        return "utf-8"

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the real file descriptor; what is written there belongs to no task."""
        return self._beneath.fileno()

    def write(self, text: str) -> int:
        """Add text to the output of the task that runs here."""
        output = CURRENT_OUTPUT.get()
        if output is None:
            return self._beneath.write(text)
        output.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        """Flush the real stream."""
        self._beneath.flush()


class _TaskBytes(io.BufferedIOBase):
    """The `buffer` of a TaskStream."""

    def __init__(self, stream: TaskStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        found = bytes(data)
        self._stream.write(found.decode(errors="replace"))
        return len(found)


def install_streams() -> None:
    """Let `print` and the like know which task they speak for."""
    sys.stdout = TaskStream("stdout", sys.stdout)
    sys.stderr = TaskStream("stderr", sys.stderr)

"""The output of async tasks, separated by task although they share one process."""

import io
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TextIO

from pubsubflow.runner.log_lines import LineSplitter, log_line, log_record

_CHUNK_CHARACTERS = 32_768


class TaskOutput:
    """The output of one task, buffered until it is sent.

    Args:
        first: Called, in any thread, with the first output in an empty buffer.
        full: Called, in any thread, when the buffer is full.
        number: The task's assignment.
        max_bytes: What comes after so much output is dropped: a flood must not fill the memory
            that tasks share.
    """

    def __init__(
        self,
        first: Callable[["TaskOutput"], None],
        full: Callable[["TaskOutput"], None],
        *,
        number: int = 0,
        max_bytes: int = 10 << 20,
    ) -> None:
        self._first = first
        self._full = full
        self.number = number
        self._left = max_bytes
        self._lock = threading.Lock()
        self._splitters: dict[str, LineSplitter] = {}
        self._lines: list[str] = []
        self._size = 0

    def write(self, stream: str, text: str) -> None:
        """Add text that a task wrote to `stdout` or `stderr`."""
        with self._lock:
            splitter = self._splitters.get(stream)
            if splitter is None:
                splitter = self._splitters[stream] = LineSplitter()
            lines = [log_line(stream, line) for line in splitter.feed(text)]
        self._add(lines)

    def record(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line of the task's log."""
        self._add([log_record(level, event, fields)])

    def take(self, *, last: bool = False) -> str:
        """Return and clear the buffered lines; with `last` also one without a line end."""
        # Without the lock: most tasks print nothing, and this is called at every result.
        if not (self._lines or self._splitters):
            return ""
        with self._lock:
            if last:
                for stream, splitter in self._splitters.items():
                    self._lines += [log_line(stream, line) for line in splitter.finish()]
            text = "".join(self._lines)
            self._lines.clear()
            self._size = 0
            return text

    def _add(self, lines: Sequence[str]) -> None:
        with self._lock:
            had_none = not self._lines
            if self._left >= 0:
                self._lines += lines
                size = sum(map(len, lines))
                self._size += size
                # The line that exceeds the limit is kept: by it the worker sees that it is.
                self._left -= size
            has_some = bool(self._lines)
            is_full = self._size >= _CHUNK_CHARACTERS
        # After the lock is released: the callbacks take the output, which locks again.
        if is_full:
            self._full(self)
        elif had_none and has_some:
            self._first(self)


CURRENT_OUTPUT: ContextVar[TaskOutput | None] = ContextVar("pubsubflow_output", default=None)


class TaskStream(io.TextIOBase):
    """Replaces `sys.stdout` or `sys.stderr` and adds what is written to the task that writes.

    Writes outside tasks go to the replaced stream.

    Args:
        name: `stdout` or `stderr`.
        beneath: The replaced stream.
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
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the real file descriptor; writes to it bypass the tasks' output."""
        return self._beneath.fileno()

    def write(self, text: str) -> int:
        """Add text to the output of the task that runs here."""
        output = CURRENT_OUTPUT.get()
        if output is None:
            return self._beneath.write(text)
        output.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        """Flush the replaced stream."""
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
    """Replace `sys.stdout` and `sys.stderr`, so that `print` writes to the task that runs."""
    sys.stdout = TaskStream("stdout", sys.stdout)
    sys.stderr = TaskStream("stderr", sys.stderr)

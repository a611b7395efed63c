"""The output of async tasks, separated by task although they share one process.

What a task prints, logs, writes to file descriptors 1 and 2 from Python, and what its children
write, goes to its own output. What C code writes there by itself goes to the process's pipes, which
the worker reads.
"""

import asyncio
import codecs
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TextIO

from pubsubflow.runner.log_lines import LineSplitter, log_line, log_record

_CHUNK_CHARACTERS = 32_768
_PIPE_SECONDS = 0.5
"""For how long what children wrote is read at the end of a task: they are gone by then, unless one
has detached itself while other tasks run."""
_STREAMS = {1: "stdout", 2: "stderr"}
_STDOUT_POSITION = 5
"""Position of `stdout` among the arguments of Popen, from 1."""


class TaskOutput:
    """The output of one task, buffered until it is sent.

    Args:
        first: Called, in any thread, with the first output in an empty buffer.
        full: Called, in any thread, when the buffer is full.
        number: The task's assignment.
        max_bytes: What comes after so much output is dropped: a flood must not fill the memory
            that tasks share.

    Attributes:
        children: Processes that the task has started.
        forked: Whether it has forked this one.
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
        self._pipes: dict[str, _ChildPipe] = {}
        self.children: list[subprocess.Popen[Any] | asyncio.SubprocessTransport] = []
        self.forked = False

    def write(self, stream: str, text: str) -> None:
        """Add text that a task wrote to `stdout` or `stderr`."""
        if self._left < 0:
            return
        with self._lock:
            splitter = self._splitters.get(stream)
            if splitter is None:
                splitter = self._splitters[stream] = LineSplitter()
            lines = [log_line(stream, line) for line in splitter.feed(text)]
        self._add(lines)

    def record(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line of the task's log."""
        self._add([log_record(level, event, fields)])

    def pipe(self, stream: str) -> int:
        """Return a file descriptor for children; what they write there is added to the output."""
        with self._lock:
            if stream not in self._pipes:
                self._pipes[stream] = _ChildPipe(self, stream)
            return self._pipes[stream].writer

    def close_pipes(self) -> None:
        """Add what children have written, and give them up; those that go on keep their pipe."""
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            pipe.close()

    def take(self, *, last: bool = False) -> str:
        """Return and clear the buffered lines; with `last` also one without a line end."""
        if last and self._pipes:
            self.close_pipes()
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


class _ChildPipe:
    """A pipe for the children of one task, read by a thread: a task may block while it waits."""

    def __init__(self, output: TaskOutput, stream: str) -> None:
        self._output = output
        self._stream = stream
        self._reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._read, name="child-output", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give up the writing end, and wait until what has been written is added."""
        os.close(self.writer)
        self._thread.join(_PIPE_SECONDS)

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while data := os.read(self._reader, _CHUNK_CHARACTERS):
            self._output.write(self._stream, decode(data))
        os.close(self._reader)


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


class _TaskLog(logging.Handler):
    """Adds the records of `logging` that no handler of the user takes to the task's log."""

    def __init__(self, write: Callable[[str, str, Mapping[str, Any]], None]) -> None:
        super().__init__(logging.INFO)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit the message; logging says so
            self.handleError(record)
        else:
            self._write(record.levelname.lower(), text, {"logger": record.name})


def install_logging(write: Callable[[str, str, Mapping[str, Any]], None]) -> None:
    """Write records of `logging` to the task's log from INFO on, unless user code configures it.

    Args:
        write: Adds a record to the log of the task that runs: level, text, fields.
    """
    # As the last resort, not as a handler of the root logger: `basicConfig` of user code must still
    # take effect.
    logging.lastResort = _TaskLog(write)
    logging.getLogger().setLevel(logging.INFO)


def install_streams(loop: asyncio.AbstractEventLoop) -> None:
    """Direct what a task of this loop and its children write to the output of the task."""
    sys.stdout = TaskStream("stdout", sys.stdout)
    sys.stderr = TaskStream("stderr", sys.stderr)
    vars(sys).update(__stdout__=sys.stdout, __stderr__=sys.stderr)
    install_logging(_write_record)
    _direct_writes()
    _direct_children(loop)


def _write_record(level: str, text: str, fields: Mapping[str, Any]) -> None:
    output = CURRENT_OUTPUT.get()
    if output is None:
        sys.stderr.write(f"{text}\n")
    else:
        output.record(level, text, fields)


def _direct_writes() -> None:
    """Direct `os.write` to the standard streams to the task that calls it."""
    write = os.write

    def write_as_task(fd: int, data: Any, /) -> int:
        output = CURRENT_OUTPUT.get() if fd in _STREAMS else None
        if output is None:
            return write(fd, data)
        found = bytes(data)
        output.write(_STREAMS[fd], found.decode(errors="replace"))
        return len(found)

    os.write = write_as_task


def _direct_children(loop: asyncio.AbstractEventLoop) -> None:
    """Give children that would inherit the process's standard streams those of their task."""
    begin = subprocess.Popen.__init__

    def begin_as_task(self: Any, *args: Any, **options: Any) -> None:
        output = CURRENT_OUTPUT.get()
        begin(self, *args, **_own_streams(options, len(args)))
        if output is not None:
            output.children.append(self)

    def system(command: Any) -> int:
        code = subprocess.Popen(command, shell=True).wait()  # noqa: S602 - that is os.system
        return code << 8 if code >= 0 else -code

    subprocess.Popen.__init__ = begin_as_task  # type: ignore[method-assign]
    os.system = system
    os.register_at_fork(after_in_parent=_note_fork)
    # uvloop has its own way to start children.
    for name in ("subprocess_exec", "subprocess_shell"):
        setattr(loop, name, _as_task(getattr(loop, name)))


def _note_fork() -> None:
    output = CURRENT_OUTPUT.get()
    if output is not None:
        output.forked = True


def _as_task(start: Callable[..., Any]) -> Callable[..., Any]:
    async def start_as_task(*args: Any, **options: Any) -> Any:
        given = {name: options[name] for name in _STREAMS.values() if name in options}
        output = CURRENT_OUTPUT.get()
        own = _own_streams(given, 0, absent=subprocess.PIPE)
        transport, protocol = await start(*args, **(options | own))
        if output is not None:
            output.children.append(transport)
        return transport, protocol

    return start_as_task


def _own_streams(options: dict[str, Any], given: int, absent: Any = None) -> dict[str, Any]:
    """Return the options of a child with its task's pipes in the place of inherited streams.

    Args:
        options: Those that are given by name.
        given: How many are given by position, which are left as they are.
        absent: The meaning of an option that is not given.
    """
    output = CURRENT_OUTPUT.get()
    if output is None or given >= _STDOUT_POSITION:
        return options
    inherited = [name for name in _STREAMS.values() if options.get(name, absent) is None]
    return options | {name: output.pipe(name) for name in inherited}

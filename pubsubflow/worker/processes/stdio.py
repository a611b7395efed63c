"""The stdout and stderr pipes of a runner, read by the worker: they outlive a crash."""

import asyncio
import codecs
import contextlib
import os
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterable
from fcntl import ioctl
from typing import ClassVar

import msgspec

from pubsubflow.runner.log_lines import NODE_MARK, RECORD_MARK, LineSplitter, log_line

_CHUNK_BYTES = 4096
# Reading takes at most one part in so many of the loop's time, for all pipes together: whoever
# writes faster waits, because the pipe is full.
_SHARE = 3


class OutputPipe:
    """A pipe whose writing end a runner gets as stdout or stderr.

    Args:
        stream: `stdout` or `stderr`.
        on_lines: Called with lines of JSON as they come.
    """

    _full: ClassVar[set["OutputPipe"]] = set()

    def __init__(self, stream: str, on_lines: Callable[[str], None]) -> None:
        self._stream = stream
        self._on_lines = on_lines
        self._splitter = LineSplitter()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._lines: deque[str] = deque()
        self._mark_due = False
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def release_writer(self) -> None:
        """Close our copy of the writing end, once the runner has its own."""
        os.close(self.writer)
        self.writer = -1

    def drain(self) -> None:
        """Read all that the current node wrote; it has ended.

        What is in the pipe now is all of that. A process that the node has left behind may go on
        writing without end.
        """
        size = bytearray(4)
        ioctl(self._reader, termios.FIONREAD, size)
        left = int.from_bytes(size, sys.byteorder)
        while left > 0 and (count := self._read()):
            left -= count

    def finish(self) -> None:
        """Read all that the last node wrote, with a last line that has no line end."""
        self.drain()
        lines = self._splitter.finish()
        if lines:
            self._pass_on(lines)

    def end_task(self) -> None:
        """Read all that a task wrote behind which another one was sent ahead; it has ended."""
        self.drain()
        # Behind the mark stands what the next one has begun to write.
        if not self._lines and (lines := self._splitter.finish()):
            self._pass_on(lines)

    def next_task(self) -> None:
        """Pass on what a task wrote that was sent ahead; its output begins with a mark."""
        if self._lines:
            self._lines.popleft()
            self._pass_on(())
        else:
            self._mark_due = True

    def expect_no_mark(self) -> None:
        """Note that what was sent ahead does not begin."""
        self._mark_due = False

    def next_node(self) -> None:
        """Pass on what the next node of a chain wrote."""
        if self._lines:
            self._lines.popleft()
        self._pass_on(())

    def close(self) -> None:
        """Close both ends."""
        if self._pause is not None:
            self._pause.cancel()
        self._full.discard(self)
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        if self.writer >= 0:
            self.release_writer()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._reader, self._on_readable)

    def _on_readable(self) -> None:
        started = self._loop.time()
        count = self._read()
        if count < _CHUNK_BYTES:
            self._full.discard(self)
            return
        self._full.add(self)
        self._loop.remove_reader(self._reader)
        pause = (self._loop.time() - started) * _SHARE * len(self._full)
        self._pause = self._loop.call_later(pause, self._listen)

    def _read(self) -> int:
        """Read one chunk; return its size in bytes."""
        try:
            data = os.read(self._reader, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._loop.remove_reader(self._reader)
            return 0
        lines = self._splitter.feed(self._decode(data))
        if lines:
            self._pass_on(lines)
        return len(data)

    def _pass_on(self, lines: Iterable[str]) -> None:
        """Pass on lines up to the mark that ends a node."""
        waiting = self._lines
        waiting.extend(lines)
        # The runner starts the next node of a chain before the worker has read its result: what
        # stands behind the mark belongs to that node, and waits for `next_node`.
        found = []
        while waiting and (self._mark_due or waiting[0] != NODE_MARK):
            line = waiting.popleft()
            if line == NODE_MARK:
                self._mark_due = False
                continue
            if line.endswith(NODE_MARK):
                waiting.appendleft(NODE_MARK)
                line = line.removesuffix(NODE_MARK)
            found.append(self._as_json(line))
        if found:
            self._on_lines("".join(found))

    def _as_json(self, line: str) -> str:
        """Return a line as JSON: a log record as the runner wrote it, any other wrapped."""
        if line.startswith(RECORD_MARK):
            with contextlib.suppress(msgspec.DecodeError):
                msgspec.json.decode(line[1:], type=dict)
                return line[1:] + "\n"
        return log_line(self._stream, line)


def open_output_pipes(on_lines: Callable[[str], None]) -> list[OutputPipe]:
    """Open the pipes of a process' stdout and stderr, both or neither.

    Raises:
        OSError: No pipe can be opened now.
    """
    stdout = OutputPipe("stdout", on_lines)
    try:
        return [stdout, OutputPipe("stderr", on_lines)]
    except OSError:
        stdout.close()
        raise

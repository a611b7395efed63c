"""The file descriptors 1 and 2 of a runner, read by the worker: they outlive a crash."""

import asyncio
import codecs
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from pubsubflow.runner.log_lines import NODE_MARK, RECORD_MARK, LineCutter, log_line

_CHUNK_BYTES = 65_536


class OutputPipe:
    """A pipe whose writing end a runner gets as stdout or stderr.

    Args:
        stream: `stdout` or `stderr`.
        take: Called with lines of JSON as they come.
    """

    def __init__(self, stream: str, take: Callable[[str], None]) -> None:
        self._stream = stream
        self._take = take
        self._cutter = LineCutter()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._lines: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    def release_writer(self) -> None:
        """Close our copy of the writing end, once the runner has its own."""
        os.close(self.writer)
        self.writer = -1

    def drain(self) -> None:
        """Take all that was written before the current node ended; it has ended."""
        while self._read():
            pass

    def finish(self) -> None:
        """Do the same for the last node, with a last line that has no end."""
        self.drain()
        lines = self._cutter.finish()
        if lines:
            self._hand_over(lines)

    def next_node(self) -> None:
        """Go on with what the next node of a chain wrote."""
        if self._lines:
            self._lines.popleft()
        self._hand_over(())

    def close(self) -> None:
        """Close it for good."""
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        if self.writer >= 0:
            self.release_writer()

    def _read(self) -> bool:
        """Take one chunk; return whether there may be more."""
        try:
            data = os.read(self._reader, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reader)
            return False
        lines = self._cutter.feed(self._decode(data))
        if lines:
            self._hand_over(lines)
        return len(data) == _CHUNK_BYTES

    def _hand_over(self, lines: Iterable[str]) -> None:
        """Pass lines on up to the mark that ends a node: what follows is the next node's."""
        waiting = self._lines
        waiting.extend(lines)
        found = []
        while waiting and waiting[0] != NODE_MARK:
            line = waiting.popleft()
            if line.endswith(NODE_MARK):
                waiting.appendleft(NODE_MARK)
                line = line.removesuffix(NODE_MARK)
            found.append(self._as_json(line))
        if found:
            self._take("".join(found))

    def _as_json(self, line: str) -> str:
        """Wrap a line, unless the runner wrote a record of its own."""
        if line.startswith(RECORD_MARK):
            with contextlib.suppress(msgspec.DecodeError):
                msgspec.json.decode(line[1:], type=dict)
                return line[1:] + "\n"
        return log_line(self._stream, line)

"""The file descriptors 1 and 2 of a runner, read by the worker: they outlive a crash."""

import asyncio
import codecs
import contextlib
import os
from collections.abc import Callable

import msgspec

from pubsubflow.runner.lines import RECORD_MARK, LineCutter, log_line

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
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    def release_writer(self) -> None:
        """Close our copy of the writing end, once the runner has its own."""
        os.close(self.writer)
        self.writer = -1

    def drain(self) -> None:
        """Take all that was written so far, also a last line without an end."""
        while self._read():
            pass
        lines = self._cutter.finish()
        if lines:
            self._hand_over(lines)

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

    def _hand_over(self, lines: list[str]) -> None:
        self._take("".join(map(self._as_json, lines)))

    def _as_json(self, line: str) -> str:
        """Wrap a line, unless the runner wrote a record of its own."""
        if line.startswith(RECORD_MARK):
            with contextlib.suppress(msgspec.DecodeError):
                msgspec.json.decode(line[1:], type=dict)
                return line[1:] + "\n"
        return log_line(self._stream, line)

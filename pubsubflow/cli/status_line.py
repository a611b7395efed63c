"""The status line of long work: how far it is, on a terminal alone, and on stderr alone."""

import os
import shutil
import sys
import time
from types import TracebackType
from typing import Self

from pubsubflow.terminal_text import terminal_safe_line

_BAR_WIDTH = 20
_MIN_SECONDS = 0.1
_ERASE = "\x1b[K"


class StatusLine:
    """One line at the bottom of a terminal that is written over, and is gone in the end.

    Where stderr is not a terminal nothing is written. A context manager.
    """

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def show(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show a text, with a bar if it is known how much there is to do.

        Texts that follow one another faster than can be read are left out, except for a last one.
        """
        now = time.monotonic()
        if not self.shown or (now - self._last < _MIN_SECONDS and done != total):
            return
        self._last = now
        line = terminal_safe_line(text)
        if done is not None and total:
            filled = _BAR_WIDTH * min(done, total) // total
            line = f"{'█' * filled}{'░' * (_BAR_WIDTH - filled)} {done} of {total}  {line}"
        self._write(line[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Remove the line, before something else is written."""
        if self._last:
            self._write("")
            self._last = 0.0

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line}{_ERASE}")
        sys.stderr.flush()

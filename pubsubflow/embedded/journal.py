"""A server's log: bounded in size, and quoted when the server does not start."""

import os
import shutil
from pathlib import Path

MAX_BYTES = 8_000_000
"""Size at which a log is put aside; one older piece is kept."""

_WHAT_ENDS_A_SERVER = ("PANIC:", "FATAL:", "[FTL]", "ERROR:", "error:", "[ERR]", "panic:")
_FULL_DISK = "no space left on device"
_MAX_QUOTE = 300


class Journal:
    """A log file that a server writes through a descriptor of ours.

    Args:
        path: The file; its older piece gets the suffix ``.1``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def open(self) -> int:
        """Open it for a server about to start; give a descriptor that the caller closes."""
        self.trim()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._start = os.fstat(descriptor).st_size
        return descriptor

    def trim(self) -> None:
        """Put the log aside when it is too large.

        The server goes on writing to the same file, in append mode: so it is copied and cut, not
        renamed. Lines written in between are lost.
        """
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
            os.truncate(self.path, 0)
            self._start = 0

    @property
    def tells_of_full_disk(self) -> bool:
        """Whether the server that started last complained about space."""
        return _FULL_DISK in self._text().lower()

    def contains(self, text: str) -> bool:
        """Say whether the server that started last wrote this."""
        return text in self._text()

    def last_words(self) -> str:
        """Give the line that says why the server that started last did not stay."""
        lines = [line.strip() for line in self._text().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in _WHAT_ENDS_A_SERVER)]
        return (telling or lines or ["it said nothing"])[-1][-_MAX_QUOTE:]

    def _text(self) -> str:
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

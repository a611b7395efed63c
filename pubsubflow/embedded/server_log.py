"""A server's log: bounded in size, and quoted when the server does not start."""

import errno
import os
import shutil
from pathlib import Path

from pubsubflow.embedded.child import describe_exit
from pubsubflow.errors import ConfigError

MAX_BYTES = 8_000_000
"""Size at which a log is put aside; one older piece is kept."""

_WHAT_ENDS_A_SERVER = ("PANIC:", "FATAL:", "[FTL]", "ERROR:", "error:", "[ERR]", "panic:")
_FULL_DISK = "no space left on device"
_LITTLE_ROOM_BYTES = 1 << 16
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

    def contains(self, text: str) -> bool:
        """Say whether the server that started last wrote this."""
        return text in self._text()

    def failure(self, program: str, code: int) -> Exception:
        """Give the error for a program that ended before its time, in its own last words.

        Args:
            program: What ended.
            code: Its exit code.

        Returns:
            An `OSError` when the disk is full, for whoever knows what to advise; else a
            `ConfigError`.
        """
        if _FULL_DISK in self._text().lower() or self._has_no_room():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return ConfigError(
            f"{program} did not start ({describe_exit(code)}): {self._last_words()} "
            f"(see {self.path})"
        )

    def _has_no_room(self) -> bool:
        """A full disk may be so full that nobody could write so."""
        return shutil.disk_usage(self.path.parent).free < _LITTLE_ROOM_BYTES

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._text().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in _WHAT_ENDS_A_SERVER)]
        return (telling or lines or ["it said nothing"])[-1][-_MAX_QUOTE:]

    def _text(self) -> str:
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")
